"""The parts of a cross-fit ensemble and the steps that fitting and scoring share, so that both do exactly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly import calibration
from medgen.anomaly.channel_choice import default_channels
from medgen.anomaly.config import HEAT_SCORES, AnomalyConfig
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.fusion import Tail, fuse, heat
from medgen.anomaly.normative.maps import Normative
from medgen.anomaly.score_tail import ScoreTail
from medgen.anomaly.scores.base import Inputs, State
from medgen.anomaly.scores.catalogue import get, registered
from medgen.errors import ConfigError
from medgen.metrics.interval import Interval
from medgen.models.base import ScanModel
from medgen.transforms.masked_smoothing import Smoother


@dataclass(frozen=True, eq=False)
class FoldMember:
    """One fold: its model, what its scores learned, and healthy statistics that leave the fold's own scans out.

    A calibration scan of this fold is scored with exactly these, which have not seen its subject.

    Attributes:
        models: Trained on the other folds, in evaluation mode, one of each kind.
        states: What each score learned on the other folds.
        normatives: Healthy mean and sd of each voxel score, from the other folds' out-of-fold maps.
        tails: Healthy tail of the z of each fused channel, from the same maps.
        fused_tail: Healthy tail of the fused map.
    """

    models: tuple[ScanModel, ...]
    states: Mapping[str, State]
    normatives: Mapping[str, Normative]
    tails: Mapping[str, Tail]
    fused_tail: Tail


@dataclass(frozen=True, eq=False)
class Calibration:
    """Out-of-fold scores of the healthy development subjects; a subject's scans count once, with their largest.

    Attributes:
        folds: (n,) fold of each subject, whose member scored it.
        scores: Scan scores by name, each (n,).
        threshold: Heat that a healthy scan exceeds anywhere with probability at most the target: the family-wise level.
        healthy: The candidate findings of the same scans.
    """

    folds: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    threshold: float
    healthy: HealthyCandidates
    _tails: dict[str, ScoreTail | None] = field(default_factory=dict, repr=False)

    @property
    def maxima(self) -> NDArray[np.float64]:
        """(n,) hottest voxel of every subject."""
        return self.scores["max"]

    def p_value(self, name: str, value: float) -> float:
        """Conformal p of a scan score: by hand, (1 + how many of the table's scores are at least as high) / (n + 1)."""
        return calibration.p_value(self.scores[name], value)

    def beyond(self, name: str, value: float) -> Interval | None:
        """How rare a score is that no healthy subject reaches, by a fitted tail; None where p itself says it.

        See :mod:`medgen.anomaly.score_tail`: an extrapolation beside p, not instead of it.
        """
        if not value > self.scores[name].max():
            return None
        if name not in self._tails:
            self._tails[name] = ScoreTail.of(self.scores[name])
        tail = self._tails[name]
        return None if tail is None else tail.p(value)

    def rows(self, subjects: Sequence[str] = ()) -> list[dict[str, object]]:
        """The lines of ``calibration.csv``, from which every p-value and the threshold can be recomputed.

        Args:
            subjects: Names in the order of the calibration; without them subjects stay unnamed.
        """
        return [
            {
                **({"subject": subjects[number]} if subjects else {}),
                "fold": int(fold) + 1,
                **{name: float(values[number]) for name, values in self.scores.items()},
            }
            for number, fold in enumerate(self.folds)
        ]


def with_channels(config: AnomalyConfig, classes: Sequence[type[ScanModel]]) -> AnomalyConfig:
    """The configuration with the channels of its fusion named: its own, or those that fit models of these classes.

    Raises:
        ConfigError: As :func:`~medgen.anomaly.channel_choice.default_channels`.
    """
    if config.fusion.channels:
        return config
    fusion = config.fusion.model_copy(update={"channels": default_channels(classes)})
    return config.model_copy(update={"fusion": fusion})


def check_scores(classes: Sequence[type[ScanModel]], config: AnomalyConfig) -> list[str]:
    """Names of the scores that the configuration names, once it is sure that models of these classes serve them.

    Raises:
        ConfigError: If a score is unknown, or needs something that no model offers.
    """
    config.check_names()
    config = with_channels(config, classes)
    keys = {
        **dict.fromkeys(config.fusion.channels, "anomaly.fusion.channels"),
        **dict.fromkeys(set(config.scores) - set(config.fusion.channels), "anomaly.scores"),
    }
    named = [*config.fusion.channels, *config.scores]
    if config.scan_score not in HEAT_SCORES:
        keys.setdefault(config.scan_score, "anomaly.scan_score")
        named.append(config.scan_score)
    for name in named:
        if not get(name).served_by(classes):
            level = get(name).level
            usable = ", ".join(key for key, entry in registered(level).items() if entry.served_by(classes))
            families = " or ".join(repr(cls.family) for cls in classes)
            raise ConfigError(
                f"{keys[name]}: the score {name!r} does not work with model family {families}; usable: {usable}"
            )
    return named


def supported(models: Sequence[ScanModel], config: AnomalyConfig, wanted: Sequence[str] | None) -> list[str]:
    """Names of the scores to fit with such models: fused channels first, then other voxel scores, then scan scores.

    Scores that cost many passes through a model are left out unless the configuration names them.

    Raises:
        ConfigError: If a score that the configuration names needs something that no model offers.
    """
    named = check_scores([type(model) for model in models], config)
    extra = [*registered("voxel"), *registered("scan")] if wanted is None else [*wanted, *registered("scan")]
    chosen = [*named, *(name for name in extra if not get(name).costly)]
    names = dict.fromkeys([*chosen, *(shared for name in chosen if (shared := get(name).shares))])
    return sorted((name for name in names if get(name).supports(models)), key=lambda name: get(name).level == "scan")


def inputs_for(
    models: Sequence[ScanModel],
    image: torch.Tensor,
    foreground: torch.Tensor,
    config: AnomalyConfig,
    memo: Sequence[dict[str, Any]] = (),
    bf16: bool = False,
) -> Inputs:
    """A batch (b, c, i, j, k) on the device of the models, with the settings that scores read.

    ``memo`` has one dictionary per scan, which all folds that see the scan share; ``bf16`` is the precision of models.
    """
    device = next(models[0].parameters()).device
    return Inputs(
        image.float().to(device), foreground.bool().to(device), tuple(models), config.of_scores(), tuple(memo), bf16
    )


def smoothed(name: str, inputs: Inputs, states: Mapping[str, State], smoother: Smoother) -> NDArray[np.float32]:
    """A voxel score of one scan (a batch of one), smoothed within the scored region, (i, j, k), 0 outside."""
    entry = get(name)
    return smoother(entry(inputs, entry.state(states))[0])


def fused_surprise(
    tails: Mapping[str, Tail], zs: Mapping[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Combined −log₁₀ p of the channels of ``tails`` for z of any shape, and each channel's own."""
    single = {name: tail(zs[name]) for name, tail in tails.items()}
    return fuse(list(single.values())), single


def heat_of(fused_tail: Tail, fused: NDArray[np.float32]) -> NDArray[np.float32]:
    """The fused map on the scale of a z against healthy voxels."""
    return heat(fused_tail(fused))


def model_scores(inputs: Inputs, states: Mapping[str, State]) -> dict[str, float]:
    """Scan scores that come from a model instead of the heatmap, of one scan (a batch of one) from one fold."""
    found = {}
    for name, entry in registered("scan").items():
        if name in states:
            found[name] = float(entry(inputs, entry.state(states))[0])
    return found


@dataclass(frozen=True, eq=False)
class Places:
    """The scored voxels of a grid and one for all others, which are alike: most of a grid is not scored.

    >>> place = Places.of(np.array([[[True, False], [False, True]]]))
    >>> place.values(np.array([[[1, 0], [0, 4]]], dtype=np.float32))
    array([1., 4., 0.], dtype=float32)
    >>> place.map(np.array([2, 5, 9], dtype=np.float32)).tolist()
    [[[2.0, 9.0], [9.0, 5.0]]]

    Attributes:
        region: (i, j, k) boolean with v voxels, where a scan is scored.
        index: (v,), where they lie in the flattened grid.
    """

    region: NDArray[np.bool_]
    index: NDArray[np.intp]

    @classmethod
    def of(cls, region: NDArray[np.bool_]) -> Places:
        """The places of a region."""
        return cls(region, np.flatnonzero(region))

    def values(self, grid: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values of a map (i, j, k) that is 0 outside of the region, (v + 1,)."""
        return self.with_outside(grid.ravel()[self.index], 0.0)

    def with_outside(self, inside: NDArray[np.float32], outside: float) -> NDArray[np.float32]:
        """Values (v,) of the region and that of all other voxels, (v + 1,) float32."""
        return np.append(inside, np.float32(outside))

    def map(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The map (i, j, k) of such values (v + 1,)."""
        result = np.full(self.region.shape, values[-1], dtype=np.float32)
        result.ravel()[self.index] = values[:-1]
        return result


class Means:
    """Running means of named values: five folds of ten maps need not be in memory at once."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        """Add values of any shape, the same for all of one name."""
        self._sums[name] = self._sums[name] + values if name in self._sums else values
        self._counts[name] = self._counts.get(name, 0) + 1

    def of(self) -> dict[str, NDArray[np.float32]]:
        """The means by name."""
        return {name: total / np.float32(self._counts[name]) for name, total in self._sums.items()}
