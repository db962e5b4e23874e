"""The same outages with MLflow's own server, whose database is looked at afterwards; ``test_store_outage`` has more."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow_server import impatient, sent, until

from medgen.runs import journal, tracking
from medgen.runs.store import mlflow_store

STEPS = 300


class MlflowServer:
    """``mlflow server`` on a database file, in a process group that can be killed, stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True, env=environment, cwd=self.folder
            )
        end = time.monotonic() + 90
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < end, "the server did not come up"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def send(self, number: int) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def rows(self, query: str) -> list[tuple]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute(query).fetchall()

    def points(self) -> int:
        return self.rows("select count(*) from metrics")[0][0]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    mlflow_store.import_mlflow(server.uri)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(running, monkeypatch) -> MlflowServer:
    impatient(monkeypatch, running.uri, timeout=2, pause=0.05, longest=0.5, close=3.0)
    return running


def track(out: Path, events: dict[int, Callable[[], None]]) -> None:
    with tracking.start("outage", out, config={"a": 1}, seed=3) as run:
        with run.stage("train") as stage:
            for step in range(STEPS):
                events.get(step, lambda: None)()
                stage.log_metrics({"loss": (step + 1) / 3, "kl": 0.5}, step)
        run.log_text("hello", "note.txt")


def check(server: MlflowServer, out: Path) -> None:
    """Every point of the journal is in the database once, every run is there once and finished, the file has come."""
    entries = [entry for entry, _ in journal.entries(out / journal.NAME)]
    expected = Counter(
        (entry["run"], name, float(value), entry["step"], entry["time"])
        for entry in entries
        if entry["kind"] == "metrics"
        for name, value in entry["values"].items()
    )
    assert expected.total() == 2 * STEPS
    own = "join tags on tags.run_uuid = {}.run_uuid and tags.key = 'medgen.run' where tags.value in ({})"
    names = ", ".join(f"'{name}'" for name in {entry["run"] for entry in entries})
    point = "select tags.value, metrics.key, metrics.value, step, timestamp from metrics "
    assert Counter(server.rows(point + own.format("metrics", names))) == expected
    assert server.rows("select status from runs " + own.format("runs", names)) == [("FINISHED",)] * 2
    (parent,) = server.rows("select runs.run_uuid from runs " + own.format("runs", f"'{entries[0]['run']}'"))
    assert [path.read_text() for path in server.folder.glob(f"artifacts/**/{parent[0]}/**/note.txt")] == ["hello"]


def killed_and_restarted(server: MlflowServer, out: Path) -> None:
    known = server.points()

    def die() -> None:
        until(lambda: server.points() > known, "first points")
        server.kill()

    def back() -> None:
        before = server.points()
        server.start()
        until(lambda: server.points() > before, "points after the outage")

    track(out, {100: die, 200: back})


def stopped_for_a_while(server: MlflowServer, out: Path) -> None:
    """The worst kind: connections are taken, nothing is answered, and what was asked may be done later all the same."""
    known = server.points()

    def stop() -> None:
        until(lambda: server.points() > known, "first points")
        server.send(signal.SIGSTOP)

    def go_on() -> None:
        time.sleep(3)
        server.send(signal.SIGCONT)

    track(out, {100: stop, 200: go_on})


@pytest.mark.parametrize("outage", [killed_and_restarted, stopped_for_a_while])
def test_an_outage_of_a_real_server_loses_nothing_and_doubles_nothing(server, tmp_path, outage, capfd):
    out = tmp_path / "run"
    outage(server, out)
    sent(out)
    check(server, out)
    assert capfd.readouterr().out == ""
