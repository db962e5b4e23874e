"""Runs in MLflow that outlive a dead server: everything is written to a journal first and sent from another thread.

A run's folder holds ``journal.jsonl`` (what happened) and ``journal.cursor`` (how much of it the store has);
:func:`sync` sends the rest later. Absolute paths are cut to their last name. What the store gets is the work of
:mod:`medgen.runs.store.mlflow_store`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

from medgen.errors import DataError, MedgenError
from medgen.runs import environment
from medgen.runs.journal import LOCK, NAME, Journal, chosen_store, entries, locked, open_runs, store_uri
from medgen.runs.plain_text import printable, scrub
from medgen.runs.run import Run
from medgen.runs.store.faults import sentence, unsent
from medgen.runs.store.imported import import_mlflow
from medgen.runs.store.mlflow_store import MlflowStore, database, is_sqlite
from medgen.runs.store.system_metrics import watched
from medgen.system import files
from medgen.system.signals import terminable_until_closing

__all__ = ["MAY_CHANGE", "Run", "config_digest", "last_run", "place", "replaying", "start", "sync"]

# Where and how fast a run computes may change between the first try and its resumption; what it computes may not.
MAY_CHANGE = ("out", "device", "workers", "executor", "resources", "check_resources")

# Id of the run that is made again in this context.
_REPLAYED: ContextVar[str] = ContextVar("replayed", default="")

_LOG = logging.getLogger(__name__)

# Seconds that the end of a run waits for what is left to be sent: to a server, to a database file, after a signal.
_CLOSE_SERVER, _CLOSE_DATABASE, _CLOSE_HURRY = 20.0, 120.0, 8.0
# Seconds between two looks at the journal, and the longest between two attempts that failed.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


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
    late: bool = False,
) -> Iterator[Run]:
    """Track a whole pipeline run; stages are its children.

    Args:
        name: Pipeline, such as ``"anomaly"``.
        out: The run's folder; the journal is kept there.
        config: The configuration as resolved: logged as parameters, as ``config.yaml`` (absolute paths cut to their
            last name) and as :func:`config_digest`.
        seed: The run's seed.
        manifest_digest: SHA-256 of the cohort, see ``Manifest.digest``.
        tags: Further facts, such as the device.
        enabled: False keeps nothing, for ranks other than the first.
        late: Make a database file that is not there yet only once a stage has finished, or the run has ended otherwise
            than by a refusal: for commands that often refuse what they are given, which then leave no store behind.

    Yields:
        The run. On the way out it becomes FAILED on an exception, KILLED on SIGTERM, Ctrl-C or exit code 143 (130),
        and FINISHED otherwise; what is not sent within 20 s (120 s for a database file, 8 s after a
        signal) stays in the journal.
    """
    out = Path(out)
    if not enabled:
        yield Run(name, out, None)
        return
    facts = {**_facts(seed, manifest_digest, config), **(tags or {})}
    if replayed := _REPLAYED.get():
        with closing(Journal(out)) as kept:
            run = Run(name, out, kept)
            run.id = replayed
            with run.recorded(facts):
                yield run
        return
    uri = store_uri(out)
    if is_sqlite(uri) and not database(uri).exists():
        print(f"medgen: {place(out)}", file=sys.stderr)
    journal = Journal(out)
    with ExitStack() as lock, terminable_until_closing() as ending:
        held = lock.enter_context(locked(out / LOCK, wait=False))
        _end_killed(journal)
        # The lock is the sender's: one that waits for a slow answer may still be at work when the run is over, and who
        # sent the same entries meanwhile would make the run a second time.
        sender = _Sender(out, lock.pop_all(), held, late)
        run = Run(name, out, journal)
        hurry = refused = False
        try:
            with run.recorded(facts), watched(run.log_metrics, out):
                run.log_params(config)
                run.log_text(
                    yaml.safe_dump(scrub(files.plain(config)), sort_keys=False, allow_unicode=True), "config.yaml"
                )
                yield run
        except (SystemExit, KeyboardInterrupt):
            hurry = True
            raise
        except MedgenError:
            refused = True
            raise
        finally:
            ending.set()
            journal.close()
            sender.close(hurry, refused)


@contextmanager
def replaying(run_id: str) -> Iterator[None]:
    """Inside, a run that starts is another one made again: it bears its id, and no store is told."""
    token = _REPLAYED.set(run_id)
    try:
        yield
    finally:
        _REPLAYED.reset(token)


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


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the settings that results depend on, the same from memory and from ``config.yaml``.

    Paths count by their last name, and where and how fast a run computes and writes does not count.

    >>> config_digest({"seed": 0, "data": "/a/scans", "out": "x"}) == config_digest({"seed": 0, "data": "scans"})
    True
    """
    kept = {key: value for key, value in files.plain(config).items() if key not in MAY_CHANGE}
    return files.sha256_json(scrub(kept))


def place(out: str | Path) -> str:
    """One line that says where the runs of a folder are tracked, and what will be made there."""
    uri = store_uri(Path(out))
    if not is_sqlite(uri):
        return f"MLflow store: {printable(uri)}"
    file = database(uri)
    new = "" if file.exists() else f" (made new, with artifacts in {file.parent / 'mlartifacts'})"
    why = "as MLFLOW_TRACKING_URI says" if chosen_store() else "MLFLOW_TRACKING_URI names another"
    return f"MLflow store: {file}{new}; {why}"


def last_run(out: str | Path) -> dict[str, str] | None:
    """Id, name and tags of the newest pipeline run whose journal is in ``out``; None if there is none."""
    found: dict[str, str] | None = None
    for entry, _ in entries(Path(out) / NAME):
        if entry["kind"] == "start" and entry.get("parent") is None:
            found = {"medgen.run": entry["run"], "name": str(entry.get("name")), **entry.get("tags", {})}
    return found


def _end_killed(journal: Journal) -> None:
    """End the runs whose process was killed without a chance to do so, at the time of their last sign of life."""
    for run, moment in open_runs(journal.path).items():
        note = "**Its process was killed.** The same command with `--resume` goes on, where it has that."
        journal.append(run, "tags", values={"mlflow.note.content": note})
        journal.append(run, "end", status="KILLED", ended=moment)


def _facts(seed: int, manifest_digest: str | None, config: Mapping[str, Any]) -> dict[str, str | None]:
    source = environment.commit()
    return {
        "medgen.seed": str(seed),
        "medgen.manifest.sha256": manifest_digest,
        "medgen.config.sha256": config_digest(config),
        "medgen.version": environment.versions()["medgen"],
        "medgen.commit": source.id,
        "medgen.dirty": "unknown" if source.dirty is None else str(source.dirty).lower(),
        **{f"version.{name}": version for name, version in environment.versions().items() if name != "medgen"},
    }


class _Sender:
    """A thread that sends the journal while the run goes on, and waits longer after every failure.

    It keeps the journal's lock until it has ended, which may be after :meth:`close` gave up waiting for it. Where
    another process has the lock (``held`` is False), it sends nothing before that one is done.

    Where it is ``late``, a database file that is not there yet is made as :func:`start` says.
    """

    def __init__(self, out: Path, lock: ExitStack, held: bool, late: bool) -> None:
        self._out = out
        self._lock = lock
        self._held = held
        self._closing = threading.Event()
        uri = store_uri(out)
        self._new = late and not chosen_store() and is_sqlite(uri) and not database(uri).exists()
        self._refused = False
        # Importing here, in the main thread: two threads importing overlapping packages can see half-made modules.
        with suppress(Exception):
            import_mlflow(store_uri(out))
        self._thread = threading.Thread(target=self._work, name="medgen-tracking", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        with self._lock:
            self._send_until_closed()

    def _send_until_closed(self) -> None:
        store: MlflowStore | None = None
        pause, warned = _PAUSE, ""
        while True:
            last = self._closing.is_set()
            if self._new and not self._worth_a_store(last):
                if last:
                    return
                self._closing.wait(pause)
                continue
            try:
                store = store or self._open()
                store.send()
                pause = _PAUSE
            except Exception as error:  # the run must go on whatever the store does
                # A server that was set up afresh knows nothing: look again at what it has.
                store = None
                pause = min(2 * pause, _LONGEST_PAUSE)
                # Once, and again at the end if something else is wrong by then.
                if not warned or (last and sentence(error) != warned):
                    _LOG.warning("%s; %s", unsent(store_uri(self._out), error), self._kept())
                warned = sentence(error)
            if last:
                return
            self._closing.wait(pause)

    def _worth_a_store(self, last: bool) -> bool:
        done = any(entry["kind"] == "end" and entry["status"] == "FINISHED" for entry, _ in entries(self._out / NAME))
        if done or (last and not self._refused):
            self._new = False
        return not self._new

    def _open(self) -> MlflowStore:
        if not self._held:
            self._held = self._lock.enter_context(locked(self._out / LOCK, wait=False))
        if not self._held:
            raise DataError("another process is sending this journal")
        return MlflowStore(self._out)

    def close(self, hurry: bool = False, refused: bool = False) -> None:
        """Send the rest; bounded, and without waiting for a server that does not answer.

        Args:
            hurry: The process was asked to end and has no more than seconds.
            refused: The run was refused: a store that is not there yet is not made for it.
        """
        self._refused = refused
        self._closing.set()
        patience = _CLOSE_DATABASE if is_sqlite(store_uri(self._out)) else _CLOSE_SERVER
        self._thread.join(min(patience, _CLOSE_HURRY) if hurry else patience)
        if self._thread.is_alive():
            _LOG.warning("MLflow store %s does not keep up; %s", printable(store_uri(self._out)), self._kept())

    def _kept(self) -> str:
        return f"what it lacks is kept in {self._out / NAME}, and medgen audit sync {self._out} sends it"


def _send_all(out: Path) -> int:
    uri = store_uri(out)
    try:
        return MlflowStore(out).send()
    except Exception as error:
        raise DataError(f"{unsent(uri, error)}; what it lacks is kept in {out / NAME}; try again then") from error
