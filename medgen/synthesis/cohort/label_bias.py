"""How biased inferred labels are: segmenters label held-out labelled scans, and people's labels say how it should be.

Segmenters make thin structures thinner than people draw them, all members of an ensemble alike, so that their agreement
does not show it. What does is the volume that they give a label on scans they have not learnt from, beside the volume
in the human masks of the same scans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.errors import DataError
from medgen.metrics.interval import Interval, percentile_interval, subject_weights
from medgen.metrics.segmentation import dice
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import numpy_rng

# Labels of some scans (n, 1, i, j, k), by what was learnt from others; the number is that of the fold.
Infer = Callable[[Dataset, Tensor, int], Tensor]
_RESAMPLES = 2000


@dataclass(frozen=True)
class LabelBias:
    """One label as segmenters see it in labelled scans that they have not learnt from.

    Attributes:
        label: Its number.
        scans: Labelled scans that have it.
        volume_ratio: Inferred volume of all scans over the volume in the human masks; subjects are resampled.
        dice: Mean Dice of the scans that have it; subjects are resampled.
        real_difference: By how much the mean log volumes of two halves of the real subjects differ (root mean square);
            NaN with fewer than two scans.
        tolerance: Largest bias of the log volume that counts as none: ``real_difference``, or the configured least.
    """

    label: int
    scans: int
    volume_ratio: Interval
    dice: Interval
    real_difference: float
    tolerance: float

    @property
    def biased(self) -> bool:
        """Whether the volume is off by more than real scans differ by, and that is no chance; also if unknown."""
        ratio = self.volume_ratio
        if not ratio.estimate > 0:
            return True
        # Written so that NaN counts as biased.
        return not (abs(math.log(ratio.estimate)) <= self.tolerance or ratio.low <= 1 <= ratio.high)

    def sentence(self, name: str) -> str:
        """The finding in words, for the label's name."""
        ratio, percent = self.volume_ratio, 100 * (self.volume_ratio.estimate - 1)
        size = f"{abs(percent):.0f} % too {'small' if percent < 0 else 'large'}" if percent else "as large as it is"
        limit = 100 * (math.exp(self.tolerance) - 1) if math.isfinite(self.tolerance) else math.nan
        said = "not inferred" if self.biased else "inferred"
        return (
            f"{name}: {said}; out of fold it is seen {size} (volume ratio {ratio.estimate:.3f} [{ratio.low:.3f}, "
            f"{ratio.high:.3f}]), where {limit:.1f} % counts as no bias."
        )

    def to_plain(self) -> dict[str, Any]:
        """As plain data, the finding included."""
        return {**asdict(self), "biased": self.biased}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> LabelBias:
        """Inverse of :meth:`plain`."""
        return cls(
            label=int(data["label"]),
            scans=int(data["scans"]),
            volume_ratio=_interval(data["volume_ratio"]),
            dice=_interval(data["dice"]),
            real_difference=_number(data["real_difference"]),
            tolerance=_number(data["tolerance"]),
        )


def measure_bias(
    real: Dataset,
    labels: Sequence[int],
    infer: Infer,
    *,
    folds: int,
    least: float,
    seed: int,
) -> tuple[LabelBias, ...]:
    """Label every labelled scan by what was learnt from other subjects, and compare with the human masks.

    Args:
        real: Labelled scans of two subjects or more.
        labels: Label numbers, without 0.
        infer: Labels scans by others.
        folds: Groups of subjects that are held out in turn; fewer if there are fewer subjects.
        least: Bias of the log volume that never counts, however little real scans differ.
        seed: Seed of the folds and of the resampling.

    Raises:
        DataError: If there are no masks, or fewer than two subjects.
    """
    subjects = sorted(set(real.subjects))
    if real.labels is None or len(subjects) < 2:
        raise DataError(f"the bias of inferred labels needs two labelled subjects, found {len(subjects)}; add subjects")
    order = [str(name) for name in numpy_rng(seed, "bias", "folds").permutation(subjects)]
    found = torch.zeros_like(real.labels)
    for fold in range(min(folds, len(subjects))):
        held_out = set(order[fold::folds])
        rows = [row for row, subject in enumerate(real.subjects) if subject in held_out]
        others = [name for name, subject in zip(real.ids, real.subjects, strict=True) if subject not in held_out]
        found[rows] = infer(real.subset(others), real.images[rows], fold).to(found.dtype)
    return tuple(
        compare(found[:, 0].numpy(), real.labels[:, 0].numpy(), real.subjects, label, least, seed) for label in labels
    )


def compare(
    inferred: NDArray[Any], human: NDArray[Any], subjects: Sequence[str], label: int, least: float, seed: int
) -> LabelBias:
    """How inferred label maps of one label differ from human ones, in volume and overlap.

    Args:
        inferred: Label maps (n, i, j, k) by segmenters that have not learnt from them.
        human: Label maps of the same scans by people.
        subjects: Subject of each scan.
        label: Label number.
        least: See :func:`measure_bias`.
        seed: Seed of the random resampling; equal seeds give equal results.

    >>> human = np.zeros((4, 4, 4, 4), dtype=np.uint8)
    >>> human[:, :2] = 1
    >>> inferred = human.copy()
    >>> inferred[:, 1] = 0
    >>> half = compare(inferred, human, ["a", "b", "c", "d"], 1, 0.05, seed=0)
    >>> half.volume_ratio.estimate, half.biased
    (0.5, True)
    """
    drawn, seen = ((maps == label).sum(axis=(1, 2, 3)).astype(np.float64) for maps in (human, inferred))
    has = drawn > 0
    overlap = np.array([dice(a, b, label) for a, b in zip(inferred, human, strict=True)])
    names = list(dict.fromkeys(subjects))
    member = np.array([[subject == name for name in names] for subject in subjects], dtype=np.float64)
    weights = subject_weights(len(names), _RESAMPLES, seed, f"bias {label}")
    # All scans count for the volume, so that a label that is seen where none was drawn makes the ratio larger.
    ratio = _ratio(member.T @ seen, member.T @ drawn, weights)
    quality = _ratio(member.T @ (overlap * has), member.T @ has.astype(np.float64), weights)
    own = [drawn[has & (column > 0)] for column in member.T]
    difference = halves_differ([float(np.log(volumes).mean()) for volumes in own if volumes.size])
    tolerance = max(difference, least) if math.isfinite(difference) else least
    return LabelBias(label, int(has.sum()), ratio, quality, difference, tolerance)


def halves_differ(values: Sequence[float]) -> float:
    """Root mean square of the difference of the means of two random halves of some subjects; NaN below two.

    >>> halves_differ([1.0, 1.0, 1.0]), round(halves_differ([0.0, 2.0]), 6)
    (0.0, 2.0)
    """
    count = len(values)
    if count < 2:
        return math.nan
    larger, smaller = (count + 1) // 2, count // 2
    return float(np.std(values, ddof=1)) * math.sqrt(1 / larger + 1 / smaller)


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64], weights: NDArray[np.float64]) -> Interval:
    """Ratio of sums over subjects, with a percentile interval of the same ratio of the resamples."""
    totals = weights @ bottom
    draws = np.divide(weights @ top, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    estimate = float(top.sum() / bottom.sum()) if bottom.sum() else math.nan
    return percentile_interval(estimate, draws, len(top))


def _interval(data: Mapping[str, Any]) -> Interval:
    estimate, low, high = (
        math.nan if data[name] is None else float(data[name]) for name in ("estimate", "low", "high")
    )
    return Interval(estimate, low, high, int(data["n"]), float(data["level"]))


def _number(value: float | None) -> float:
    # NaN is null in JSON.
    return math.nan if value is None else float(value)
