"""What the most extreme calibration subject costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.anomaly.evaluation.leverage import Leverage, leverage_of
from medgen.runs.context import Results, RunContext
from medgen.system.files import plain

from ...stages import Stage
from ..config import AnomalyRunConfig
from .calibrate import Calibrated
from .evaluate import Evaluation


class MeasureLeverage(Stage[AnomalyRunConfig]):
    """Says what the threshold and the findings would be without the most extreme calibration subject."""

    name = "leverage"
    needs = (Calibrated, Evaluation)
    makes = (Leverage,)

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        healthy, calibration = results[Calibrated].healthy, results[Calibrated].detector.calibration
        target, measurements = config.anomaly.calibration.target_fpr, results[Evaluation].measurements
        return [leverage_of(calibration, healthy.subjects, healthy.ids, target, measurements)]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The threshold with and without the subject."""
        found = results[Leverage]
        return {"leverage": {**plain(found), "decides": found.decides}}

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """What to do, where one subject decides about all findings."""
        found = results[Leverage]
        return [found.words] if found.decides else []
