"""What the gate says of held-out healthy scans: how often it refuses scans that it should let through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgen.anomaly.gate import Gate, Limit
from medgen.anomaly.normative.covariates import Covariates
from medgen.errors import DataError
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.preprocessing.dataset import Dataset, Failure


@dataclass(frozen=True, eq=False)
class Screening:
    """Healthy test scans before and after the gate.

    Attributes:
        passed: The scans to evaluate.
        refused: Scans that the gate refuses, with the reasons.
        outside: Scans that the gate lets through, of people beyond the development subjects' covariates: a fact about
            the cohort, no fault of the scan.
        abstained: Share of subjects with a scan of either sort, exact binomial interval: subjects are independent,
            scans of one subject are not.
        values: Per check, the values of the test scans.
    """

    passed: Dataset
    refused: tuple[Failure, ...]
    outside: tuple[Failure, ...]
    abstained: Interval
    values: Mapping[str, list[float]]

    def to_plain(self, gate: Gate | None, scans: int) -> dict[str, Any]:
        """The gate of a run as plain data.

        Args:
            gate: The detector's gate with its limits; None if it has none.
            scans: Test scans before preprocessing, which can refuse a scan too.

        Returns:
            ``abstained`` (share of test subjects, with its interval), numbers of scans, ``outside`` (cases of people
            beyond the development subjects' covariates, with the reason), and per check the limits (None
            where there is none) and the ranges over healthy development and test scans (None where nothing was
            measured).
        """
        share, passed, refused = self.abstained, len(self.passed), len(self.refused) + len(self.outside)
        limits = {} if gate is None else gate.limits
        return {
            "abstained": {"estimate": share.estimate, "low": share.low, "high": share.high, "n": share.n},
            "scans_passed": passed,
            "scans_abstained": refused,
            "scans_not_prepared": scans - passed - refused,
            "outside": [{"case": failure.case, "reason": failure.message} for failure in self.outside],
            "limits": {name: _limit_to_plain(limit, self.values.get(name, ())) for name, limit in limits.items()},
        }


def screen(gate: Gate | None, test: Dataset, covariates: Covariates | None = None) -> Screening:
    """Take the scans that the gate refuses out of the healthy test scans; without a gate all of them pass.

    Args:
        gate: The gate.
        test: Healthy test scans.
        covariates: What is adjusted for: scans of people like none of the development subjects are left out, too.

    Raises:
        DataError: If none is left.
    """
    refused: list[Failure] = []
    outside: list[Failure] = []
    values: dict[str, list[float]] = {}
    if gate is not None:
        for case, prepared in zip(test.ids, test.prepared, strict=True):
            for name, value in gate.measure(prepared).items():
                values.setdefault(name, []).append(value)
            problems = gate.problems(prepared)
            if problems:
                refused.append(Failure(case, ". ".join(problems)))
    if covariates is not None:
        for case, prepared in zip(test.ids, test.prepared, strict=True):
            if (problem := covariates.problem(prepared.attributes)) and case not in {own.case for own in refused}:
                outside.append(Failure(case, problem))
    names = {failure.case for failure in (*refused, *outside)}
    subjects = {subject for case, subject in zip(test.ids, test.subjects, strict=True) if case in names}
    if len(names) == len(test):
        first = (*refused, *outside)[0]
        raise DataError(
            f"the gate refuses all {len(test)} healthy test scans; the first: {first.case}: {first.message}; "
            "check that they are like the other scans, or raise anomaly.gate.margin"
        )
    return Screening(
        passed=test.subset([case for case in test.ids if case not in names]) if names else test,
        refused=tuple(refused),
        outside=tuple(outside),
        abstained=binomial_interval(len(subjects), len(set(test.subjects))),
        values=values,
    )


def _limit_to_plain(limit: Limit, test: Sequence[float]) -> dict[str, float | None]:
    return {
        "low": limit.low if math.isfinite(limit.low) else None,
        "high": limit.high if math.isfinite(limit.high) else None,
        "healthy_min": float(limit.values.min()),
        "healthy_max": float(limit.values.max()),
        "test_min": min(test, default=None),
        "test_max": max(test, default=None),
    }
