"""Conformal calibration: p-values and thresholds that hold for few healthy scans, or a refusal.

A new healthy scan is exchangeable with the healthy scans the model was calibrated on: same scanner, protocol and
population. Then its conformal p-value p = (1 + #{i: sᵢ ≥ s}) / (n + 1) is at most α with probability at most α
(Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005). Every calibration scan is scored out of
fold, by the one model that has not seen it; a new scan has one score, from the mean over all models, and p compares
that number with the calibration's. Averaging takes the models' disagreement out of the new scan's score and leaves it
in the calibration's, so p errs upwards; ``docs/decisions/0009-one-score-one-table-one-p.md`` and
``docs/benchmarks/calibration.md`` have the simulated rates. On other scanners or populations none of this holds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from medgen.config import Config
from medgen.errors import CalibrationError


class CalibrationConfig(Config):
    """What the calibration must guarantee.

    Attributes:
        target_fpr: Share of healthy scans that may have a voxel above the family-wise threshold, or a significant scan
            score.
    """

    target_fpr: float = Field(default=0.05, gt=0, lt=1)


def scans_needed(target: float) -> int:
    """Fewest healthy subjects with which a false-positive rate of ``target`` can be certified.

    >>> scans_needed(0.05), scans_needed(0.01)
    (19, 99)
    """
    return math.ceil(1 / target - 1e-9) - 1


def reachable_target(n: int) -> float:
    """Smallest false-positive rate, in tenths of a percent, that ``n`` healthy subjects can certify.

    >>> reachable_target(18), reachable_target(19)
    (0.053, 0.05)
    """
    return math.ceil(1000 / (n + 1) - 1e-9) / 1000


def check_target(target: float, n: int) -> None:
    """Refuse a target that ``n`` healthy subjects cannot certify: the smallest p-value is 1 / (n + 1).

    Raises:
        CalibrationError: With the number needed and the smallest target that can be reached.
    """
    needed = scans_needed(target)
    if n < needed:
        raise CalibrationError(
            f"a false-positive rate of {100 * target:g} % needs at least {needed} healthy scans (subjects) "
            f"to calibrate on, found {n}; add scans or raise "
            f"anomaly.calibration.target_fpr to {reachable_target(n):g} or more"
        )


def p_value(calibration: ArrayLike, value: float) -> float:
    """Conformal p-value of one score against calibration scores (n,).

    >>> p_value([1.0, 2.0, 3.0], 2.5)
    0.5
    """
    scores = np.asarray(calibration, dtype=np.float64)
    return float((1 + np.sum(scores >= value)) / (scores.size + 1))


def significant(p: float, target: float) -> bool:
    """Whether a p-value is at or below a target; rounding of 1 / (n + 1) must not decide.

    >>> significant((1 + 2) / (1 + 59), 0.05), significant(0.0501, 0.05)
    (True, False)
    """
    return p <= target + 1e-12


def threshold(calibration: ArrayLike, target: float) -> float:
    """The value that a new healthy score exceeds with probability at most ``target``: the conformal quantile.

    It is the ⌈(n + 1)(1 − target)⌉-th smallest calibration score, so that ``value > threshold`` is ``p_value <=
    target``.

    Raises:
        CalibrationError: If the target is out of reach of n scores.

    >>> threshold(range(1, 20), 0.05), p_value(range(1, 20), 19.5)
    (19.0, 0.05)
    """
    scores = np.sort(np.asarray(calibration, dtype=np.float64))
    check_target(target, scores.size)
    rank = math.ceil((scores.size + 1) * (1 - target) - 1e-9)
    return float(scores[rank - 1])
