"""Scan level over several runs (seeds): ranking, and the realised false-positive rates of healthy test subjects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medgen.anomaly.calibration import significant
from medgen.anomaly.comparison.voxels_over_seeds import Runs, scans_ranked
from medgen.anomaly.evaluation.measure import Measurement
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Ranked


@dataclass(frozen=True)
class ScanLevel:
    """One scan score over all seeds.

    Attributes:
        auroc, ap, fpr_at_95, detected: As in :class:`medgen.anomaly.evaluation.summary.ScanRow`.
        realised: Target → share of healthy test subjects with p at or below it; only targets that p can reach.
    """

    name: str
    auroc: Interval
    ap: Interval
    fpr_at_95: Interval
    detected: Interval
    realised: Mapping[float, Interval]


def scan_levels(runs: Runs, target: float, targets: Iterable[float]) -> list[ScanLevel]:
    """The scan table: every scan score that all seeds have.

    Args:
        runs: All seeds.
        target: The calibrated false-positive rate, for ``detected``.
        targets: Rates whose realisation on healthy test subjects is told.
    """
    everything = [*runs.healthy, *runs.implanted]
    subjects = [item.subject for item in everything]
    names = [name for name in everything[0].scores if all(name in item.scores for item in everything)]
    # The smallest p that any scan has by any score: with n calibration subjects none is below 1 / (n + 1).
    smallest = min(p for item in everything for p in item.p_values.values())
    rows = []
    for name in names:
        ranked = scans_ranked(everything, name)
        flagged = np.array([significant(item.p_values[name], target) for item in runs.implanted], dtype=np.float64)
        rows.append(
            ScanLevel(
                name=name,
                auroc=runs.resampler.ranked(ranked, subjects, Ranked.auroc),
                ap=runs.resampler.ranked(ranked, subjects, Ranked.average_precision),
                fpr_at_95=runs.resampler.ranked(ranked, subjects, Ranked.fpr_at_tpr),
                detected=runs.resampler.mean(flagged, runs.subjects),
                realised={
                    rate: share_of_subjects(
                        runs.healthy, [significant(item.p_values[name], rate) for item in runs.healthy]
                    )
                    for rate in targets
                    if significant(smallest, rate) or rate == target
                },
            )
        )
    return rows


def share_of_subjects(items: Sequence[Measurement], flags: Sequence[bool]) -> Interval:
    """Share of healthy subjects with a flagged scan, exact interval.

    A subject tested under several seeds counts once, with the share of the seeds that flag it.

    Args:
        items: Healthy scans; the part of ``case`` before the first slash is the seed.
        flags: Whether each is flagged.
    """
    tests: dict[tuple[str, str], bool] = {}
    for item, flag in zip(items, flags, strict=True):
        key = (item.subject, item.case.partition("/")[0])
        tests[key] = tests.get(key, False) or flag
    subjects = list(dict.fromkeys(subject for subject, _ in tests))
    shares = [np.mean([flag for (own, _), flag in tests.items() if own == subject]) for subject in subjects]
    # Not above the number of subjects by rounding.
    return binomial_interval(min(float(np.sum(shares)), len(subjects)), len(subjects))


def family_wise(runs: Runs) -> Interval:
    """Share of healthy test subjects with any voxel above the family-wise threshold."""
    return share_of_subjects(runs.healthy, [item.passes_family_wise for item in runs.healthy])
