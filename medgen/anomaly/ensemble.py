"""The parts of a cross-fit ensemble and the steps that fitting and scoring share, so that both do exactly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medgen.anomaly import calibration
from medgen.anomaly.fusion import Tail, fuse, heat
from medgen.anomaly.normative import Normative
from medgen.anomaly.registry import Inputs, State, get, registered
from medgen.anomaly.settings import HEAT_SCORES, AnomalyConfig
from medgen.anomaly.smoothing import Smoother
from medgen.errors import ConfigError
from medgen.models import ScanModel

# One in 44 healthy voxels is hotter: low enough to hold an anomaly together, high enough to keep regions apart.
_CLUSTER_HEAT = 2.0


@dataclass(frozen=True, eq=False)
class Member:
    """One fold: its model, what its scores learned, and healthy statistics that leave the fold's own scans out.

    A calibration scan of this fold was scored with exactly these, so a new scan scored with them is comparable to it.

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
        folds: (n,) fold of each subject.
        scores: Scan scores by name, each (n,).
        maxima: (n,) hottest voxel.
        threshold: Heat that a healthy scan exceeds anywhere with probability at most the target.
    """

    folds: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    maxima: NDArray[np.float64]
    threshold: float

    def p_value(self, name: str, values: Sequence[float]) -> float:
        """Cross-conformal p of a scan score, ``values`` being the scan's score from every fold."""
        return calibration.cross_p_value(self.scores[name], self.folds, values)


def check_scores(classes: Sequence[type[ScanModel]], config: AnomalyConfig) -> list[str]:
    """Names of the scores that the configuration names, once it is sure that models of these classes serve them.

    Raises:
        ConfigError: If a score is unknown, or needs something that no model offers.
    """
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
) -> Inputs:
    """A batch (b, c, i, j, k) on the device of the models, with the settings that scores read.

    ``memo`` has one dictionary per scan, which all folds that see the scan share.
    """
    device = next(models[0].parameters()).device
    settings: dict[str, Any] = {
        "likelihood_samples": config.likelihood_samples,
        "restoration_steps": config.restoration_steps,
    }
    settings["corruptions"] = config.corruptions
    return Inputs(image.float().to(device), foreground.bool().to(device), tuple(models), settings, tuple(memo))


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


def scan_values(
    heatmap: NDArray[np.float32],
    region: NDArray[np.bool_],
    inputs: Inputs,
    states: Mapping[str, State],
    config: AnomalyConfig,
) -> dict[str, float]:
    """All scan scores of one scan from one fold: those of the heatmap and those of the model."""
    inside = heatmap[region]
    count = max(1, round(config.top_fraction * inside.size))
    values = {
        "top": float(np.partition(inside, -count)[-count:].mean()),
        "max": float(inside.max()),
        "mean": float(inside.mean()),
        "cluster": _cluster_mass(heatmap, region),
    }
    for name, entry in registered("scan").items():
        if name in states:
            values[name] = float(entry(inputs, entry.state(states))[0])
    return values


def _cluster_mass(heatmap: NDArray[np.float32], region: NDArray[np.bool_]) -> float:
    """Heat above 2, summed over the connected region (26 neighbours) above 2 where that sum is largest.

    Source: Bullmore et al., "Global, voxel, and cluster tests, by theory and permutation", IEEE TMI 1999.
    """
    excess = np.where(region, heatmap - _CLUSTER_HEAT, 0)
    labels, count = ndimage.label(excess > 0, structure=np.ones((3, 3, 3)))
    return (
        float(np.bincount(labels.ravel(), weights=np.maximum(excess, 0).ravel(), minlength=2)[1:].max())
        if count
        else 0.0
    )
