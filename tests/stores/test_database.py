"""A database that runs are written to without a server."""

from __future__ import annotations

import importlib.abc
import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres import PASSWORD, Postgres
from runs import STEPS, arrive, check, track

from medgen.errors import DataError
from medgen.runs import environment, journal, tracking
from medgen.runs.store import database as database_store
from medgen.runs.store import mlflow_store

ROOT = Path(tracking.__file__).parents[2]


@pytest.fixture(scope="module")
def template(postgres) -> str:
    """A database that MLflow has set up, to copy."""
    postgres.new("template-mlflow")
    mlflow_store.import_mlflow("postgresql://")
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(postgres.address("template-mlflow"), "unused").engine.dispose()
    return "template-mlflow"


def test_a_run_arrives_whole_and_its_files_lie_in_s3(postgres, template, s3, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.new("whole", template))
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://medgen/direct/")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    out = tmp_path / "run"
    assert environment.look_at_store(out) == (", answers", "")
    track(out)
    assert caplog.text == ""
    assert check(postgres, "whole", [out])["runs"] == 2
    found = {
        name.rpartition("/artifacts/")[2]: name for name in s3.names("medgen") if name.startswith("direct/medgen/")
    }
    assert set(found) == {"config.yaml", "note.txt", "tables/table.csv"}
    assert s3.read("medgen", found["tables/table.csv"]) == (out / "table.csv").read_bytes()


def test_files_lie_beside_the_run_where_no_place_is_named(postgres, template, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.new("beside", template))
    monkeypatch.chdir(tmp_path)
    track(tmp_path / "runs" / "a")
    assert [path.read_text() for path in (tmp_path / "runs" / "mlartifacts").rglob("note.txt")] == ["hello"]
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


FRESH = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from medgen.runs import tracking
from medgen.runs.store import mlflow_store
from runs import track
mlflow_store.import_mlflow("postgresql://")
ready, go = os.pipe()
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        tracking._CLOSE_SERVER = 60.0
        track(Path(sys.argv[2]) / str(number))
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


def test_an_empty_database_is_set_up_once_by_whoever_comes_first(postgres, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.new("fresh"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}")
    assert environment.look_at_store(tmp_path / "0") == (", empty: the first run sets it up", "")
    command = [sys.executable, "-c", FRESH, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert check(postgres, "fresh", [tmp_path / str(number) for number in range(4)])["runs"] == 8


def wrong_password(postgres: Postgres, template: str) -> tuple[str, str]:
    address = postgres.address(template, password="bad-secret")
    return address, "the database does not accept user name and password; correct them in MLFLOW_TRACKING_URI"


def no_database(postgres: Postgres, template: str) -> tuple[str, str]:
    return postgres.address("none"), "there is no database none; make it (createdb none) or name another"


def nobody_there(postgres: Postgres, template: str) -> tuple[str, str]:
    return "postgresql://ann:bad-secret@127.0.0.1:9/mlflow", "nobody answers there; start the server"


def no_rights(postgres: Postgres, template: str) -> tuple[str, str]:
    postgres.new("rights", template)
    postgres.do("create role weak login password 'bad-secret'")
    return postgres.address("rights", "weak", "bad-secret"), "this database user may not write"


def no_connection_left(postgres: Postgres, template: str) -> tuple[str, str]:
    postgres.do("create role few login password 'bad-secret' connection limit 0")
    return postgres.address(template, "few", "bad-secret"), "the database takes no more connections"


def older(postgres: Postgres, template: str) -> tuple[str, str]:
    """As MLflow left it some releases ago: what came later is not there."""
    address = postgres.new("older", template)
    postgres.do("update alembic_version set version_num = 'bd07f7e963c5'", database="older")
    return address, "the database is of an older MLflow (schema bd07f7e963c5;"


def newer(postgres: Postgres, template: str) -> tuple[str, str]:
    address = postgres.new("newer", template)
    postgres.do("update alembic_version set version_num = 'ffffffffffff'", database="newer")
    return address, "the database is of a newer MLflow (schema ffffffffffff, which MLflow"


@pytest.mark.parametrize(
    "fault", [wrong_password, no_database, nobody_there, no_rights, no_connection_left, older, newer]
)
def test_a_refusal_is_told_within_seconds_and_nothing_is_lost(fault, postgres, template, tmp_path, monkeypatch, caplog):
    """MLflow's own client tries a database that refuses it for a hundred seconds."""
    monkeypatch.setattr(tracking, "_CLOSE_SERVER", 6.0)
    address, said = fault(postgres, template)
    schema = postgres.do("select version_num from alembic_version", database="older") if fault is older else None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    out = tmp_path / "run"
    begun = time.monotonic()
    track(out)
    assert time.monotonic() - begun < 5
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert said in told[0]
    assert f"kept in {out / journal.NAME}, and medgen audit sync {out} sends it" in told[0]
    with pytest.raises(DataError, match=re.escape(said)) as refused:
        tracking.sync(out)
    _, hint = environment.look_at_store(out)
    assert hint.startswith(said)
    assert not [text for text in (told[0], str(refused.value), hint) if "bad-secret" in text or PASSWORD in text]
    if fault is older:
        assert postgres.do("select version_num from alembic_version", database="older") == schema
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.new(f"healed-{fault.__name__}", template))
    arrive(out)
    check(postgres, f"healed-{fault.__name__}", [out])


class Missing(importlib.abc.MetaPathFinder):
    """A package that is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named '{self.name}'", name=self.name)


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for known in [known for known in sys.modules if known.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setattr(sys, "meta_path", [Missing(name), *sys.meta_path])


def test_a_driver_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, caplog):
    without(monkeypatch, "psycopg")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:bad-secret@127.0.0.1:9/mlflow")
    track(tmp_path / "run")
    assert "the driver of PostgreSQL is not installed; install medgen[postgresql]" in caplog.text
    assert "install medgen[postgresql]" in environment.look_at_store(tmp_path / "run")[1]


def test_numbers_arrive_where_the_client_of_s3_is_missing(postgres, template, s3, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.new("no-client", template))
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://medgen/no-client")
    # MLflow keeps the client of an address that it has talked to.
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url.replace("127.0.0.1", "localhost"))
    out = tmp_path / "run"
    with monkeypatch.context() as narrow:
        without(narrow, "boto3")
        track(out)
    assert "the client of S3 is not installed; install medgen[s3]" in caplog.text
    check(postgres, "no-client", [out])
    arrive(out)
    assert len([name for name in s3.names("medgen") if name.startswith("no-client/")]) == 3


def bucket_gone(s3, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://elsewhere/x")
    return lambda: s3.client().create_bucket(Bucket="elsewhere")


def full(s3, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    s3.full = True
    return lambda: setattr(s3, "full", False)


@pytest.mark.parametrize(
    ("fault", "said"), [(bucket_gone, "the bucket for files is not there"), (full, "the store is full; make room")]
)
def test_a_refusal_of_s3_is_told_and_holds_no_number_back(
    fault, said, postgres, template, s3, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.new(fault.__name__, template))
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", f"s3://medgen/{fault.__name__}")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    heal = fault(s3, monkeypatch)
    out = tmp_path / "run"
    track(out)
    assert said in caplog.text
    check(postgres, fault.__name__, [out])
    heal()
    arrive(out)
    check(postgres, fault.__name__, [out])


def test_what_is_a_database(tmp_path):
    assert database_store.is_database("postgresql+psycopg://h/d")
    assert mlflow_store.artifact_place("https://host", tmp_path, "medgen") is None


def test_a_server_of_another_first_number_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    monkeypatch.setattr(mlflow_store, "answers", lambda uri: "1.30.0")
    assert environment.look_at_store(tmp_path)[1].startswith("the server is MLflow 1.30.0, here is ")


def test_a_full_database_file_is_told_and_nothing_is_lost(tmp_path, monkeypatch, caplog):
    """SQLite may not grow the file by a single page, and says what it says on a full disk."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    track(tmp_path / "before")
    out = tmp_path / "run"

    def full(connection, _):
        pages = connection.execute("pragma page_count").fetchone()[0]
        connection.execute(f"pragma max_page_count = {pages}")

    # The engine that MLflow keeps for an address has connections that know no limit yet: another spelling, another one.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}//mlflow.db")
    event.listen(Engine, "connect", full)
    try:
        track(out, {5: lambda: time.sleep(0.2)})
    finally:
        event.remove(Engine, "connect", full)
    assert "the store is full; make room there" in caplog.text
    assert "medgen audit sync" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    arrive(out)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        (points,) = database.execute("select count(*) from metrics").fetchone()
        (runs,) = database.execute("select count(*) from runs where status = 'FINISHED'").fetchone()
    database.close()
    assert (points, runs) == (2 * 2 * STEPS, 4)
