"""Findings over several runs (seeds): which implants every row finds, at the same numbers of false findings.

A heatmap is read as a list of places to look at. Of every row's map the candidates are taken by the rule of findings
(:mod:`medgen.anomaly.findings.candidates`), and an implant is found by the rule of hits
(:data:`medgen.anomaly.evaluation.hits.RULE`). Rows have any scale, so each map is first brought to that of ranks among
the voxels of the held-out healthy scans of its seed (:mod:`medgen.anomaly.comparison.rank_heat`), the fused one like
the others. The threshold of a number of false findings is the lowest at which these healthy scans have at most as many
candidates, subjects averaged: a free-response ROC curve (Bunch et al., Proc. SPIE 1977). It is known only because the
test's healthy scans are. So this compares maps; what a run finds with the threshold of its own calibration, which has
not seen the test scans, is :func:`medgen.anomaly.evaluation.sensitivity.sensitivity_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.comparison.rank_heat import RankHeat
from medgen.anomaly.comparison.voxels_over_seeds import Runs, form_and_role
from medgen.anomaly.evaluation.hits import found_up_to
from medgen.anomaly.evaluation.measure import FUSED, Measurement
from medgen.anomaly.findings.candidates import Candidates, candidates_of
from medgen.anomaly.findings.false_findings import FROC_LEVELS, at_level
from medgen.errors import DataError
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Resampler, centred
from medgen.progress import Tick
from medgen.volume import Grid, Volume

COMPARED = (0.5, 1.0)
"""False findings per healthy scan at which the fused row is compared with the others."""


@dataclass(frozen=True)
class FindingRow:
    """One score at the level of findings over the scans of all seeds.

    Attributes:
        name, form, role: As in :class:`~medgen.anomaly.comparison.voxels_over_seeds.PooledRow`.
        sensitivity: False findings per healthy scan → share of the implants with a finding on them.
        difference: The same → share of the fused row minus this row's, paired over subjects, at :data:`COMPARED`;
            empty for the fused row.
    """

    name: str
    form: str
    role: str
    sensitivity: Mapping[float, Interval]
    difference: Mapping[float, Interval] = field(default_factory=dict)


def compare(runs: Runs, grids: Sequence[Grid], separation_mm: float, tick: Tick = lambda *_: None) -> list[FindingRow]:
    """The table of findings: the fused row first, then by falling sensitivity at 0.5 false findings, the rest at 1.

    Args:
        runs: All seeds.
        grids: Model grid of each seed.
        separation_mm: Distance in mm within which a hotter candidate speaks for a peak, as findings have it.
        tick: Told how many rows are done.

    Raises:
        DataError: If a row has not scored the healthy scans.
    """
    names = [FUSED, *(name for name in runs.names() if name != FUSED)]
    rows: list[FindingRow] = []
    fused: dict[float, NDArray[np.float64]] = {}
    for done, name in enumerate(names, start=1):
        healthy, found = _candidates(runs, name, grids, separation_mm)
        draws = froc_draws(healthy, found, runs.subjects, runs.resampler)
        fused = fused or draws
        form, role = form_and_role(name)
        rows.append(
            FindingRow(
                name,
                form,
                role,
                {level: runs.resampler.interval(own) for level, own in draws.items()},
                {}
                if name == FUSED
                else {level: runs.resampler.interval(fused[level] - draws[level]) for level in COMPARED},
            )
        )
        tick("looking for findings in every row", done, len(names))
    return sorted(rows, key=lambda row: (row.name != FUSED, *(-row.sensitivity[level].estimate for level in COMPARED)))


def froc_draws(
    healthy: Mapping[str, Sequence[NDArray[np.float64]]],
    found: NDArray[np.float64],
    subjects: Sequence[str],
    resampler: Resampler,
) -> dict[float, NDArray[np.float64]]:
    """Sensitivity at each of :data:`FROC_LEVELS` for all scans, then for every resample of the subjects, (1 + n,).

    Every resample has thresholds of its own, from the healthy scans of the subjects that it holds. No threshold needs
    to be known: an implant is found at a level where the healthy scans have at most so many candidates of its heat.

    Args:
        healthy: Subject → heat of the candidates of each of its healthy scans, (c,).
        found: (m,) per implanted scan, the heat up to which thresholds find its implant, −inf for none.
        subjects: Subject of every implanted scan.
        resampler: Draws the subjects again.
    """
    counts = np.zeros((len(resampler.names), found.size))
    for row, name in enumerate(resampler.names):
        scans = [np.sort(heat) for heat in healthy.get(name, ())]
        for heat in scans:
            counts[row] += (heat.size - np.searchsorted(heat, found)) / len(scans)
    tested = np.array([float(name in healthy) for name in resampler.names])
    weights = np.vstack([np.ones(len(resampler.names)), resampler.weights])
    implants = weights @ resampler.indicator(subjects)
    # A resample without any healthy scan has no threshold, one without any implant no share.
    with np.errstate(divide="ignore", invalid="ignore"):
        false = (weights @ counts) / (weights @ tested)[:, None]
        missed = np.isneginf(found)
        result = {}
        for level in FROC_LEVELS:
            listed = np.where(np.isnan(false), np.nan, at_level(false, level) & ~missed)
            result[level] = centred((implants * listed).sum(axis=1) / implants.sum(axis=1))
    return result


def _candidates(
    runs: Runs, name: str, grids: Sequence[Grid], separation_mm: float
) -> tuple[dict[str, list[NDArray[np.float64]]], NDArray[np.float64]]:
    """Heat of the candidates of every subject's healthy scans, and the heat up to which every implant is found."""
    healthy: dict[str, list[NDArray[np.float64]]] = {}
    found: list[float] = []
    for seed, grid in enumerate(grids):
        untouched, copies = runs.values(name, seed)
        items = [item for item, own in zip(runs.healthy, runs.healthy_position, strict=True) if own == seed]
        if len(untouched) != len(items):
            source = next(kept for kept in runs.kept[seed] if name in kept.names)
            raise DataError(
                f"{source.path}: holds {len(untouched)} healthy scans, expected the {len(items)} of its run; "
                "remove it, and resume to make it again"
            )
        scale = RankHeat(untouched)
        for item, values in zip(items, untouched, strict=True):
            candidates, _ = _of_scan(item, scale(values), grid, separation_mm)
            healthy.setdefault(item.subject, []).append(candidates.heat)
        items = [item for item, own in zip(runs.implanted, runs.position, strict=True) if own == seed]
        for item, values in zip(items, copies, strict=True):
            candidates, volume = _of_scan(item, scale(values), grid, separation_mm)
            truth = np.zeros(item.region.shape, dtype=bool)
            truth[item.region] = item.truth
            found.append(found_up_to(candidates, volume, truth))
    return healthy, np.array(found)


def _of_scan(
    item: Measurement, heat: NDArray[np.float32], grid: Grid, separation_mm: float
) -> tuple[Candidates, Volume]:
    values = np.full((1, *item.region.shape), np.nan, dtype=np.float32)
    values[0][item.region] = heat
    volume = Volume(values, grid)
    return candidates_of(volume, separation_mm), volume
