"""Keys of numbers in the store: what each means, and which of two values is better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# An interval is kept as three numbers.
LOW, HIGH = ".low", ".high"


@dataclass(frozen=True)
class Key:
    """The name of a number, readable and the same in every version.

    Attributes:
        name: Words joined by dots; ``<score>`` stands for a name that the run brings.
        means: What it is, with its unit; no full stop.
        better: Which of two runs on the same scans is better by it; empty where neither is.
    """

    name: str
    means: str
    better: Literal["", "higher", "lower"] = ""

    def fits(self, name: str) -> bool:
        """Whether a number is called so.

        >>> Key("ap.<score>.raw", "").fits("ap.knn_pca.raw"), Key("seconds.<stage>", "").fits("second")
        (True, False)
        """
        parts = re.split(r"(<[^>]*>)", self.name)
        pattern = "".join(".+" if part.startswith("<") else re.escape(part) for part in parts)
        return re.fullmatch(pattern, name) is not None


# What every run has, whatever its stages.
EVERY_RUN = (Key("seconds.<stage>", "time that a stage took, in seconds"),)
# What work on many cases logs by shard, where it is spread over processes or machines.
SHARDS = (
    Key("shard.cases", "cases of a shard"),
    Key("shard.seconds", "time that its worker took, in seconds"),
    Key("shard.cpu_seconds", "computing time of its worker, in seconds"),
    Key("shard.peak_mb", "peak memory of its worker so far, in 10⁶ bytes"),
    Key("shard.begun", "how often it was begun; 0 if an earlier start of the run had done it"),
)
# What a training logs by optimiser step; the terms of a loss are those of the model's family.
TRAINING = (
    Key("loss", "what is minimised"),
    Key("<term>", "a term of the loss, such as `nll`, `kl`, `rmse`, `dice`; the family's `loss` says its unit"),
    Key("gradient", "norm of the gradient before it is clipped"),
    Key("lr", "learning rate"),
    Key("validation", "the loss on validation scans"),
    Key("<network>/<term>", "the same of one network of a generator: `labels/` makes label maps"),
)


def spread(values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by key; an interval as ``key``, ``key.low`` and ``key.high``, what is None or no number left out.

    >>> from medgen.metrics.interval import Interval
    >>> spread({"a": Interval(0.5, 0.25, 0.75, 12), "b": 2, "c": None, "d": float("nan")})
    {'a': 0.5, 'a.low': 0.25, 'a.high': 0.75, 'b': 2.0}
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        if value is None:
            continue
        if hasattr(value, "estimate"):
            found |= {key: value.estimate, f"{key}{LOW}": value.low, f"{key}{HIGH}": value.high}
        else:
            found[key] = float(value)
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def check_known(values: Mapping[str, Any], keys: Iterable[Key], who: str) -> None:
    """Refuse a number that no key declares: a bug, since nobody could look it up.

    Raises:
        KeyError: Naming it.
    """
    declared = tuple(keys)
    if strange := next((name for name in values if not any(key.fits(name) for key in declared)), None):
        raise KeyError(f"{who} has a number {strange!r} that none of its keys declares")
