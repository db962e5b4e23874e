"""Cross-fitting: healthy scans are scored by what never saw their subject; the healthy statistics come from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly import calibration
from medgen.anomaly.channel_choice import Choice, Validated, choose
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.ensemble import (
    Calibration,
    FoldMember,
    Places,
    fused_surprise,
    heat_of,
    inputs_for,
    model_scores,
    smoothed,
)
from medgen.anomaly.findings.appearance import HealthyAppearance
from medgen.anomaly.findings.candidates import candidates_of
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.fusion import Tail
from medgen.anomaly.heat_scores import heat_scores, to_own_grid
from medgen.anomaly.normative.covariates import Covariates
from medgen.anomaly.normative.maps import Normative, normative_of, with_spread
from medgen.anomaly.normative.moments import Moments
from medgen.anomaly.scores.base import Inputs, State
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.corrupted_copies import forget_copies
from medgen.implants.implanted_scans import HEALTHY, scans_to_test
from medgen.metrics.ranking import half
from medgen.models.base import ScanModel
from medgen.models.passes import kept
from medgen.preprocessing.dataset import Dataset, prepared_record
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Tick
from medgen.transforms.masked_smoothing import Smoother

# Healthy voxels used for one tail: more do not move its quantiles, and sorting them takes seconds.
_TAIL_VOXELS = 3_000_000


@dataclass(frozen=True, eq=False)
class Fitted:
    """What cross-fitting learns: one member per fold, and the calibration from scans they did not see.

    Attributes:
        members: One per fold.
        calibration: Healthy out-of-fold scores.
        support: (i, j, k), the voxels that can be scored.
        channels: The fused channels: the configured ones, or what the validation chose instead.
        appearance: What healthy scans look like at every voxel.
        choice: How they were chosen; None if the validation is switched off.
    """

    members: tuple[FoldMember, ...]
    calibration: Calibration
    support: NDArray[np.bool_]
    channels: tuple[str, ...]
    appearance: HealthyAppearance
    choice: Choice | None


def crossfit(
    dataset: Dataset,
    folds: Sequence[Sequence[str]],
    models: Sequence[Sequence[ScanModel]],
    config: AnomalyConfig,
    names: Sequence[str],
    preprocess: Preprocess,
    progress: Tick | None = None,
    bf16: bool = False,
    covariates: Covariates | None = None,
) -> Fitted:
    """Fit all members of the ensemble and calibrate them on the same healthy scans, out of fold.

    1. Each score learns from the scans outside fold k and scores those inside, with the models of fold k.
    2. Member k's normative maps come from the out-of-fold maps of the other folds, and so do its tails.
    3. Implanted copies of the scans of fold k pass through member k: they say which channels to fuse.
    4. So do the scans themselves, and their heatmaps go back to their own grids: the scores there are the calibration
       that a new scan's scores, from the mean of all members, are compared with, and the candidates there are what new
       candidates are compared with.

    Args:
        dataset: Healthy development scans.
        folds: Held-out case ids of each fold, a partition of the data set.
        models: The models of entry k were trained without fold k.
        config: Smoothing, normative, fusion, validation and calibration settings.
        names: Scores to fit: voxel scores (the fused channels among them) and scan scores.
        preprocess: How the scans were prepared, and the way back to their own grids.
        progress: Called with (what, done, total).
        bf16: Whether models compute in bfloat16, as in training.
        covariates: What mean and variance are adjusted for; needs the ``prepared`` records of the data set.
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

    memo: list[dict[str, Any]] = [{} for _ in range(len(dataset))]
    states, maps = _score_out_of_fold(dataset, fold_of, models, regions, config, names, memo, tick, bf16)
    people = None if covariates is None else np.stack([covariates.nearest(own.attributes) for own in dataset.prepared])
    normatives = _normatives(maps, regions, fold_of, len(folds), support, config, covariates, people)

    def for_person(row: int) -> dict[str, Normative]:
        own = None if people is None else people[row]
        return {name: entry.at(own) for name, entry in normatives[fold_of[row]].items()}

    zs = []
    for row in range(len(dataset)):
        own_maps = for_person(row)
        zs.append({name: own_maps[name].z_of(values, regions[row]) for name, values in maps[row].items()})
    del maps
    stride = max(1, int(regions.sum()) // _TAIL_VOXELS)

    def tails_of(number: int, channels: Sequence[str]) -> tuple[dict[str, Tail], Tail]:
        """Tails of the channels' z and of the fused map, from the scans of all other folds."""
        others = [zs[row] for row in np.flatnonzero(fold_of != number)]
        tails = {name: Tail.of(np.concatenate([own[name][::stride] for own in others])) for name in channels}
        fused = [fused_surprise(tails, {name: own[name][::stride] for name in channels})[0] for own in others]
        return tails, Tail.of(np.concatenate(fused))

    channels, choice = config.fusion.channels, None
    if config.validation.enabled:
        validated = _validate(
            dataset, fold_of, models, states, for_person, support, voxel_names, config, preprocess.spacing, tick, bf16
        )
        cached: dict[tuple[int, tuple[str, ...]], dict[str, Tail]] = {}

        def fuse(number: int, chosen: tuple[str, ...], z: Mapping[str, NDArray[np.float16]]) -> NDArray[np.float32]:
            if (number, chosen) not in cached:
                cached[number, chosen] = tails_of(number, chosen)[0]
            return fused_surprise(cached[number, chosen], {name: z[name].astype(np.float32) for name in chosen})[0]

        choice = choose(validated, channels, fuse, config.validation.bootstrap)
        channels = choice.winner.channels

    members = []
    values: list[dict[str, float]] = [{}] * len(dataset)
    candidates: list[NDArray[np.float64]] = [np.zeros(0)] * len(dataset)
    for number, own in enumerate(models):
        tails, fused_tail = tails_of(number, channels)
        members.append(FoldMember(tuple(own), states[number], normatives[number], tails, fused_tail))
        for index in np.flatnonzero(fold_of == number).tolist():
            place, heat = Places.of(regions[index]), heat_of(fused_tail, fused_surprise(tails, zs[index])[0])
            inputs = inputs_for(own, dataset.images[[index]], dataset.foregrounds[[index]], config, [memo[index]], bf16)
            own_grid = prepared_record(dataset, index, preprocess.spacing)
            heatmap = to_own_grid(place.map(place.with_outside(heat, 0.0)), regions[index], own_grid, preprocess)
            candidates[index] = candidates_of(heatmap, config.findings.separation_mm).heat
            with kept():
                values[index] = heat_scores(heatmap, config.top_fraction) | model_scores(inputs, states[number])
        tick("calibrating", number + 1, len(models))
    healthy = HealthyCandidates.of(candidates, dataset.subjects)
    calibrated = _calibrate(values, dataset.subjects, fold_of, healthy, config)
    appearance = HealthyAppearance.fit(dataset, support)
    return Fitted(tuple(members), calibrated, support, channels, appearance, choice)


def _score_out_of_fold(
    dataset: Dataset,
    fold_of: NDArray[np.int64],
    models: Sequence[Sequence[ScanModel]],
    regions: NDArray[np.bool_],
    config: AnomalyConfig,
    names: Sequence[str],
    memo: Sequence[dict[str, Any]],
    tick: Tick,
    bf16: bool,
) -> tuple[list[dict[str, State]], list[dict[str, NDArray[np.float32]]]]:
    """What the scores of every fold learn, and per scan its smoothed scores inside its region, (v,) each."""
    voxel_names = [name for name in names if get(name).level == "voxel"]
    states: list[dict[str, State]] = []
    # Inside the region only, as flat vectors: the rest of the grid is most of the memory.
    maps: list[dict[str, NDArray[np.float32]]] = [{} for _ in range(len(dataset))]
    done = 0
    for number, own in enumerate(models):
        rows = np.flatnonzero(fold_of != number).tolist()
        training = dataset.subset([dataset.ids[row] for row in rows])
        learning = inputs_for(own, training.images, training.foregrounds, config, [memo[row] for row in rows], bf16)
        # Costly ones first: they make the corrupted copies with all that the others take of them, too.
        states.append({name: get(name).fit(learning) for name in sorted(names, key=lambda name: not get(name).costly)})
        del learning
        for index in np.flatnonzero(fold_of == number).tolist():
            inputs = inputs_for(own, dataset.images[[index]], dataset.foregrounds[[index]], config, [memo[index]], bf16)
            maps[index] = _flat_scores(voxel_names, inputs, states[number], regions[index], config)
            done += 1
            tick("scoring out of fold", done, len(dataset))
    # The rest of a scan's memo is used again below.
    for entry in memo:
        forget_copies(entry)

    return states, maps


def _flat_scores(
    names: Sequence[str],
    inputs: Inputs,
    states: Mapping[str, State],
    region: NDArray[np.bool_],
    config: AnomalyConfig,
) -> dict[str, NDArray[np.float32]]:
    """Smoothed scores of one scan inside its region, (v,) each."""
    smoother = Smoother.of(region, config.smoothing)
    with kept():
        return {name: smoothed(name, inputs, states, smoother)[region] for name in names}


def _normatives(
    maps: Sequence[Mapping[str, NDArray[np.float32]]],
    regions: NDArray[np.bool_],
    fold_of: NDArray[np.int64],
    n_folds: int,
    support: NDArray[np.bool_],
    config: AnomalyConfig,
    covariates: Covariates | None,
    people: NDArray[np.float64] | None,
) -> list[dict[str, Normative]]:
    """Per fold and score, healthy mean and sd from the out-of-fold maps of all other folds."""
    known = None if people is None else np.nan_to_num(people)
    result: list[dict[str, Normative]] = [{} for _ in range(n_folds)]
    for name in maps[0]:
        parts = []
        for number in range(n_folds):
            rows = np.flatnonzero(fold_of == number)
            own = [maps[row][name] for row in rows.tolist()]
            parts.append(Moments.of(own, regions[rows], support.shape, None if known is None else known[rows]))
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        for number, part in enumerate(parts):
            covariance = None if covariates is None else covariates.covariance
            found = normative_of(whole - part, support, config.normative, covariance)
            if known is not None:
                rows = np.flatnonzero(fold_of != number)
                own = [maps[row][name] for row in rows.tolist()]
                found = with_spread(found, own, list(regions[rows]), known[rows], support, config.normative)
            result[number][name] = found
    return result


def _validate(
    dataset: Dataset,
    fold_of: NDArray[np.int64],
    models: Sequence[Sequence[ScanModel]],
    states: Sequence[Mapping[str, State]],
    for_person: Callable[[int], Mapping[str, Normative]],
    support: NDArray[np.bool_],
    names: Sequence[str],
    config: AnomalyConfig,
    spacing: Sequence[float],
    tick: Tick,
    bf16: bool,
) -> list[Validated]:
    """Implanted development scans, scored by the fold that has not seen the scan."""
    result = []
    total = len(dataset) * config.validation.per_scan
    for scan in scans_to_test(dataset, dataset, spacing, config.validation, seed=0):
        if scan.kind == HEALTHY:
            continue
        row = dataset.ids.index(scan.case)
        number = int(fold_of[row])
        region = scan.foreground[0].numpy() & support
        inputs = inputs_for(models[number], scan.image[None], scan.foreground[None], config, bf16=bf16)
        own = for_person(row)
        flat = _flat_scores(names, inputs, states[number], region, config)
        z = {name: half(own[name].z_of(values, region)) for name, values in flat.items()}
        result.append(Validated(scan.subject, scan.kind, number, z, scan.truth[region]))
        tick("choosing channels", len(result), total)
    return result


def _calibrate(
    values: Sequence[dict[str, float]],
    subjects: Sequence[str],
    fold_of: NDArray[np.int64],
    healthy: HealthyCandidates,
    config: AnomalyConfig,
) -> Calibration:
    """One score per subject, the largest of its scans: errs towards fewer false positives for a single new scan."""
    names = list(dict.fromkeys(subjects))
    rows = [[index for index, subject in enumerate(subjects) if subject == name] for name in names]
    scores = {key: np.array([max(values[row][key] for row in own) for own in rows]) for key in values[0]}
    return Calibration(
        folds=np.array([fold_of[own[0]] for own in rows], dtype=np.int64),
        scores=scores,
        threshold=calibration.threshold(scores["max"], config.calibration.target_fpr),
        healthy=healthy,
    )
