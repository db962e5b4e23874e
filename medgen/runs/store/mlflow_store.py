"""One MLflow store, as a run sees it: a journal goes in, and an entry that is sent twice is there once.

Only this file and :mod:`medgen.runs.store` import mlflow. Names in the store are medgen's, never the user's; only
MLflow's own ``artifact_uri`` of a local store holds a path, because MLflow makes it absolute.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen.errors import DataError
from medgen.runs.journal import NAME, Cursor, entries, locked, store_uri
from medgen.runs.store import database as database_store
from medgen.runs.store.faults import about_the_store, deleted, sentence
from medgen.runs.store.imported import import_mlflow
from medgen.runs.store.inputs import send_dataset
from medgen.runs.store.models import NOTE, link, register
from medgen.runs.store.refusals import FINAL, UNKNOWN, unless_refused
from medgen.runs.store.shown import send_image, send_table
from medgen.system import files
from medgen.system.modes import file_mode, make_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)

# MLflow takes 1000 metrics, 100 parameters and 100 tags in one call.
_CHUNK, _SMALL_CHUNK = 1000, 100
_EXPERIMENT = "medgen"
# Where a run has this tag, its name says which cohort it was.
COHORT = "medgen.cohort"
# Artifacts may lie on another machine than the numbers: after so many failures the others wait for the next attempt.
_ARTIFACT_FAILURES = 2
# Entries that are sent one by one, and later if the store does not take them when it is their turn.
_APART = ("text", "file", "table", "image", "dataset", "model", "model used")
# What the experiment's page says above its runs.
_ABOUT = """Runs of medgen. A run's description is the first screen of its report; its stages are the runs below it.

* **Which is best?** Sort by a column such as `test.voxel_ap`, or select runs and compare them.
* **Which data, which model?** The columns *Dataset* and *Models*, and the tags `medgen.manifest.sha256` and
  `medgen.model.version`.
* **Who made it?** The tags `medgen.version`, `medgen.commit`, `medgen.dirty` and `version.*`.
"""


class MlflowStore:
    """A connection to the MLflow store of one run folder; only the thread that made it uses it."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._uri = store_uri(out)
        self._cursor = Cursor.load(out, hashlib.sha256(self._uri.encode()).hexdigest())
        self._client = connect(self._uri)
        # `mlflow run` starts a run of its own and hands its id on: ours goes below it.
        started = os.environ.get("MLFLOW_RUN_ID", "").strip()
        self._parent = started if started and self._knows(started) else None
        self._experiment = self._find_experiment()
        # A store that was deleted or set up afresh gets everything again.
        if not all(self._knows(run) for run in self._cursor.runs.values()):
            self._cursor = Cursor(self._cursor.store)
        # What went wrong with artifacts in the present attempt.
        self._failures: list[Exception] = []

    def _find_experiment(self) -> str:
        if self._parent is not None:
            return str(self._client.get_run(self._parent).info.experiment_id)
        name = experiment_name()
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = artifact_place(self._uri, self._out, name)
            try:
                return str(self._client.create_experiment(name, place, tags={NOTE: _ABOUT}))
            except Exception:
                # Another process may have been quicker.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise deleted(name, str(found.experiment_id))
        return str(found.experiment_id)

    def _knows(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run)
        except MlflowException as error:
            if error.error_code == UNKNOWN:
                return False
            raise
        return True

    def send(self) -> int:
        """Send what the journal has beyond the cursor; the number of entries.

        Raises:
            Exception: If the store does not answer; or, once everything else is sent, if it did not take an artifact.
        """
        self._failures.clear()
        total = self._send_late()
        while chunk := list(itertools.islice(entries(self._out / NAME, self._cursor.offset), _CHUNK)):
            starts = [self._cursor.offset, *(end for _, end in chunk[:-1])]
            late = self._send_chunk([entry for entry, _ in chunk], starts)
            self._cursor.late += late
            self._cursor.offset = chunk[-1][1]
            self._cursor.save(self._out)
            total += len(chunk) - len(late)
        if self._failures:
            raise self._failures[0]
        return total

    def _send_late(self) -> int:
        """Artifacts that were not taken when it was their turn; those that fail again go to the end of the queue."""
        done = 0
        for start in tuple(self._cursor.late):
            entry, _ = next(entries(self._out / NAME, start), ({"kind": "gone", "run": ""}, start))
            self._cursor.late.remove(start)
            if entry["kind"] not in _APART or entry["run"] not in self._cursor.runs:
                continue  # the journal or the cursor was damaged
            sent = self._send_artifact(entry)
            self._cursor.late += [] if sent else [start]
            self._cursor.save(self._out)
            done += sent
        return done

    def _send_chunk(self, chunk: list[dict[str, Any]], starts: list[int]) -> list[int]:
        """Send entries that begin at ``starts`` in the journal; where those begin whose artifact was not taken."""
        for entry in chunk:
            if entry["kind"] == "start":
                self._create(entry)
        # Few calls with many values, each run's in order; a run's end comes last, when all it has is there.
        for run in dict.fromkeys(entry["run"] for entry in chunk):
            if run not in self._cursor.runs:
                _LOG.warning("%s: run %s has no start; its entries are passed over", self._out / NAME, run)
                continue
            self._send_run(self._cursor.runs[run], [entry for entry in chunk if entry["run"] == run])
        late = [
            start
            for entry, start in zip(chunk, starts, strict=True)
            if entry["kind"] in _APART and entry["run"] in self._cursor.runs
            if not self._send_artifact(entry)
        ]
        for entry in chunk:
            if entry["kind"] == "end" and entry["run"] in self._cursor.runs:
                run, moment = self._cursor.runs[entry["run"]], entry.get("ended", entry["time"])
                self._unless_refused(self._client.set_terminated, run, entry["status"], moment)
        return late

    def _create(self, entry: dict[str, Any]) -> None:
        run, parent, tags = entry["run"], entry.get("parent"), entry["tags"]
        if run in self._cursor.runs:
            return
        # The answer to an earlier attempt may have been lost.
        found = self._client.search_runs([self._experiment], f"tags.`medgen.run` = '{run}'", max_results=1)
        if not found:
            own = {"mlflow.user": "medgen", "mlflow.source.name": "medgen", "mlflow.source.type": "LOCAL"}
            if "medgen.commit" in tags:
                own["mlflow.source.git.commit"] = tags["medgen.commit"]
            if parent in self._cursor.runs:
                own["mlflow.parentRunId"] = self._cursor.runs[parent]
            elif self._parent is not None:
                own["mlflow.parentRunId"] = self._parent
            named = [entry["name"], *([tags[COHORT]] if COHORT in tags else []), run[:8]]
            title = entry["name"] if parent else "-".join(named)
            made = self._client.create_run(
                self._experiment, start_time=entry.get("began", entry["time"]), tags={**tags, **own}, run_name=title
            )
            found = [made]
        self._cursor.runs[run] = found[0].info.run_id

    def _send_run(self, run: str, own: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(name, float(value), entry["time"], entry["step"])
            for entry in own
            if entry["kind"] == "metrics"
            for name, value in entry["values"].items()
        ]
        params = {k: v for entry in own if entry["kind"] == "params" for k, v in entry["values"].items()}
        tags = {k: v for entry in own if entry["kind"] == "tags" for k, v in entry["values"].items()}
        for batch in _chunks(metrics, _CHUNK):
            self._log(run, "metrics", batch)
        for batch in _chunks([Param(*item) for item in params.items()], _SMALL_CHUNK):
            self._log(run, "params", batch)
        for batch in _chunks([RunTag(*item) for item in tags.items()], _SMALL_CHUNK):
            self._log(run, "tags", batch)

    def _send_artifact(self, entry: dict[str, Any]) -> bool:
        """Send what is no number; False if it is not taken now, which must not hold up the numbers that follow."""
        if len(self._failures) >= _ARTIFACT_FAILURES:
            return False
        run = self._cursor.runs[entry["run"]]
        try:
            if entry["kind"] == "text":
                self._unless_refused(self._client.log_text, run, entry["text"], entry["name"])
            elif entry["kind"] == "file":
                self._send_file(run, entry)
            elif entry["kind"] == "table":
                if (path := self._as_meant(entry)) is not None:
                    send_table(self._client, run, entry["name"], path.read_text(encoding="utf-8"))
            elif entry["kind"] == "image":
                if (path := self._as_meant(entry)) is not None:
                    send_image(self._client, run, entry, path)
            elif entry["kind"] == "dataset":
                self._unless_refused(send_dataset, self._client, run, entry)
            elif entry["kind"] == "model":
                self._unless_refused(register, self._client, run, entry)
            else:
                self._unless_refused(link, self._client, run, entry["sha256"])
        except Exception as error:  # whatever the client of an artifact store raises
            self._failures.append(error)
            return False
        return True

    def _log(self, run: str, kind: str, batch: list[Any]) -> None:
        """Send a batch; of one that the store refuses, everything but the entries that are at fault."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(run, **{kind: batch})
        except MlflowException as error:
            if error.error_code not in FINAL or error.error_code == UNKNOWN:
                raise
            self._unless_of_the_store(error)
            if len(batch) == 1 or self._client.get_run(run).info.lifecycle_stage != "active":
                _LOG.warning("MLflow refused an entry: %s", sentence(error))
                return
            middle = len(batch) // 2
            self._log(run, kind, batch[:middle])
            self._log(run, kind, batch[middle:])

    def _send_file(self, run: str, entry: Mapping[str, Any]) -> None:
        if (path := self._as_meant(entry)) is not None:
            self._unless_refused(self._client.log_artifact, run, str(path), entry["folder"] or None)

    def _as_meant(self, entry: Mapping[str, Any]) -> Path | None:
        """The file of an entry; None where it is gone or changed.

        The journal says which content was meant: whatever else lies there now, inside the run or outside, stays here.
        """
        path = self._out / str(entry["path"])
        try:
            found = files.sha256_file(path)
        except DataError:
            found = "gone"
        if found == entry.get("sha256"):
            return path
        _LOG.warning("%s: %s before it was sent", path.name, "gone" if found == "gone" else "changed")
        return None

    def _unless_refused(self, call: Callable[..., object], *arguments: Any) -> None:
        unless_refused(call, *arguments, check=self._unless_of_the_store)

    def _unless_of_the_store(self, error: Exception) -> None:
        """Raise if a refusal is not the entry's fault: passed over, the entry would be lost for good."""
        if about_the_store(error):
            raise error
        found = self._client.get_experiment(self._experiment)
        if found.lifecycle_stage != "active":
            raise deleted(found.name, self._experiment) from error


def connect(uri: str) -> MlflowClient:
    """A client of the store at that address; a database file that is not there yet is made.

    Raises:
        DataError: If a database file may only be read.
    """
    import_mlflow(uri)
    from mlflow import MlflowClient

    if database_store.is_database(uri):
        with database_store.alone(uri):
            client = MlflowClient(uri)
            client.get_experiment_by_name(_EXPERIMENT)
        return client
    if not is_sqlite(uri):
        return MlflowClient(uri)
    _check_writable(database(uri))
    # Processes that set a fresh database up at the same time crash.
    with locked(database(uri).parent / ".mlflow.lock"):
        if not database(uri).exists():
            _set_up(database(uri))
        else:
            with database_store.reached(uri) as connection:
                database_store.check_version(connection)
        client = MlflowClient(uri)
        client.get_experiment_by_name(_EXPERIMENT)
    return client


def _check_writable(file: Path) -> None:
    """Refuse a database that can be read only; SQLite keeps its own journal beside it.

    Raises:
        DataError: Saying which, and what to do.
    """
    for path in (file, file.parent):
        if path.exists() and not os.access(path, os.W_OK):
            raise DataError(
                f"{path.name} may only be read (no permission to write); set MLFLOW_TRACKING_URI to another store and "
                "send the run with medgen audit sync"
            )


def _set_up(database: Path) -> None:
    """Make a database that is complete from its first moment: MLflow cannot open one whose making was interrupted."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    begun = database.with_name(f".{database.name}.new")
    for left in (begun, Path(f"{begun}-journal")):
        left.unlink(missing_ok=True)
    # Set up here, MLflow's default experiment would keep the folder the command was started in.
    store = SqlAlchemyStore(f"sqlite:///{begun.as_posix()}", f"{database.parent.as_posix()}/mlartifacts")
    store.engine.dispose()
    # MLflow makes files and folders as the process' umask says, which is anything where medgen is a library.
    make_folder(database.parent / "mlartifacts")
    begun.chmod(file_mode())
    begun.replace(database)


def answers(uri: str) -> str:
    """Ask a store that is there for the experiment of runs; the version of its server, empty for a database.

    Raises:
        DataError: If the experiment has been deleted.
        Exception: Whatever the client raises.
    """
    import_mlflow(uri)
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    found = MlflowClient(uri).get_experiment_by_name(experiment_name())
    if found is not None and found.lifecycle_stage != "active":
        raise deleted(found.name, str(found.experiment_id))
    if not uri.startswith("http"):
        return ""
    answer = http_request(get_default_host_creds(uri), "/version", "GET")
    return answer.text.strip()[:20] if answer.status_code == 200 else "of an unknown version"


def experiment_name() -> str:
    """The experiment that runs go to: ``MLFLOW_EXPERIMENT_NAME``, else ``medgen``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or _EXPERIMENT


def artifact_place(uri: str, out: Path, name: str) -> str | None:
    """Where a new experiment keeps files; None where a server decides.

    For a database without a server that is ``MLFLOW_DEFAULT_ARTIFACT_ROOT``, which ``mlflow server`` reads too, or
    ``mlartifacts`` beside the database file or the run's folder: MLflow itself would take the folder that the command
    was started in.
    """
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").strip().rstrip("/")
    if is_sqlite(uri) or database_store.is_database(uri):
        beside = database(uri).parent if is_sqlite(uri) else out.resolve().parent
        return f"{root}/{name}" if root else f"{beside.as_posix()}/mlartifacts"
    return None


def is_sqlite(uri: str) -> bool:
    """Whether a store is a database file."""
    return uri.startswith("sqlite:")


def database(uri: str) -> Path:
    """The file of a store that is one."""
    return Path(uri.partition(":///")[2]).resolve()


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
