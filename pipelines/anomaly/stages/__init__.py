"""The stages of an anomaly run, one file each, and their order."""

from __future__ import annotations

from medgen.data.cases import Manifest

from ...stages import Pipeline
from ..cohort import AnomalyCohort
from ..config import AnomalyRunConfig
from .artefacts import MeasureArtefacts
from .calibrate import Calibrate
from .contamination import Contamination
from .detectability import MeasureDetectability
from .evaluate import Evaluate
from .groups import Groups
from .leverage import MeasureLeverage
from .prepare import Prepare
from .train import Train
from .without import TrainWithout


def pipeline(save_measurements: bool = False) -> Pipeline[AnomalyRunConfig]:
    """The stages of an anomaly run in their order.

    Args:
        save_measurements: See :class:`~medgen.pipelines.anomaly.stages.evaluate.Evaluate`.
    """
    return Pipeline(
        [
            Prepare(),
            Train(),
            Calibrate(),
            TrainWithout(),
            Evaluate(save_measurements),
            Groups(),
            Contamination(),
            MeasureDetectability(),
            MeasureLeverage(),
            MeasureArtefacts(),
        ],
        given=(Manifest, AnomalyCohort),
    )
