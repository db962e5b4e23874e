"""A run whose MLflow server fails in every way: nothing is lost, nothing is there twice, and nobody waits."""

from __future__ import annotations

import collections
import json
import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow_server import Server, attempt, impatient, sent, until

from medgen.errors import DataError
from medgen.runs import journal, tracking
from medgen.runs.store import mlflow_store

STEPS = 300
# Seconds that leaving a run may take here, in place of the documented 20.
CLOSE = 2.0


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    server = Server()
    impatient(monkeypatch, server.uri, timeout=1, pause=0.02, longest=0.1, close=CLOSE)
    # Importing takes seconds, which are not those of a call.
    mlflow_store.import_mlflow(server.uri)
    yield server
    server.stop()


def value(step: int) -> float:
    return {7: math.nan, 8: math.inf}.get(step, (step + 1) / 3)


class Seen:
    """What the run noticed of it all: seconds in calls, and on the way out."""

    logging = 0.0
    leaving = 0.0


def tracked(out: Path, events: dict[int, Callable[[], None]]) -> Seen:
    seen = Seen()
    with tracking.start("outage", out, config={"a": {"b": 1}}, seed=3) as run:
        with run.stage("train") as stage:
            for step in range(STEPS):
                events.get(step, lambda: None)()
                begun = time.perf_counter()
                stage.log_metrics({"loss": value(step), "kl": 0.5}, step)
                seen.logging += time.perf_counter() - begun
        run.log_text("hello", "note.txt")
        begun = time.perf_counter()
    seen.leaving = time.perf_counter() - begun
    return seen


def check(server: Server, out: Path) -> None:
    """The store holds the journal: each run once, each point once; what was sent again was the same to the byte."""
    assert sorted(run["info"]["status"] for run in server.runs.values()) == ["FINISHED"] * 2
    by_id = {run["tags"]["medgen.run"]: uid for uid, run in server.runs.items()}
    assert len(by_id) == 2
    entries = [entry for entry, _ in journal.entries(out / journal.NAME)]
    expected = collections.Counter(
        (by_id[entry["run"]], name, entry["step"], str(float(number)), entry["time"])
        for entry in entries
        if entry["kind"] == "metrics"
        for name, number in entry["values"].items()
    )
    assert len(expected) == expected.total() == 2 * STEPS
    texts: dict[tuple[str, str, int], set[str]] = {}
    for uid, text in server.points:
        point = json.loads(text)
        texts.setdefault((uid, point["key"], int(point.get("step", 0))), set()).add(text)
    assert {key: len(found) for key, found in texts.items() if len(found) > 1} == {}
    stored = collections.Counter(
        (uid, point["key"], int(point.get("step", 0)), str(float(point["value"])), int(point["timestamp"]))
        for uid, text in set(server.points)
        for point in [json.loads(text)]
    )
    assert stored == expected
    parent = server.runs[by_id[entries[0]["run"]]]
    assert parent["params"] == {"a.b": "1"}
    assert parent["tags"]["medgen.seed"] == "3"
    folder = f"1/{parent['info']['run_id']}/artifacts"
    assert {path: set(found) for path, found in server.artifacts.items() if "note" in path} == {
        f"{folder}/note.txt": {b"hello"}
    }
    assert f"{folder}/config.yaml" in server.artifacts


def down_from_the_start(server: Server) -> dict[int, Callable[[], None]]:
    server.stop()
    return {}


def dies_and_comes_back(server: Server) -> dict[int, Callable[[], None]]:
    def die() -> None:
        until(lambda: server.points, "first points")
        server.stop()

    def back() -> None:
        time.sleep(0.1)
        known = len(server.points)
        server.start()
        until(lambda: len(server.points) > known, "points after the outage")

    return {100: die, 200: back}


def errors_for_a_while(server: Server) -> dict[int, Callable[[], None]]:
    def broken() -> None:
        until(lambda: server.points, "first points")
        server.fault = lambda _: "500"
        server.calls.clear()

    def healed() -> None:
        until(lambda: len(server.calls) > 2, "failures")
        server.fault = lambda _: None

    return {100: broken, 200: healed}


def hangs(server: Server) -> dict[int, Callable[[], None]]:
    server.fault = lambda _: "hang"
    return {STEPS - 1: lambda: until(lambda: server.calls, "a call")}


def stores_and_hangs(server: Server) -> dict[int, Callable[[], None]]:
    first: set[str] = set()

    def fault(endpoint: str) -> str | None:
        again = endpoint in first or endpoint not in ("runs/create", "runs/log-batch")
        first.add(endpoint)
        return None if again else "stored, hang"

    server.fault = fault
    return {100: lambda: until(lambda: server.runs, "a run")}


def is_slow(server: Server) -> dict[int, Callable[[], None]]:
    server.fault = lambda _: "slow"
    return {}


def drops_what_it_has_stored(server: Server) -> dict[int, Callable[[], None]]:
    """Of every endpoint the first three calls, so that points and runs are sent again, during the run and after."""
    count: collections.Counter[str] = collections.Counter()

    def fault(endpoint: str) -> str | None:
        count[endpoint] += 1
        return "drop" if count[endpoint] <= 3 else None

    server.fault = fault
    return {100: lambda: until(lambda: server.points, "a batch")}


@pytest.mark.parametrize(
    "outage",
    [
        down_from_the_start,
        dies_and_comes_back,
        errors_for_a_while,
        hangs,
        stores_and_hangs,
        is_slow,
        drops_what_it_has_stored,
    ],
)
def test_every_point_arrives_once_and_nobody_waits(server, tmp_path, outage):
    out = tmp_path / "runs" / "a"
    seen = tracked(out, outage(server))
    assert seen.logging / STEPS < 0.005
    assert seen.leaving < CLOSE + 2
    if outage is down_from_the_start:
        with pytest.raises(DataError, match=r"what it lacks is kept in .*journal\.jsonl; try again"):
            tracking.sync(out)
        server.start()
    elif outage is hangs:
        assert server.points == []
    if outage is not drops_what_it_has_stored:
        server.fault = lambda _: None
    sent(out)
    check(server, out)
    if outage is drops_what_it_has_stored:
        assert len(server.points) > len(set(server.points))


def test_an_artifact_store_that_is_down_holds_no_number_back(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_store, "_CHUNK", 100)
    server.fault = lambda endpoint: "500" if endpoint == "artifacts" else None
    out = tmp_path / "runs" / "a"
    tracked(out, {})
    assert len(set(server.points)) == 2 * STEPS
    assert {run["info"]["status"] for run in server.runs.values()} == {"FINISHED"}
    assert server.artifacts == {}
    with pytest.raises(DataError, match=r"what it lacks is kept in .*journal\.jsonl; try again"):
        tracking.sync(out)
    # One that is refused for good does not stand in the way of the others.
    server.fault = lambda endpoint: "500" if endpoint == "artifacts" and "note" not in server.asked else None
    until(lambda: attempt(out) or server.artifacts, "the other artifact")
    assert [path.rpartition("/")[2] for path in server.artifacts] == ["note.txt"]
    server.fault = lambda _: None
    assert tracking.sync(out) == 1
    assert tracking.sync(out) == 0
    check(server, out)
    assert {len(found) for found in server.artifacts.values()} == {1}


def test_a_sender_that_is_still_waiting_and_a_sync_make_no_second_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_CLOSE_SERVER", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    server.delay = 0.7
    server.fault = lambda endpoint: "slow" if endpoint == "runs/create" else None
    out = tmp_path / "runs" / "a"
    assert tracked(out, {0: lambda: until(lambda: "runs/create" in server.calls, "the run's creation")}).leaving < 0.6
    assert tracking.sync(out) == 0
    sent(out)
    check(server, out)


RACE = """
import os, sys
from pathlib import Path
from medgen.runs import tracking
from medgen.runs.store import mlflow_store
root = Path(sys.argv[1])
mlflow_store.import_mlflow("sqlite:///x")
ready, go = os.pipe()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        with tracking.start(f"racer{number}", root / str(number), config={}, seed=number) as run:
            for step in range(20):
                run.log_metrics({"loss": step}, step)
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


def test_eight_processes_on_a_fresh_database_leave_eight_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(tracking.__file__).parents[1]))
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    for number in range(8):
        tracking.sync(tmp_path / str(number))
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        names = connection.execute("select name, status from runs").fetchall()
        points = connection.execute("select run_uuid, count(*) from metrics group by run_uuid").fetchall()
        seeds = connection.execute("select value from tags where key='medgen.seed'").fetchall()
    connection.close()
    assert sorted(name.split("-")[0] for name, _ in names) == [f"racer{number}" for number in range(8)]
    assert {status for _, status in names} == {"FINISHED"}
    assert [count for _, count in points] == [20] * 8
    assert sorted(seeds) == [(str(number),) for number in range(8)]


DIES = """
import os, sys
from pathlib import Path
from medgen.runs import tracking
from sqlalchemy import event
from sqlalchemy.engine import Engine
left = [int(sys.argv[2])]
def count(*_):
    left[0] -= 1
    if left[0] == 0:
        os._exit(137)
event.listen(Engine, "after_cursor_execute", count)
tracking.sync(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("statements", [3, 60, 200])
def test_a_kill_while_a_fresh_database_is_set_up_costs_nothing(tmp_path, monkeypatch, statements):
    monkeypatch.setattr(tracking, "_CLOSE_SERVER", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with tracking.start("a", tmp_path / "a", config={}, seed=0) as run:
        run.log_metrics({"loss": 1.0})
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("PYTHONPATH", str(Path(tracking.__file__).parents[1]))
    command = [sys.executable, "-c", DIES, str(tmp_path / "a"), str(statements)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 137
    assert not (tmp_path / "mlflow.db").exists()
    assert tracking.sync(tmp_path / "a") > 0
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select status from runs").fetchall() == [("FINISHED",)]
        assert connection.execute("select value from metrics").fetchall() == [(1.0,)]
    connection.close()
    assert not list(tmp_path.glob(".mlflow.db*"))
