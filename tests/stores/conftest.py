"""Real stores beside the tests: PostgreSQL, an S3-compatible store, and MLflow's own server in front of both."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgres import Postgres
from s3 import KEYS, S3

from medgen.runs import tracking


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    store = S3()
    store.client().create_bucket(Bucket="medgen")
    yield store
    store.stop()


@pytest.fixture(autouse=True)
def _small_patience(monkeypatch):
    """No test waits as long as a run would, nor knows the stores of who runs the tests."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_"))]:
        if name != "MLFLOW_DISABLE_TELEMETRY":
            monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(tracking, "_PAUSE", 0.05)
    monkeypatch.setattr(tracking, "_LONGEST_PAUSE", 0.5)
