"""Cross-fitting: healthy scans are scored by what never saw their subject; the healthy statistics come from that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly import calibration
from medgen.anomaly.ensemble import (
    Calibration,
    Member,
    fused_surprise,
    heat_of,
    inputs_for,
    scan_values,
    smoothed,
)
from medgen.anomaly.fusion import Tail
from medgen.anomaly.normative import Moments, Normative, normative
from medgen.anomaly.registry import State, get
from medgen.anomaly.settings import AnomalyConfig
from medgen.dataset import Dataset
from medgen.models import ScanModel

Progress = Callable[[str, int, int], None]
# Healthy voxels used for one tail: more do not move its quantiles, and sorting them takes seconds.
_TAIL_VOXELS = 3_000_000


def crossfit(
    dataset: Dataset,
    folds: Sequence[Sequence[str]],
    models: Sequence[Sequence[ScanModel]],
    config: AnomalyConfig,
    names: Sequence[str],
    progress: Progress | None = None,
) -> tuple[tuple[Member, ...], Calibration, NDArray[np.bool_]]:
    """Fit all members of the ensemble and calibrate them on the same healthy scans, out of fold.

    1. Each score learns from the scans outside fold k and scores those inside, with model k.
    2. Member k's normative maps come from the out-of-fold maps of the other folds, and so do its tails.
    3. The scans of fold k pass through member k: these are the calibration scores that a new scan, passed through
       member k, is compared with.

    Args:
        dataset: Healthy development scans.
        folds: Held-out case ids of each fold, a partition of the data set.
        models: The models of entry k were trained without fold k.
        config: Smoothing, normative, fusion and calibration settings.
        names: Scores to fit: voxel scores (the fused channels among them) and scan scores.
        progress: Called with (what, done, total).

    Returns:
        Members, calibration, and the support (i, j, k).
    """
    tick = progress or (lambda what, done, total: None)
    position = {case: index for index, case in enumerate(dataset.ids)}
    fold_of = np.empty(len(dataset), dtype=np.int64)
    for number, fold in enumerate(folds):
        fold_of[[position[case] for case in fold]] = number
    shown = dataset.foregrounds[:, 0].cpu().numpy().astype(bool)
    support = shown.mean(axis=0) >= config.support
    regions = shown & support
    voxel_names = [name for name in names if get(name).level == "voxel"]

    states: list[dict[str, State]] = []
    maps: dict[str, list[NDArray[np.float32]]] = {
        name: [np.empty(0, np.float32)] * len(dataset) for name in voxel_names
    }
    memo: list[dict[str, Any]] = [{} for _ in range(len(dataset))]
    done = 0
    for number, own in enumerate(models):
        rows = np.flatnonzero(fold_of != number).tolist()
        training = dataset.subset([dataset.ids[row] for row in rows])
        learning = inputs_for(own, training.images, training.foregrounds, config, [memo[row] for row in rows])
        states.append({name: get(name).fit(learning) for name in names})
        del learning
        for index in np.flatnonzero(fold_of == number).tolist():
            inputs = inputs_for(own, dataset.images[[index]], dataset.foregrounds[[index]], config, [memo[index]])
            for name in voxel_names:
                maps[name][index] = smoothed(name, inputs, states[-1], regions[index], config)
            done += 1
            tick("scoring out of fold", done, len(dataset))

    normatives = _normatives(maps, regions, fold_of, len(folds), support, config)
    members, heats = _members(maps, regions, fold_of, models, states, normatives, config)
    values = []
    for index, hot in enumerate(heats):
        number = int(fold_of[index])
        inputs = inputs_for(
            models[number], dataset.images[[index]], dataset.foregrounds[[index]], config, [memo[index]]
        )
        values.append(scan_values(hot, regions[index], inputs, states[number], config))
        tick("calibrating", index + 1, len(dataset))
    return members, _calibrate(values, dataset.subjects, fold_of, config), support


def _normatives(
    maps: dict[str, list[NDArray[np.float32]]],
    regions: NDArray[np.bool_],
    fold_of: NDArray[np.int64],
    n_folds: int,
    support: NDArray[np.bool_],
    config: AnomalyConfig,
) -> list[dict[str, Normative]]:
    """Per fold and score, healthy mean and sd from the out-of-fold maps of all other folds."""
    result: list[dict[str, Normative]] = [{} for _ in range(n_folds)]
    for name, values in maps.items():
        parts = []
        for number in range(n_folds):
            rows = np.flatnonzero(fold_of == number)
            parts.append(Moments.of([values[row] for row in rows], regions[rows], support.shape))
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        for number, part in enumerate(parts):
            result[number][name] = normative(whole - part, support, config.normative)
    return result


def _members(
    maps: dict[str, list[NDArray[np.float32]]],
    regions: NDArray[np.bool_],
    fold_of: NDArray[np.int64],
    models: Sequence[Sequence[ScanModel]],
    states: Sequence[dict[str, State]],
    normatives: Sequence[dict[str, Normative]],
    config: AnomalyConfig,
) -> tuple[tuple[Member, ...], list[NDArray[np.float32]]]:
    """Tails per fold from the other folds' z, the members, and every scan's heat from its own fold's member."""
    channels = config.fusion.channels
    # Inside the region only, as flat vectors; a fixed stride keeps a tail's sample bounded and repeatable.
    zs = [
        {name: normatives[fold_of[row]][name].z(maps[name][row])[regions[row]] for name in channels}
        for row in range(len(fold_of))
    ]
    stride = max(1, int(regions.sum()) // _TAIL_VOXELS)
    members = []
    heats: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(fold_of)
    for number, own in enumerate(models):
        others = np.flatnonzero(fold_of != number)
        tails = {name: Tail.of(np.concatenate([zs[row][name][::stride] for row in others])) for name in channels}
        fused_others = [
            fused_surprise(tails, {name: zs[row][name][::stride] for name in channels})[0] for row in others
        ]
        fused_tail = Tail.of(np.concatenate(fused_others))
        members.append(Member(tuple(own), states[number], normatives[number], tails, fused_tail))
        for row in np.flatnonzero(fold_of == number).tolist():
            hot = np.zeros(regions[row].shape, dtype=np.float32)
            hot[regions[row]] = heat_of(fused_tail, fused_surprise(tails, zs[row])[0])
            heats[row] = hot
    return tuple(members), heats


def _calibrate(
    values: Sequence[dict[str, float]],
    subjects: Sequence[str],
    fold_of: NDArray[np.int64],
    config: AnomalyConfig,
) -> Calibration:
    """One score per subject, the largest of its scans: errs towards fewer false positives for a single new scan."""
    names = list(dict.fromkeys(subjects))
    rows = [[index for index, subject in enumerate(subjects) if subject == name] for name in names]
    scores = {key: np.array([max(values[row][key] for row in own) for own in rows]) for key in values[0]}
    return Calibration(
        folds=np.array([fold_of[own[0]] for own in rows], dtype=np.int64),
        scores=scores,
        maxima=scores["max"],
        threshold=calibration.threshold(scores["max"], config.calibration.target_fpr),
    )
