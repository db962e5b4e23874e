"""What notebooks and scripts need: a trained model on a scan in three lines, new labelled scans, checks, practice data.

Everything here is reached from the package itself: ``medgen.load``, ``medgen.synthesize``, ``medgen.check``,
``medgen.simulate``. These names and what they return keep their meaning over minor versions.
"""

from medgen.api.cohorts import Checked, check, simulate
from medgen.api.detection import Detector, ScoredScan, load
from medgen.api.synthesis import SyntheticScan, synthesize

__all__ = ["Checked", "Detector", "ScoredScan", "SyntheticScan", "check", "load", "simulate", "synthesize"]
