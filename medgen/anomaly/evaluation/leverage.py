"""One calibration subject that decides alone about the family-wise level: what it costs, and what passes without it.

The family-wise threshold is a high quantile of the healthy subjects' hottest voxels. With 19 subjects and 5 % it is the
hottest voxel of all of them, so a single subject with an unnoticed lesion, an artefact or an unusual anatomy sets it,
and nothing cooler passes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgen.anomaly import calibration
from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.evaluation.contamination import OUTLIER, robust_z
from medgen.anomaly.evaluation.measure import HEALTHY, Measurement


@dataclass(frozen=True)
class Leverage:
    """The calibration without its most extreme subject, judged on the same maps.

    Attributes:
        subject: Whose hottest voxel is the highest.
        cases: Its scans: what ``exclude`` has to name.
        hottest, next_hottest: Its hottest voxel and the next subject's, z.
        robust_z: How far the first lies above the others' (modified z-score).
        threshold, threshold_without: Heat (z) that a family-wise finding exceeds, calibrated with and without the
            subject.
        target, target_without: False-positive rates that they stand for: without the subject one fewer is left, and
            fewer subjects may certify a higher rate only.
        found, found_without: Implants with a voxel above it, of ``implanted``.
        implanted: Implanted test scans.
        healthy_without: Healthy test scans that would have a voxel above it, of ``healthy``.
        healthy: Healthy test scans.
    """

    subject: str
    cases: tuple[str, ...]
    hottest: float
    next_hottest: float
    robust_z: float
    threshold: float
    threshold_without: float
    target: float
    target_without: float
    found: int
    found_without: int
    implanted: int
    healthy_without: int
    healthy: int

    @property
    def decides(self) -> bool:
        """Whether this one subject sets the threshold and is an outlier among the others."""
        return self.threshold >= self.hottest > self.next_hottest and self.robust_z > OUTLIER

    @property
    def overrides(self) -> str:
        """What to add to the command of the run, with ``--resume``, to calibrate without the subject."""
        # In double quotes, or ids of digits would be read as numbers.
        changed = shlex.quote(f"exclude={json.dumps(list(self.cases))}")
        if self.target_without > self.target:
            changed += f" anomaly.calibration.target_fpr={self.target_without:g}"
        return f"{changed} --resume"

    @property
    def words(self) -> str:
        """What the subject costs, in numbers, and how to calibrate without it; for a reader of the first page."""
        who = self.subject if self.cases == (self.subject,) else f"{self.subject} ({', '.join(self.cases)})"
        rate = f" (at {100 * self.target_without:g} %)" if self.target_without > self.target else ""
        return (
            f"One healthy development subject sets the family-wise threshold alone: {who} has a voxel of "
            f"z = {self.hottest:.2f}, the next subject {self.next_hottest:.2f}. By the maps of this run, without it "
            f"the threshold would be {self.threshold_without:.2f}{rate} instead of {self.threshold:.2f}, passed "
            f"by {self.found_without} instead of {self.found} of {self.implanted} implants, and by "
            f"{self.healthy_without} of {self.healthy} healthy test scans. Look at the scan; only if it is not "
            f"healthy, add `{self.overrides}` to the command of this run: models are kept, the calibration is made "
            "again. Healthy means and spreads are then those of the others, so these numbers will differ somewhat."
        )


def leverage_of(
    fitted: Calibration,
    subjects: Sequence[str],
    cases: Sequence[str],
    target: float,
    measurements: Sequence[Measurement],
) -> Leverage:
    """What the most extreme calibration subject costs.

    Args:
        fitted: The calibration.
        subjects: Subject of every development case.
        cases: Development cases, same order.
        target: Family-wise false-positive rate.
        measurements: Scored test scans.
    """
    names = list(dict.fromkeys(subjects))
    maxima = fitted.maxima
    first = int(maxima.argmax())
    others = np.delete(maxima, first)
    lower = max(target, calibration.reachable_target(others.size))
    without = calibration.threshold(others, lower)
    implanted = [item for item in measurements if item.kind != HEALTHY]
    healthy = [item for item in measurements if item.kind == HEALTHY]
    return Leverage(
        subject=names[first],
        cases=tuple(case for case, subject in zip(cases, subjects, strict=True) if subject == names[first]),
        hottest=float(maxima[first]),
        next_hottest=float(others.max()),
        robust_z=float(robust_z(maxima)[first]),
        threshold=fitted.threshold,
        threshold_without=without,
        target=target,
        target_without=lower,
        found=sum(item.is_found_family_wise for item in implanted),
        found_without=sum(item.hottest_in_truth > without for item in implanted),
        implanted=len(implanted),
        healthy_without=sum(item.scores["max"] > without for item in healthy),
        healthy=len(healthy),
    )
