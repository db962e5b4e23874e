"""Finished runs that tests of the audit look at and do not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.finished_runs import generated, scored, trained


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that trained a model, one that scored with it, and one that made scans."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        scored(folder, trained(folder))
        generated(folder)
    return folder
