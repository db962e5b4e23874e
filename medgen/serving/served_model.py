"""The code of the MLflow model: copied beside the artifact, and run by MLflow's scoring server and nothing else."""

from __future__ import annotations

import warnings
from typing import Any

from medgen.serving.service import ScanService

with warnings.catch_warnings():
    # MLflow warns of its own classes.
    warnings.simplefilter("ignore")
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel, PythonModelContext


class ServedDetector(PythonModel):
    """Scores scans by path, one answer for each; see :meth:`medgen.serving.service.ScanService.answer`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the detector with the folders that the model was packaged with."""
        folders = context.model_config
        self._service = ScanService.of(context.artifacts["model"], folders["scans"], folders["heatmaps"])

    def predict(
        self, context: PythonModelContext, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer for every path."""
        return [self._service.answer(scan) for scan in model_input]


set_model(ServedDetector())
