"""Runs in MLflow that outlive a dead server: everything is written to a journal first and sent from another thread.

The only file that imports mlflow. A run's folder holds ``journal.jsonl`` (what happened) and ``journal.cursor`` (how
much of it the store has); :func:`sync` sends the rest later. Names in the store are medgen's, never the user's, and
absolute paths are cut to their last name; only MLflow's own ``artifact_uri`` of a local store holds a path, because
MLflow makes it absolute.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import yaml

from medgen import environment, files
from medgen.errors import DataError
from medgen.journal import LOCK, NAME, Cursor, Journal, Run, entries, locked, open_runs, printable, scrub, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Run", "last_run", "start", "sync"]

_LOG = logging.getLogger(__name__)

# A server that does not answer must not hold a run up: MLflow's own defaults wait 247 s for one metric.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_CLOSE_SERVER, _CLOSE_DATABASE, _CLOSE_HURRY = 20.0, 120.0, 8.0
# Seconds between two looks at the journal, and the longest between two attempts that failed.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
# MLflow takes 1000 metrics, 100 parameters and 100 tags in one call.
_CHUNK, _SMALL_CHUNK = 1000, 100
_EXPERIMENT = "medgen"
# Artifacts may lie on another machine than the numbers: after so many failures the others wait for the next attempt.
_ARTIFACT_FAILURES = 2
# Answers that repeating cannot change: the entry stays in the journal and is passed over.
_UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
_FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", _UNKNOWN}


@contextmanager
def start(
    name: str,
    out: Path,
    *,
    config: Mapping[str, Any],
    seed: int,
    manifest_digest: str | None = None,
    tags: Mapping[str, str] | None = None,
    enabled: bool = True,
) -> Iterator[Run]:
    """Track a whole pipeline run; stages are its children.

    Args:
        name: Pipeline, such as ``"anomaly"``.
        out: The run's folder; the journal is kept there.
        config: The configuration as resolved: logged as parameters, as ``config.yaml`` (absolute paths cut to their
            last name) and as a SHA-256 of the whole.
        seed: The run's seed.
        manifest_digest: SHA-256 of the cohort, see ``Manifest.digest``.
        tags: Further facts, such as the device.
        enabled: False keeps nothing, for ranks other than the first.

    Yields:
        The run. On the way out it becomes FAILED on an exception, KILLED on SIGTERM, Ctrl-C or exit code 143 (130),
        and FINISHED otherwise; what is not sent within 20 s (120 s for a database file, 8 s after a
        signal) stays in the journal.
    """
    out = Path(out)
    if not enabled:
        yield Run(name, out, None)
        return
    journal = Journal(out)
    with ExitStack() as lock, _terminable() as closing:
        held = lock.enter_context(locked(out / LOCK, wait=False))
        _end_killed(journal)
        # The lock is the sender's: one that waits for a slow answer may still be at work when the run is over, and who
        # sent the same entries meanwhile would make the run a second time.
        sender = _Sender(out, lock.pop_all(), held)
        run = Run(name, out, journal)
        facts = {**_facts(seed, manifest_digest, config), **(tags or {})}
        hurry = False
        try:
            with run.recorded(facts):
                run.log_params(config)
                run.log_text(yaml.safe_dump(scrub(files.plain(config)), sort_keys=False), "config.yaml")
                yield run
        except (SystemExit, KeyboardInterrupt):
            hurry = True
            raise
        finally:
            closing.set()
            journal.close()
            sender.close(hurry)


def sync(out: str | Path) -> int:
    """Send what a run's journal holds and the store lacks; sending twice changes nothing.

    Args:
        out: Folder of a run.

    Returns:
        Number of entries sent; 0 if all are there already, or if the run is still going on or sending.

    Raises:
        DataError: If there is no journal in ``out``, or the store does not answer.
    """
    out = Path(out)
    if not (out / NAME).is_file():
        raise DataError(f"{out}: no journal.jsonl; expected the folder of a tracked run")
    with locked(out / LOCK, wait=False) as held:
        if not held:
            _LOG.info("%s: the run is still going on, or sending; it sends its journal itself", out)
            return 0
        journal = Journal(out)
        _end_killed(journal)
        journal.close()
        return _send_all(out)


def last_run(out: str | Path) -> dict[str, str] | None:
    """Id and tags of the newest pipeline run whose journal is in ``out``; None if there is none."""
    found: dict[str, str] | None = None
    for entry, _ in entries(Path(out) / NAME):
        if entry["kind"] == "start" and entry.get("parent") is None:
            found = {"medgen.run": entry["run"], **entry.get("tags", {})}
    return found


def _end_killed(journal: Journal) -> None:
    """End the runs whose process was killed without a chance to do so, at the time of their last sign of life."""
    for run, moment in open_runs(journal.path).items():
        journal.append(run, "end", status="KILLED", ended=moment)


def _facts(seed: int, manifest_digest: str | None, config: Mapping[str, Any]) -> dict[str, str | None]:
    source = environment.commit()
    return {
        "medgen.seed": str(seed),
        "medgen.manifest.sha256": manifest_digest,
        "medgen.config.sha256": files.sha256_json(config),
        "medgen.version": environment.versions()["medgen"],
        "medgen.commit": source.id,
        "medgen.dirty": "unknown" if source.dirty is None else str(source.dirty).lower(),
        **{f"version.{name}": version for name, version in environment.versions().items() if name != "medgen"},
    }


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Turn SIGTERM into ``SystemExit(143)`` inside the block, so that ``with`` blocks end and the run is KILLED.

    A handler that is there already runs first. Once the yielded event is set, further signals wait for the end.
    """
    closing = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield closing
        return
    before = signal.getsignal(signal.SIGTERM)
    late = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if closing.is_set():
            late.set()
            return
        if callable(before):
            before(number, frame)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield closing
    finally:
        # None: installed by C code, which Python cannot put back.
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if late.is_set():
            if callable(before):
                signal.raise_signal(signal.SIGTERM)
            raise SystemExit(128 + signal.SIGTERM)


class _Store:
    """A connection to the MLflow store of one run folder; only the thread that made it uses it."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._uri = store_uri(out)
        self._cursor = Cursor.load(out, hashlib.sha256(self._uri.encode()).hexdigest())
        self._client = _client(self._uri)
        self._experiment = self._find_experiment()
        # A store that was deleted or set up afresh gets everything again.
        if not all(self._knows(run) for run in self._cursor.runs.values()):
            self._cursor = Cursor(self._cursor.store)
        # What went wrong with artifacts in the present attempt.
        self._failures: list[Exception] = []

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is None:
            place = f"{_database(self._uri).parent.as_posix()}/mlartifacts" if _is_sqlite(self._uri) else None
            try:
                return str(self._client.create_experiment(_EXPERIMENT, artifact_location=place))
            except Exception:
                # Another process may have been quicker.
                found = self._client.get_experiment_by_name(_EXPERIMENT)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _knows(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run)
        except MlflowException as error:
            if error.error_code == _UNKNOWN:
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
            if entry["kind"] not in ("text", "file") or entry["run"] not in self._cursor.runs:
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
            if entry["kind"] in ("text", "file") and entry["run"] in self._cursor.runs
            if not self._send_artifact(entry)
        ]
        for entry in chunk:
            if entry["kind"] == "end" and entry["run"] in self._cursor.runs:
                run, moment = self._cursor.runs[entry["run"]], entry.get("ended", entry["time"])
                _unless_refused(self._client.set_terminated, run, entry["status"], moment)
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
            title = entry["name"] if parent else f"{entry['name']}-{run[:8]}"
            made = self._client.create_run(
                self._experiment, start_time=entry["time"], tags={**tags, **own}, run_name=title
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
        """Send a text or a file; False if it is not taken now, which must not hold up the numbers that follow."""
        if len(self._failures) >= _ARTIFACT_FAILURES:
            return False
        run = self._cursor.runs[entry["run"]]
        try:
            if entry["kind"] == "text":
                _unless_refused(self._client.log_text, run, entry["text"], entry["name"])
            else:
                self._send_file(run, entry)
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
            if error.error_code not in _FINAL or error.error_code == _UNKNOWN:
                raise
            if len(batch) == 1 or self._client.get_run(run).info.lifecycle_stage != "active":
                _LOG.warning("MLflow refused an entry: %s", _short(error))
                return
            middle = len(batch) // 2
            self._log(run, kind, batch[:middle])
            self._log(run, kind, batch[middle:])

    def _send_file(self, run: str, entry: Mapping[str, Any]) -> None:
        # The journal says which content was meant: whatever else lies there now, inside the run or outside, stays here.
        path = self._out / str(entry["path"])
        try:
            found = files.sha256_file(path)
        except DataError:
            found = "gone"
        if found == entry.get("sha256"):
            _unless_refused(self._client.log_artifact, run, str(path), entry["folder"] or None)
        else:
            _LOG.warning("%s: %s before it was sent", path.name, "gone" if found == "gone" else "changed")


class _Sender:
    """A thread that sends the journal while the run goes on, and waits longer after every failure.

    It keeps the journal's lock until it has ended, which may be after :meth:`close` gave up waiting for it. Where
    another process has the lock (``held`` is False), it sends nothing before that one is done.
    """

    def __init__(self, out: Path, lock: ExitStack, held: bool) -> None:
        self._out = out
        self._lock = lock
        self._held = held
        self._closing = threading.Event()
        # Importing here, in the main thread: two threads importing overlapping packages can see half-made modules.
        with suppress(Exception):
            _import_mlflow(store_uri(out))
        self._thread = threading.Thread(target=self._work, name="medgen-tracking", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        with self._lock:
            self._send_until_closed()

    def _send_until_closed(self) -> None:
        store: _Store | None = None
        pause, warned = _PAUSE, False
        while True:
            last = self._closing.is_set()
            try:
                store = store or self._open()
                store.send()
                pause = _PAUSE
            except Exception as error:  # the run must go on whatever the store does
                # A server that was set up afresh knows nothing: look again at what it has.
                store = None
                pause = min(2 * pause, _LONGEST_PAUSE)
                if not warned or last:
                    where = printable(store_uri(self._out))
                    _LOG.warning("MLflow store %s: %s; kept in %s", where, _short(error), self._out / NAME)
                warned = True
            if last:
                return
            self._closing.wait(pause)

    def _open(self) -> _Store:
        if not self._held:
            self._held = self._lock.enter_context(locked(self._out / LOCK, wait=False))
        if not self._held:
            raise DataError("another process is sending this journal")
        return _Store(self._out)

    def close(self, hurry: bool = False) -> None:
        """Send the rest; bounded, and without waiting for a server that does not answer.

        Args:
            hurry: The process was asked to end and has no more than seconds.
        """
        self._closing.set()
        patience = _CLOSE_DATABASE if _is_sqlite(store_uri(self._out)) else _CLOSE_SERVER
        self._thread.join(min(patience, _CLOSE_HURRY) if hurry else patience)
        if self._thread.is_alive():
            _LOG.warning("MLflow store does not keep up; the rest is in %s", self._out / NAME)


def _send_all(out: Path) -> int:
    uri = store_uri(out)
    try:
        return _Store(out).send()
    except Exception as error:
        raise DataError(
            f"MLflow store {printable(uri)}: {_short(error)}; check MLFLOW_TRACKING_URI and try again"
        ) from error


def _import_mlflow(uri: str) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # MLflow's own use of deprecated SQLAlchemy options is no news to the user; the mappers warn once, here.
        warnings.simplefilter("ignore")
        import mlflow.tracking

        if _is_sqlite(uri):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
            from sqlalchemy.orm import configure_mappers

            configure_mappers()


def _client(uri: str) -> MlflowClient:
    _import_mlflow(uri)
    from mlflow import MlflowClient

    if not _is_sqlite(uri):
        return MlflowClient(uri)
    folder = _database(uri).parent
    # Processes that set a fresh database up at the same time crash.
    with locked(folder / ".mlflow.lock"):
        if not _database(uri).exists():
            # Set up here, MLflow's default experiment would keep the folder the command was started in.
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            SqlAlchemyStore(uri, f"{folder.as_posix()}/mlartifacts")
        client = MlflowClient(uri)
        client.get_experiment_by_name(_EXPERIMENT)
    return client


def _is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")


def _database(uri: str) -> Path:
    return Path(uri.partition(":///")[2]).resolve()


def _unless_refused(call: Callable[..., object], *arguments: Any, **options: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        call(*arguments, **options)
    except MlflowException as error:
        if error.error_code not in _FINAL:
            raise
        _LOG.warning("MLflow refused an entry: %s", _short(error))


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _short(error: Exception) -> str:
    # Addresses in messages may hold a password.
    lines = re.sub(r"//[^/\s@]*@", "//", str(error)).strip().splitlines() or [""]
    return f"{error.__class__.__name__}: {lines[0][:200]}"
