"""Measurements of several runs (seeds) as one table: a subject tested under several seeds is one unit.

Voxels of all seeds share one ranking; the mean over the seeds of each seed's own ranking stands beside it, since
scores of differently trained models need not be on one scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.comparison.leave_one_type_out import GROUPS, ZSCORE, label
from medgen.anomaly.comparison.measurement_file import MeasurementFile
from medgen.anomaly.evaluation.measure import FUSED, HEALTHY, Measurement
from medgen.anomaly.evaluation.summary import controls
from medgen.anomaly.scores.catalogue import registered
from medgen.errors import DataError
from medgen.metrics.bootstrap import holm, sign_flip_p
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Ranked, Resampler, Statistic

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class PooledRow:
    """One score at voxel level over the implanted scans of all seeds.

    Attributes:
        name, form, role: Row name; ``heat``, ``raw`` or ``z``; ``fused``, ``channel``, ``baseline`` or ``peer``.
        ap, auroc: Over all voxels of all seeds in one ranking.
        ap_per_seed: Mean over the seeds of the average precision within each.
        difference, ratio: Fused AP minus, and over, this row's, paired over subjects; None for the fused row.
        p: Two-sided sign-flip p of the subjects' AP differences; None for the fused row.
        p_holm: The same, adjusted for all baselines and peers; None for other rows.
    """

    name: str
    form: str
    role: str
    ap: Interval
    auroc: Interval
    ap_per_seed: float
    difference: Interval | None = None
    ratio: Interval | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Cell:
    """Implants of one kind, contrast and size (``"all"`` where they are taken together).

    Attributes:
        scans, subjects: Implanted scans, and subjects they are of.
        prevalence: Chance level of AP.
        ap: Row name → AP over the cell's voxels.
        scan_auroc: Implanted scans of the cell against all healthy scans, by the chosen scan score.
    """

    kind: str
    contrast: str
    size: str
    scans: int
    subjects: int
    prevalence: float
    ap: Mapping[str, Interval]
    scan_auroc: Interval


@dataclass(frozen=True)
class LeftOut:
    """The self-supervised score on implants like the corruptions of a group, with the group and without it.

    Attributes:
        group, kinds: Corruptions left out, and the implants that are like them.
        scans: Implanted scans of these kinds.
        ap_with, ap_without, ap_zscore: AP of the score that learned all corruptions, of the one that did not learn
            the group's, and of the ``zscore`` baseline, all raw.
        loss: AP with minus without, paired; gain: AP without minus that of ``zscore``, paired.
    """

    group: tuple[str, ...]
    kinds: tuple[str, ...]
    scans: int
    ap_with: Interval
    ap_without: Interval
    ap_zscore: Interval
    loss: Interval
    gain: Interval


@dataclass(frozen=True, eq=False)
class Runs:
    """The measurements of one cohort under several seeds.

    Attributes:
        kept: Per seed, the files whose rows belong to the same scans: the run's own first, then those of peers.
        resampler: Draws the subjects of all seeds again, for intervals.
        healthy, implanted: Scans of all seeds in order, with the fused row; ``case`` is told apart by seed.
        position, healthy_position: Seed's place of every implanted and of every healthy scan.
    """

    kept: Sequence[Sequence[MeasurementFile]]
    resampler: Resampler
    healthy: Sequence[Measurement]
    implanted: Sequence[Measurement]
    position: NDArray[np.int64]
    healthy_position: NDArray[np.int64]
    _truth: list[NDArray[np.bool_]] = field(repr=False)

    @classmethod
    def of(cls, kept: Sequence[Sequence[MeasurementFile]], bootstrap: int, seed: int) -> Runs:
        """Open the runs of a cohort.

        Args:
            kept: See the class; further files of a seed must hold its implanted scans in the same order, and its
                healthy ones or none.
            bootstrap: Resamples of the subjects.
            seed: Seed of the random resampling; equal seeds give equal results.

        Raises:
            DataError: If a further file holds other scans or truth than its run.
        """
        everything: list[tuple[int, Measurement]] = []
        for number, (own, *others) in enumerate(kept):
            measured = own.measurements([FUSED])
            for other in others:
                _check_same(own, measured, other)
            everything += [(number, replace(item, case=f"{number}/{item.case}")) for item in measured]
        implanted = [(number, item) for number, item in everything if item.kind != HEALTHY]
        return cls(
            kept=kept,
            resampler=Resampler([item.subject for _, item in everything], bootstrap, seed),
            healthy=[item for _, item in everything if item.kind == HEALTHY],
            implanted=[item for _, item in implanted],
            position=np.array([number for number, _ in implanted], dtype=np.int64),
            healthy_position=np.array([n for n, item in everything if item.kind == HEALTHY], dtype=np.int64),
            _truth=[item.truth for _, item in implanted],
        )

    @property
    def subjects(self) -> list[str]:
        """Subject of every implanted scan."""
        return [item.subject for item in self.implanted]

    def names(self) -> list[str]:
        """Rows that every seed has: those of the runs, then those of further files."""
        per_seed = [[name for kept in own for name in kept.names] for own in self.kept]
        return [name for name in dict.fromkeys(per_seed[0]) if all(name in names for names in per_seed)]

    def ranked(self, name: str) -> Ranked:
        """One row over the implanted scans of all seeds, in order."""
        values = [values for seed in range(len(self.kept)) for values in self.values(name, seed)[1]]
        return Ranked.of(values, self._truth)

    def values(self, name: str, seed: int) -> tuple[list[NDArray[np.float16]], list[NDArray[np.float16]]]:
        """Voxel scores of one row in one seed's healthy scans and in its implanted ones, (v,) each, in order.

        Args:
            name: A row that the seed has.
            seed: The seed's place, from 0.
        """
        source = next(kept for kept in self.kept[seed] if name in kept.names)
        parts: tuple[list[NDArray[np.float16]], list[NDArray[np.float16]]] = [], []
        for row, fact in zip(source.row(name), source.facts, strict=True):
            parts[fact["kind"] != HEALTHY].append(row)
        return parts


def compare(runs: Runs) -> list[PooledRow]:
    """The voxel table: the fused row first, then by falling AP."""
    subjects, resampler = runs.subjects, runs.resampler
    matrix = resampler.indicator(subjects)
    fused = runs.ranked(FUSED)
    fused_draws = resampler.draws(fused, subjects, Ranked.average_precision)
    fused_each = fused.pooled(matrix).average_precision()
    rows = []
    for name in runs.names():
        form, role = form_and_role(name)
        ranked = fused if name == FUSED else runs.ranked(name)
        draws = resampler.draws(ranked, subjects, Ranked.average_precision)
        row = PooledRow(
            name=name,
            form=form,
            role=role,
            ap=resampler.interval(draws),
            auroc=resampler.ranked(ranked, subjects, Ranked.auroc),
            ap_per_seed=_mean_over_seeds(ranked, runs.position),
        )
        if name != FUSED:
            each = fused_each - ranked.pooled(matrix).average_precision()
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = resampler.interval(fused_draws / draws)
            row = replace(
                row,
                difference=resampler.interval(fused_draws - draws),
                ratio=ratio,
                p=sign_flip_p(each[np.isfinite(each)]),
            )
        rows.append(row)
    rows.sort(key=lambda row: (row.name != FUSED, -row.ap.estimate))
    family = [row for row in rows if row.role in {"baseline", "peer"}]
    adjusted = dict(zip((row.name for row in family), holm([row.p or 0.0 for row in family]), strict=True))
    return [replace(row, p_holm=adjusted.get(row.name)) for row in rows]


def form_and_role(name: str) -> tuple[str, str]:
    """Form and role of a row, see :class:`PooledRow`.

    >>> form_and_role("fused"), form_and_role("zscore (z)"), form_and_role("pyod-knn (raw)")
    (('heat', 'fused'), ('z', 'baseline'), ('raw', 'peer'))
    """
    score, _, form = name.partition(" (")
    if name == FUSED:
        return "heat", "fused"
    entry = registered("voxel").get(score)
    return form.rstrip(")"), "peer" if entry is None else "baseline" if entry.baseline else "channel"


def best(rows: Sequence[PooledRow], form: str) -> str:
    """Name of the baseline row of that form (``raw`` or ``z``) with the highest AP."""
    return max(
        (row for row in rows if row.role == "baseline" and row.form == form), key=lambda row: row.ap.estimate
    ).name


def by_size(radii: Sequence[float]) -> tuple[list[str], tuple[float, float]]:
    """Each radius as small, medium or large by tertiles of all radii, and the two limits in mm."""
    values = np.asarray(radii, dtype=np.float64)
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return [SIZES[int(place)] for place in (values > low).astype(int) + (values > high)], (float(low), float(high))


def cells(runs: Runs, names: Sequence[str], scan_score: str) -> tuple[list[Cell], tuple[float, float]]:
    """AP and scan AUROC by kind, contrast and size: each alone, then every combination that occurs.

    Args:
        runs: All seeds.
        names: Rows to compare.
        scan_score: Scan score of the AUROC.

    Returns:
        The cells, and the limits of the tertiles of the radius in mm.
    """
    ranked = {name: runs.ranked(name) for name in names}
    size, limits = by_size([item.radius_mm for item in runs.implanted])
    keys = [(item.kind, f"{item.contrast:g}", own) for item, own in zip(runs.implanted, size, strict=True)]
    places: dict[tuple[str, str, str], list[int]] = {}
    order: list[Callable[[tuple[str, str, str]], tuple[str, str, str]]] = [
        lambda key: ("all", "all", "all"),
        lambda key: (key[0], "all", "all"),
        lambda key: ("all", key[1], "all"),
        lambda key: ("all", "all", key[2]),
        lambda key: key,
    ]
    for reduce in order:
        found = sorted({reduce(key) for key in keys}, key=lambda key: (key[0], key[1], _rank(key[2])))
        for target in found:
            places[target] = [number for number, key in enumerate(keys) if reduce(key) == target]
    return [_cell(key, rows, runs, ranked, scan_score) for key, rows in places.items()], limits


def scans_ranked(items: Sequence[Measurement], name: str) -> Ranked:
    """Scans ranked by one scan score, implanted ones the positives."""
    return Ranked.of(
        [np.array([item.scores[name]]) for item in items], [np.array([item.kind != HEALTHY]) for item in items]
    )


def chance_controls(runs: Runs) -> dict[str, Interval]:
    """Zero amplitude and permuted masks over all seeds; see :func:`medgen.anomaly.evaluation.summary.controls`."""
    return controls(runs.healthy, runs.implanted, runs.resampler)


def leave_out(runs: Runs) -> list[LeftOut]:
    """Compare the self-supervised score with and without each group of corruptions, on implants like them.

    Args:
        runs: All seeds, with the rows of :func:`medgen.anomaly.comparison.leave_one_type_out.maps`. Groups whose
            implants were not tested are passed over.
    """
    result = []
    for group, alike in GROUPS.items():
        places = [number for number, item in enumerate(runs.implanted) if item.kind in alike]
        if not places:
            continue
        subjects = [runs.implanted[place].subject for place in places]

        def draws(name: str, places: list[int] = places, subjects: list[str] = subjects) -> NDArray[np.float64]:
            return runs.resampler.draws(runs.ranked(name).select(places), subjects, Ranked.average_precision)

        full, without, simple = draws(label()), draws(label(group)), draws(ZSCORE)

        def interval(values: NDArray[np.float64], subjects: list[str] = subjects) -> Interval:
            return _honest(runs.resampler.interval(values), subjects)

        kinds = tuple(kind for kind in alike if any(runs.implanted[place].kind == kind for place in places))
        result.append(
            LeftOut(
                group=group,
                kinds=kinds,
                scans=len(places),
                ap_with=interval(full),
                ap_without=interval(without),
                ap_zscore=interval(simple),
                loss=interval(full - without),
                gain=interval(without - simple),
            )
        )
    return result


def _cell(
    key: tuple[str, str, str], rows: list[int], runs: Runs, ranked: Mapping[str, Ranked], scan_score: str
) -> Cell:
    items = [runs.implanted[row] for row in rows]
    subjects = [item.subject for item in items]
    statistic: Statistic = Ranked.average_precision
    both = [*runs.healthy, *items]
    return Cell(
        kind=key[0],
        contrast=key[1],
        size=key[2],
        scans=len(items),
        subjects=len(set(subjects)),
        prevalence=float(np.concatenate([item.truth for item in items]).mean()),
        ap={
            name: _honest(runs.resampler.ranked(own.select(rows), subjects, statistic), subjects)
            for name, own in ranked.items()
        },
        scan_auroc=_honest(
            runs.resampler.ranked(scans_ranked(both, scan_score), [item.subject for item in both], Ranked.auroc),
            subjects,
        ),
    )


def _honest(interval: Interval, subjects: Sequence[str]) -> Interval:
    """Without limits where one subject alone has positives: resampling it would give an interval of no width."""
    count = len(set(subjects))
    limits = {} if count > 1 else {"low": float("nan"), "high": float("nan")}
    return replace(interval, n=count, **limits)


def _mean_over_seeds(ranked: Ranked, position: NDArray[np.int64]) -> float:
    seeds = np.unique(position)
    pooled = ranked.pooled((position[None] == seeds[:, None]).astype(np.float64))
    return float(pooled.average_precision().mean())


def _rank(size: str) -> int:
    return SIZES.index(size) if size in SIZES else -1


def _check_same(own: MeasurementFile, measured: Sequence[Measurement], other: MeasurementFile) -> None:
    with_healthy = any(fact["kind"] == HEALTHY for fact in other.facts)
    expected = [item for item in measured if with_healthy or item.kind != HEALTHY]
    fields: tuple[str, ...] = ("case", "subject", "kind", "radius_mm", "contrast")
    same = len(other.facts) == len(expected) and all(
        all(fact[name] == getattr(item, name) for name in fields) and np.array_equal(mask, item.truth)
        for fact, mask, item in zip(other.facts, other.truth(), expected, strict=True)
    )
    if not same:
        raise DataError(f"{other.path}: other test scans than {own.path}; remove it, and resume to make it again")
