"""Tracking: statuses, children, privacy, and a store that does not answer."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medgen.errors import DataError
from medgen.runs import journal, tracking
from medgen.system import files

CANARY = "canary-user"


@pytest.fixture(autouse=True)
def _default_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rows(database: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def runs(database: Path) -> dict[str, tuple[str, str]]:
    """Run name up to its id → (status, id in the store)."""
    return {
        name.split("-")[0]: (status, uid)
        for name, status, uid in rows(database, "select name,status,run_uuid from runs")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Root and run of a finished run with a stage, a picture and a canary wherever a user name could come from."""
    root = tmp_path_factory.mktemp("whole")
    out = root / "runs" / "anomaly"
    out.mkdir(parents=True)
    picture = out / "picture.png"
    picture.write_bytes(b"png")
    config = {"data": root / CANARY / "cohort", "model": {"latent": 8, "widths": [16, 32]}, "note": "x" * 7000}
    facts = {"seed": 3, "manifest_digest": "ab" * 32, "tags": {"device": "cpu"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("USER", "LOGNAME", "USERNAME", "LNAME"):
            patch.setenv(name, CANARY)
        with tracking.start("anomaly", out, config=config, **facts) as run:
            run.set_tags({"medgen.place": f"read from {root}/{CANARY}/x.nii.gz"})
            with run.stage("fold 0") as stage:
                for step in range(5):
                    stage.log_metrics({"loss": 1.0 / (step + 1), "FPR@TPR95": 0.5, "none": None}, step)
                stage.log_metrics({"loss": float("nan")}, 5)
                stage.log_params({"lr": 0.1})
            run.log_metrics({"ap": 0.25})
            run.log_file(picture, "pictures")
            run.log_file(out / "absent.png")
    return root, run


def test_whole_run_with_children_in_sqlite(whole):
    root, run = whole
    picture = root / "runs" / "anomaly" / "picture.png"
    assert run.store == f"sqlite:///{root}/runs/mlflow.db"

    database = root / "runs" / "mlflow.db"
    found = runs(database)
    assert {name: status for name, (status, _) in found.items()} == {"anomaly": "FINISHED", "fold 0": "FINISHED"}
    parent, child = found["anomaly"][1], found["fold 0"][1]
    tags = dict(rows(database, f"select key,value from tags where run_uuid='{parent}'"))
    assert tags["medgen.run"] == run.id
    assert tags["medgen.seed"] == "3"
    assert tags["medgen.manifest.sha256"] == "ab" * 32
    assert tags["medgen.place"] == "read from x.nii.gz"
    assert tags["device"] == "cpu"
    assert tags["sha256.pictures/picture.png"] == files.sha256_file(picture)
    assert {"version.torch", "version.mlflow", "medgen.commit", "medgen.dirty", "medgen.config.sha256"} <= tags.keys()
    assert tags["mlflow.user"] == "medgen"
    assert dict(rows(database, f"select key,value from tags where run_uuid='{child}'"))["mlflow.parentRunId"] == parent
    params = dict(rows(database, f"select key,value from params where run_uuid='{parent}'"))
    assert params["data"] == "cohort"
    assert params["model.latent"] == "8"
    assert params["model.widths"] == "[16, 32]"
    assert params["note"].startswith("sha256:")
    history = rows(database, f"select key,step,value,is_nan from metrics where run_uuid='{child}' order by key,step")
    assert [row for row in history if row[0] == "loss"][:2] == [("loss", 0, 1.0, 0), ("loss", 1, 0.5, 0)]
    assert history[-1] == ("loss", 5, 0.0, 1)
    assert len(history) == 11
    assert any(row[0] == "FPR_TPR95" for row in history)
    folder = root / "runs" / "mlartifacts" / parent / "artifacts"
    assert (folder / "pictures" / "picture.png").read_bytes() == b"png"
    assert "latent: 8" in (folder / "config.yaml").read_text()


def test_no_user_names_and_paths_in_the_store(whole):
    root, _ = whole
    out = root / "runs" / "anomaly"
    database = root / "runs" / "mlflow.db"
    (text,) = (path.read_text() for path in (root / "runs").glob("mlartifacts/*/artifacts/config.yaml"))
    places = {str(value) for row in rows(database, "select artifact_location from experiments") for value in row}
    places |= {str(value) for row in rows(database, "select artifact_uri from runs") for value in row}
    connection = sqlite3.connect(database)
    dump = "\n".join(connection.iterdump())
    connection.close()
    # MLflow makes the artifact location of a local store absolute; nothing else may hold a path.
    for place in places:
        dump = dump.replace(place, "")
    for place in (dump, text, (out / journal.NAME).read_text()):
        assert str(root) not in place
        assert CANARY not in place


def test_sending_twice_adds_nothing(whole):
    root, _ = whole
    out = root / "runs" / "anomaly"
    database = root / "runs" / "mlflow.db"
    before = rows(database, "select count(*) from metrics")
    assert tracking.sync(out) == 0
    (out / journal.CURSOR).unlink()
    assert tracking.sync(out) > 0
    assert rows(database, "select count(*) from metrics") == before
    assert len(rows(database, "select * from runs")) == 2


def test_a_dead_server_costs_no_time_and_no_entry(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{closed_port()}")
    out = tmp_path / "runs" / "a"
    opened = time.perf_counter()
    with tracking.start("dead", out, config={"a": 1}, seed=0) as run:
        assert "secret" not in run.store
        begun = time.perf_counter()
        with run.stage("train") as stage:
            for step in range(200):
                stage.log_metrics({"loss": step / 2, "kl": 1.0}, step)
        assert time.perf_counter() - begun < 1
    assert time.perf_counter() - opened < 30
    with pytest.raises(DataError, match=r"what it lacks is kept in .*journal\.jsonl; try again"):
        tracking.sync(out)
    assert "kept in" in caplog.text
    assert "secret" not in caplog.text

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.sync(out) > 200
    assert tracking.sync(out) == 0
    database = tmp_path / "runs" / "mlflow.db"
    found = runs(database)
    assert {status for status, _ in found.values()} == {"FINISHED"}
    values = rows(database, "select step,value from metrics where key='loss' order by step")
    assert values == [(step, step / 2) for step in range(200)]
    # Another store gets everything again, whatever the cursor says.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    tracking.sync(out)
    assert len(rows(tmp_path / "other.db", "select * from metrics")) == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("secret"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(2), "FAILED"),
        (SystemExit(0), "FINISHED"),
    ],
)
def test_status_of_run_and_stage_follow_the_exception(tmp_path, monkeypatch, error, status):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")

    def go() -> None:
        with tracking.start("r", tmp_path / "a", config={}, seed=0) as run, run.stage("s"):
            raise error

    with pytest.raises(type(error)):
        go()
    ends = [entry["status"] for entry, _ in journal.entries(tmp_path / "a" / journal.NAME) if entry["kind"] == "end"]
    assert ends == [status, status]
    assert "secret" not in (tmp_path / "a" / journal.NAME).read_text()


SCRIPT = """
import sys, time
from pathlib import Path
from medgen.runs import tracking
with tracking.start("slow", Path(sys.argv[1]), config={}, seed=0) as run, run.stage("train") as stage:
    stage.log_metrics({"loss": 1.0})
    print("ready", flush=True)
    time.sleep(60)
"""


def test_sigterm_is_killed_and_kill_9_is_found_out_later(tmp_path):
    outs = [tmp_path / "runs" / "a", tmp_path / "runs" / "b"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tracking.__file__).parents[1])}
    started = []
    for out in outs:
        command = [sys.executable, "-c", SCRIPT, str(out)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
    started[0].send_signal(signal.SIGTERM)
    started[1].kill()
    assert started[0].wait(30) == 143
    assert started[1].wait(30) == -9
    database = tmp_path / "runs" / "mlflow.db"
    tracking.sync(outs[1])
    assert [status for (status,) in rows(database, "select status from runs")] == ["KILLED"] * 4


def test_a_handler_that_is_there_runs_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))

    def go() -> None:
        with tracking.start("r", tmp_path / "a", config={}, seed=0):
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(SystemExit) as stopped:
            go()
        assert stopped.value.code == 143
        assert seen == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_disabled_keeps_nothing(tmp_path):
    with tracking.start("r", tmp_path / "a", config={}, seed=0, enabled=False) as run, run.stage("s") as stage:
        stage.log_metrics({"a": 1})
        stage.log_text("x", "x.txt")
    assert not (tmp_path / "a").exists()
    with pytest.raises(DataError, match=r"no journal\.jsonl"):
        tracking.sync(tmp_path / "a")


def test_last_run_names_the_newest_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    assert tracking.last_run(tmp_path) is None
    for seed in (1, 2):
        with tracking.start("r", tmp_path, config={}, seed=seed) as run, run.stage("s"):
            pass
    found = tracking.last_run(tmp_path)
    assert found is not None
    assert (found["medgen.run"], found["medgen.seed"]) == (run.id, "2")


def test_the_experiment_is_the_one_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ward 7")
    with tracking.start("train", tmp_path / "runs" / "a", config={}, seed=0):
        pass
    found = rows(tmp_path / "runs" / "mlflow.db", "select e.name from runs r join experiments e using (experiment_id)")
    assert found == [("ward 7",)]


def test_a_run_that_mlflow_started_becomes_the_parent(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    database = tmp_path / "runs" / "mlflow.db"
    with tracking.start("first", tmp_path / "runs" / "a", config={}, seed=0):
        pass
    parent = rows(database, "select run_uuid from runs")[0][0]
    for known, given in ((True, parent), (False, "0" * 32)):
        monkeypatch.setenv("MLFLOW_RUN_ID", given)
        with tracking.start("train", tmp_path / "runs" / f"b{known}", config={}, seed=0) as run:
            pass
        own = f"select run_uuid from tags where value='{run.id}'"
        tags = dict(rows(database, f"select key,value from tags where run_uuid in ({own})"))
        assert tags.get("mlflow.parentRunId") == (parent if known else None)


def test_a_store_that_may_only_be_read_is_one_sentence(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracking.start("first", tmp_path / "runs" / "a", config={}, seed=0):
        pass
    # Root may write whatever the mode says.
    granted = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "mlflow.db" and granted(path, mode))
    capfd.readouterr()
    caplog.clear()
    with tracking.start("train", tmp_path / "runs" / "b", config={}, seed=0):
        pass
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "mlflow.db may only be read" in said[0]
    assert "Traceback" not in capfd.readouterr().err
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.sync(tmp_path / "runs" / "b") > 0


def test_where_a_new_store_goes_is_said_before_it_is_made(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for said in (True, False):
        with tracking.start("train", tmp_path / "runs" / str(said), config={}, seed=0):
            told = capfd.readouterr().err
            assert ("mlartifacts" in told) is said
            assert ("MLFLOW_TRACKING_URI names another" in told) is said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/here.db")
    assert tracking.place(tmp_path / "runs" / "c").endswith("as MLFLOW_TRACKING_URI says")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    assert tracking.place(tmp_path / "runs" / "c") == "MLflow store: http://127.0.0.1:9"
