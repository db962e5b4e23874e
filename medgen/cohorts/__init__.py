"""Cohorts medgen makes itself: simulated brains with label maps, and implanted anomalies with ground truth."""

from __future__ import annotations

from medgen.cohorts.implanting import implant_cohort
from medgen.cohorts.implants import IMPLANTS, Implanted, implant
from medgen.data.simulation import simulate

__all__ = ["IMPLANTS", "Implanted", "implant", "implant_cohort", "simulate"]
