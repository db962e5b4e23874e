"""The store of a group: ``mlflow server`` with accounts, over TLS, PostgreSQL for numbers and S3 for files."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from postgres import Postgres
from runs import arrive, check, track
from s3 import KEYS, S3
from tracking_server import ADMIN, ADMIN_PASSWORD, TrackingServer

from medgen.errors import DataError
from medgen.runs import environment, journal, tracking
from medgen.runs.store import mlflow_store

DATABASE = "mlflow"
READER, READER_PASSWORD = "ann", "password-of-ann-1"
ROOT = Path(tracking.__file__).parents[2]


@pytest.fixture(scope="module")
def group(postgres, s3, tmp_path_factory) -> Iterator[TrackingServer]:
    postgres.do("create role mlflow login password 'mlflow-password'", "create database mlflow owner mlflow")
    mlflow_store.import_mlflow("postgresql://")
    environment = {**KEYS, "MLFLOW_S3_ENDPOINT_URL": s3.url, "NO_PROXY": "127.0.0.1,localhost"}
    address = postgres.address(DATABASE, "mlflow", "mlflow-password")
    server = TrackingServer(tmp_path_factory.mktemp("server"), address, "s3://medgen/files", environment)
    yield server
    server.kill()


@pytest.fixture
def server(group, monkeypatch) -> TrackingServer:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", group.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(group.authority))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
    experiment(group)
    return group


def client(group: TrackingServer):
    from mlflow import MlflowClient

    return MlflowClient(group.uri)


def experiment(group: TrackingServer) -> str:
    """The number of medgen's experiment, which is made if need be."""
    found = client(group).get_experiment_by_name("medgen")
    return str(found.experiment_id if found else client(group).create_experiment("medgen"))


def files_of(s3: S3, postgres: Postgres, *outs: Path) -> list[dict[str, int]]:
    """For each run folder: name → bytes of what lies in S3 for its runs."""
    own = postgres.do("select value, run_uuid from tags where key = 'medgen.run'", database=DATABASE)
    stored = {str(here): str(there) for here, there in own}
    lying: dict[str, dict[str, int]] = {}
    for name, size in s3.names("medgen").items():
        folder, _, below = name.partition("/artifacts/")
        lying.setdefault(folder.rpartition("/")[2], {})[below] = size
    runs = [{entry["run"] for entry, _ in journal.entries(out / journal.NAME)} for out in outs]
    return [{key: value for run in here for key, value in lying.get(stored[run], {}).items()} for here in runs]


def is_whole(postgres: Postgres, s3: S3, out: Path) -> None:
    check(postgres, DATABASE, [out])
    (found,) = files_of(s3, postgres, out)
    assert found["tables/table.csv"] == (out / "table.csv").stat().st_size
    assert found["note.txt"] == len("hello")
    assert "config.yaml" in found


def test_a_run_arrives_whole(server, postgres, s3, tmp_path, caplog):
    track(tmp_path / "run")
    assert caplog.text == ""
    is_whole(postgres, s3, tmp_path / "run")
    assert tracking.sync(tmp_path / "run") == 0
    assert environment.look_at_store(tmp_path / "run") == (f", answers, MLflow {mlflow_version()}", "")


def mlflow_version() -> str:
    import mlflow

    return str(mlflow.__version__)


class Group:
    """What a fault turns: the environment of the command, and the stores."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: TrackingServer, postgres: Postgres, s3: S3) -> None:
        self.set, self.unset = monkeypatch.setenv, monkeypatch.delenv
        self.server, self.postgres, self.s3 = server, postgres, s3

    def sql(self, *statements: str) -> None:
        self.postgres.do(*statements, database=DATABASE)


Fault = Callable[[Group], Iterator[str]]


def wrong_password(group: Group) -> Iterator[str]:
    group.set("MLFLOW_TRACKING_PASSWORD", "not-this-one")
    yield "user name and password are not accepted; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    group.set("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)


def no_password(group: Group) -> Iterator[str]:
    group.unset("MLFLOW_TRACKING_USERNAME")
    group.unset("MLFLOW_TRACKING_PASSWORD")
    yield "user name and password are asked for"
    group.set("MLFLOW_TRACKING_USERNAME", ADMIN)
    group.set("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)


def unknown_authority(group: Group) -> Iterator[str]:
    group.unset("MLFLOW_TRACKING_SERVER_CERT_PATH")
    yield "the server's certificate is not trusted here; set MLFLOW_TRACKING_SERVER_CERT_PATH"
    group.set("MLFLOW_TRACKING_SERVER_CERT_PATH", str(group.server.authority))


def full_s3(group: Group) -> Iterator[str]:
    group.s3.full = True
    yield "the server could not put a file where it keeps them"
    group.s3.full = False


def full_database(group: Group) -> Iterator[str]:
    """PostgreSQL says what it says where a disk is full, by its own error code."""
    group.sql(
        "create function full_disk() returns trigger language plpgsql as $$ begin "
        "raise exception 'could not extend file \"base/1\": No space left on device' using errcode = '53100'; end $$",
        "create trigger full_disk before insert on metrics execute function full_disk()",
    )
    yield "the server cannot use its database (503); its log says why (a full disk"
    group.sql("drop trigger full_disk on metrics", "drop function full_disk()")


def database_without_rights(group: Group) -> Iterator[str]:
    """MLflow's server answers BAD_REQUEST, as if every single metric were at fault."""
    group.sql("revoke insert on metrics from mlflow")
    yield "this database user may not write"
    group.sql("grant insert on metrics to mlflow")


def deleted_experiment(group: Group) -> Iterator[str]:
    number = experiment(group.server)
    client(group.server).delete_experiment(number)
    yield f"experiment medgen has been deleted; bring it back (mlflow experiments restore -x {number})"
    client(group.server).restore_experiment(number)


def no_permission(group: Group) -> Iterator[str]:
    number = experiment(group.server)
    group.server.administer("users/create", version=2, username=READER, password=READER_PASSWORD)
    group.set("MLFLOW_TRACKING_USERNAME", READER)
    group.set("MLFLOW_TRACKING_PASSWORD", READER_PASSWORD)
    yield "this account may not write to the experiment; ask for EDIT on it"
    group.set("MLFLOW_TRACKING_USERNAME", ADMIN)
    group.set("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
    permission = {"resource_type": "experiment", "resource_id": number, "permission": "EDIT"}
    group.server.administer("users/permissions/grant", version=3, username=READER, **permission)
    group.set("MLFLOW_TRACKING_USERNAME", READER)
    group.set("MLFLOW_TRACKING_PASSWORD", READER_PASSWORD)


# Of these, medgen doctor says the same; it writes nothing, so it cannot know the others.
SEEN = (wrong_password, no_password, unknown_authority, deleted_experiment, no_permission)


@contextmanager
def broken(fault: Fault, group: Group) -> Iterator[str]:
    steps = fault(group)
    try:
        yield next(steps)
    finally:
        assert next(steps, "healed") == "healed"


@pytest.mark.parametrize("fault", [*SEEN, full_s3, full_database, database_without_rights])
def test_a_refusal_is_told_in_one_sentence_and_nothing_is_lost(
    fault, server, postgres, s3, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tracking, "_CLOSE_SERVER", 6.0)
    out = tmp_path / "run"
    with broken(fault, Group(monkeypatch, server, postgres, s3)) as said:
        track(out)
        assert said in caplog.text
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert told == [f"MLflow store {server.uri}: {told[0].partition(': ')[2]}"]
        assert f"kept in {out / journal.NAME}, and medgen audit sync {out} sends it" in told[0]
        with pytest.raises(DataError) as refused:
            tracking.sync(out)
        assert said in str(refused.value)
        found, hint = environment.look_at_store(out)
        assert (said in hint) is (fault in SEEN), (found, hint)
        for text in (caplog.text, str(refused.value), hint):
            assert not [word for word in ("not-this-one", ADMIN_PASSWORD, READER_PASSWORD) if word in text]
    arrive(out)
    is_whole(postgres, s3, out)


def test_an_experiment_that_is_deleted_while_a_run_writes_to_it_takes_nothing_with_it(
    server, postgres, s3, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tracking, "_CLOSE_SERVER", 6.0)
    out = tmp_path / "run"
    group = Group(monkeypatch, server, postgres, s3)
    number = experiment(group.server)
    before = postgres.do("select count(*) from metrics", database=DATABASE)

    def delete() -> None:
        end = time.monotonic() + 20
        while postgres.do("select count(*) from metrics", database=DATABASE) == before:
            assert time.monotonic() < end, "no point came"
            time.sleep(0.02)
        client(group.server).delete_experiment(number)

    track(out, {5: delete})
    assert "experiment medgen has been deleted" in caplog.text
    client(group.server).restore_experiment(number)
    arrive(out)
    is_whole(postgres, s3, out)


MANY = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from medgen.runs import tracking
from medgen.runs.store import mlflow_store
# 64 on two cores need longer than a run's end waits; what is late then is another test's.
tracking._CLOSE_SERVER = 200.0
root, direct, server, count = Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
mlflow_store.import_mlflow(direct)
import boto3, psycopg
import mlflow.store.artifact.s3_artifact_repo
from runs import track
ready, go = os.pipe()
children = []
for number in range(count):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        os.environ["MLFLOW_TRACKING_URI"] = server if number % 4 == 0 else direct
        os.environ["MLFLOW_EXPERIMENT_NAME"] = "medgen" if number % 4 == 0 else "many"
        track(root / f"run-{number:02d}")
        os._exit(0)
    children.append(child)
begun = time.time()
os.close(go)
bad = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
print(f"{time.time() - begun:.1f}")
sys.exit(bad)
"""


@pytest.mark.slow
def test_of_64_runs_at_once_none_is_lost_and_none_doubled(server, postgres, s3, tmp_path, capsys, monkeypatch):
    """48 write to PostgreSQL and S3 themselves, 16 through the server, which all begin at the same moment."""
    direct = postgres.address(DATABASE, "mlflow", "mlflow-password")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://medgen/many")
    command = [sys.executable, "-c", MANY, str(Path(__file__).parent), str(tmp_path), direct, server.uri, "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    outs = [tmp_path / f"run-{number:02d}" for number in range(64)]
    late = 0
    for number, out in enumerate(outs):
        cursor = json.loads((out / journal.CURSOR).read_text())
        if cursor["late"] or cursor["offset"] < (out / journal.NAME).stat().st_size:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri if number % 4 == 0 else direct)
            monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "medgen" if number % 4 == 0 else "many")
            late += tracking.sync(out)
    figures = check(postgres, DATABASE, outs)
    assert figures["runs"] == 2 * 64
    assert list(map(set, files_of(s3, postgres, *outs))) == [{"config.yaml", "note.txt", "tables/table.csv"}] * 64
    with capsys.disabled():
        print(f"\n64 runs at once in {done.stdout.strip()} s: {figures}, {late} entries sent afterwards")
