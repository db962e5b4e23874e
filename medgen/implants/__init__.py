"""Lesions put into healthy scans, with their ground truth: what detectors are measured on."""

from __future__ import annotations

from medgen.implants.cohort import implant_cohort
from medgen.implants.scan import Implanted, implant

__all__ = ["Implanted", "implant", "implant_cohort"]
