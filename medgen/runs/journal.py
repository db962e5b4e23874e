"""The journal of a run: an append-only file that holds everything to be tracked before any server is asked.

One JSON object per line: ``seq`` (0, 1, ...), ``run`` (id), ``time`` (ms since 1970), ``kind``, what belongs to the
kind, and ``chain``, the digest of all lines before (:mod:`medgen.runs.chain`). Timestamps and steps are in the entries,
so that sending an entry twice adds nothing. The last line may be torn after a power cut; it is then ignored and later
entries start on a new line.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from medgen.errors import DataError
from medgen.runs.chain import Head, head_of
from medgen.runs.plain_text import encode
from medgen.system import files
from medgen.system.modes import file_mode, make_folder

_LOG = logging.getLogger(__name__)

NAME = "journal.jsonl"
CURSOR = "journal.cursor"
LOCK = "journal.lock"
# Entries that are held while the disk is full.
_HELD = 100_000
_LINE_LIMIT = 64 << 20


@dataclass
class Cursor:
    """How far a journal has been sent to which store.

    Attributes:
        store: Hash of the store's address; a cursor of another store does not count.
        offset: Bytes of the journal that have been sent.
        runs: Run id here → run id in the store.
        late: Where in the journal the entries begin whose artifact was not taken yet, though it was their turn.
    """

    store: str
    offset: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    late: list[int] = field(default_factory=list)

    @classmethod
    def load(cls, out: Path, store: str) -> Cursor:
        """Read ``out/journal.cursor``; a missing, damaged or foreign one starts from the beginning."""
        with suppress(DataError, KeyError, TypeError, ValueError, AttributeError):
            data = files.read_json(out / CURSOR)
            if data["store"] == store:
                runs = {str(key): str(value) for key, value in data["runs"].items()}
                return cls(store, int(data["offset"]), runs, [int(place) for place in data.get("late", [])])
        return cls(store)

    def save(self, out: Path) -> None:
        """Write the cursor to ``out/journal.cursor``, atomically."""
        files.write_json(out / CURSOR, asdict(self))


class Journal:
    """Appends entries to ``out/journal.jsonl``; safe to use from several threads.

    A full or vanished disk is logged once and does not stop the run: what cannot be tracked must not end a training.
    Entries are then held in memory and written as soon as there is space.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / NAME
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._failed = False
        self._pending: list[dict[str, Any]] = []
        self._head = Head()
        make_folder(out)
        known = [entry for entry, _ in entries(self.path)]
        self._sequence = 1 + max((entry["seq"] for entry in known), default=-1)
        # Time never goes back within a journal, whatever the clock is set to: it is the clock's when the journal is
        # opened, or the last entry's if that is later, and what has passed since by a clock that nobody sets.
        self._last = max((entry["time"] for entry in known), default=0)
        self._offset = max(_now(), self._last) - _passed()

    def append(self, run: str, kind: str, **content: Any) -> None:
        """Add one entry; it has reached the operating system when this returns."""
        with self._lock:
            # No two entries share a millisecond: the store would take equal values of them for one.
            moment = self._last = max(self._offset + _passed(), self._last + 1)
            entry = {"seq": self._sequence, "run": run, "time": moment, "kind": kind, **content}
            self._sequence += 1
            self._pending.append(encode(entry))
            try:
                if self._file is None:
                    torn = _is_torn(self.path)
                    # What is there after a failure is known to the file alone.
                    self._head = head_of(self.path)
                    self._file = _appending(self.path)
                    self._file.write("\n" if torn else "")
                lines, head = [], self._head
                for held in self._pending:
                    lines.append(json.dumps({**held, "chain": head.chain}, ensure_ascii=False, allow_nan=False))
                    head = head.after(lines[-1].encode())
                self._file.write("".join(f"{line}\n" for line in lines))
                self._file.flush()
                self._pending.clear()
                self._head = head
            except (OSError, DataError) as error:
                if not self._failed:
                    reason = getattr(error, "strerror", error)
                    _LOG.warning("%s: cannot be written (%s); tracking is held in memory", self.path, reason)
                self._failed = True
                # Written again with the next entry, on a new line; an entry that is there twice adds nothing.
                with suppress(OSError):
                    if self._file is not None:
                        self._file.close()
                self._file = None
                del self._pending[:-_HELD]

    def close(self) -> None:
        """Flush to disk and close; entries may still follow."""
        with self._lock, suppress(OSError):
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None


def _appending(path: Path) -> TextIO:
    """Open a file at its end; a new one is its owner's alone."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, file_mode())
    return os.fdopen(handle, "a", encoding="utf-8")


def _is_torn(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        # Missing or empty.
        return False


def entries(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each whole entry from a byte offset on, with the offset behind it; damaged lines are skipped.

    Raises:
        DataError: If the file cannot be read or holds a line that is no entry by its length.
    """
    try:
        with files.open_regular(path) as file:
            file.seek(offset)
            while line := file.readline(_LINE_LIMIT):
                if not line.endswith(b"\n"):
                    if len(line) == _LINE_LIMIT:
                        raise DataError(f"{path}: a line of more than {_LINE_LIMIT} bytes; it is no journal of medgen")
                    return
                offset += len(line)
                with suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    if _is_entry(entry):
                        yield entry, offset
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected the journal of a run") from None


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("seq"), int)
        and isinstance(entry.get("time"), int)
        and isinstance(entry.get("run"), str)
        and isinstance(entry.get("kind"), str)
    )


def _now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _passed() -> int:
    """Milliseconds by a clock that only goes forward."""
    return time.monotonic_ns() // 1_000_000


def open_runs(path: Path) -> dict[str, int]:
    """Runs that were started and never ended → time of their last entry in ms; their process was killed."""
    last: dict[str, int] = {}
    ended: set[str] = set()
    for entry, _ in entries(path):
        last[entry["run"]] = entry["time"]
        if entry["kind"] == "end":
            ended.add(entry["run"])
    return {run: moment for run, moment in last.items() if run not in ended}


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an advisory lock on a file between processes.

    Yields:
        Whether the lock is held. Without ``wait`` that is False while another process has it.
    """
    make_folder(path.parent)
    with _appending(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            # Some network file systems have no locks; a journal has one writer all the same, the run folder's owner.
            _LOG.info("%s: cannot be locked (%s)", path, error.strerror)
        yield True


def chosen_store() -> str:
    """Address of the MLflow store that ``MLFLOW_TRACKING_URI`` names; empty if it names none."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def store_uri(out: Path) -> str:
    """Address of the MLflow store for runs in ``out``: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` beside the folder.

    ``runs/anomaly`` and ``runs/augment`` so share ``runs/mlflow.db``, wherever the program is started.
    """
    return chosen_store() or f"sqlite:///{(out.resolve().parent / 'mlflow.db').as_posix()}"
