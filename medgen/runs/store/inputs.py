"""Data sets that a run has read, as MLflow shows them: name, digest, context, and how many scans of how many people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow takes 36 characters; the whole digest is in the profile.
_DIGEST = 12


def send_dataset(client: MlflowClient, run: str, entry: Mapping[str, Any]) -> None:
    """Add a data set to the inputs of a run; one that is there already stays as it is.

    Args:
        client: Of the store.
        run: The run's id in the store.
        entry: ``name``, ``context`` (training, calibration, test, ...), ``sha256`` and ``facts``.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    about = {"sha256": entry["sha256"], **entry["facts"]}
    data = Dataset(
        name=entry["name"],
        digest=entry["sha256"][:_DIGEST],
        source_type="medgen",
        source=json.dumps({"cohort": entry["cohort"]}),
        profile=json.dumps(about),
    )
    client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", entry["context"])])])
