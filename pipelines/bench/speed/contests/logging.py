"""A tracked run with many numbers against MLflow's own functions, called as its guides show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from medgen.runs import tracking
from medgen.runs.journal import store_uri
from medgen.runs.store.imported import import_mlflow

from ..contest import Contender, Contest, Entry, Growth, Rows, Settings, Work

_STEPS, _FEW = 500, 20
_NUMBERS = 4
_GROWING, _FEW_GROWING = (100.0, 300.0, 1000.0, 3000.0), (10.0, 20.0)
_CHOICE = "MLFLOW_TRACKING_URI"
_NOW = "mlflow.log_metrics"


def entries(settings: Settings) -> Iterator[Entry]:
    """A run of some hundred steps with four numbers each, in a store that is a file of SQLite."""
    steps = _FEW if settings.quick else _STEPS
    with _store(None):
        own, peer = _Own(settings.scratch / "own"), _Mlflow(settings.scratch / "peer")
        yield Contest(
            "a tracked run, all of it",
            (Contender("medgen", lambda: own.run(steps)), Contender(_NOW, lambda: peer.run(steps))),
            equal=lambda: _equal(own, peer, steps),
            notes=(
                f"{steps} steps of {_NUMBERS} numbers each, from the start of the run until the store has them all. "
                "medgen writes them to the run's journal as well, and its run has parameters, tags, a description and "
                "the versions of what is installed; MLflow's has the numbers.",
            ),
        )
        yield Growth(
            "a tracked run",
            "steps",
            _FEW_GROWING if settings.quick else _GROWING,
            lambda steps: _Own(settings.scratch / f"grown-{int(steps)}").work(int(steps)),
        )


class _Own:
    """Runs of medgen, each in a folder of its own, all in one store beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers, self.last = folder, count(), folder

    def run(self, steps: int) -> None:
        """One run from start to end."""
        self.last = self.folder / f"run-{next(self.numbers)}"
        self.last.mkdir(parents=True)
        with tracking.start("speed", self.last, config={"seed": 0}, seed=0) as run:
            for step in range(steps):
                run.log_metrics(_values(step), step)

    def work(self, steps: int) -> Work:
        """:meth:`run` of so many steps."""
        return lambda: self.run(steps)


class _Mlflow:
    """Runs that MLflow's own functions write, in a store of theirs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        import_mlflow(self.uri)
        import mlflow

        self.mlflow: Any = mlflow
        self.last = ""

    def run(self, steps: int) -> None:
        """One run from start to end."""
        # Not set_tracking_uri, which would be the choice of all that comes after.
        with _store(self.uri), self.mlflow.start_run() as run:
            self.last = run.info.run_id
            for step in range(steps):
                self.mlflow.log_metrics(_values(step), step=step)

    def metrics(self, uri: str, run: str) -> int:
        """Numbers that a store has of a run."""
        client = self.mlflow.MlflowClient(uri)
        return sum(len(client.get_metric_history(run, f"loss-{number}")) for number in range(_NUMBERS))


def _equal(own: _Own, peer: _Mlflow, steps: int) -> Rows:
    uri = store_uri(own.last)
    client = peer.mlflow.MlflowClient(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    newest = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)[0]
    return {
        "numbers in the store": {
            "medgen": peer.metrics(uri, newest.info.run_id),
            _NOW: peer.metrics(peer.uri, peer.last),
        },
        "expected": {"medgen": steps * _NUMBERS, _NOW: steps * _NUMBERS},
    }


def _values(step: int) -> Mapping[str, float]:
    return {f"loss-{number}": step / (number + 1) for number in range(_NUMBERS)}


@contextmanager
def _store(uri: str | None) -> Iterator[None]:
    """Inside, runs go to this store, or where nobody has chosen one; the user's choice is back afterwards."""
    kept = os.environ.pop(_CHOICE, None)
    if uri is not None:
        os.environ[_CHOICE] = uri
    try:
        yield
    finally:
        os.environ.pop(_CHOICE, None)
        if kept is not None:
            os.environ[_CHOICE] = kept
