"""Cohorts medgen makes itself: simulated brains with label maps, and implanted anomalies with ground truth."""

from __future__ import annotations

from medgen.data.simulation import simulate
from medgen.implants.cohort import implant_cohort
from medgen.implants.scan import IMPLANTS, Implanted, implant

__all__ = ["IMPLANTS", "Implanted", "implant", "implant_cohort", "simulate"]
