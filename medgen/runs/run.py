"""One tracked run or stage: what it says goes to the journal, in the order in which it is said."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medgen.errors import DataError, MedgenError
from medgen.runs.journal import Journal, store_uri
from medgen.runs.plain_text import clean_name, flatten, param_text, printable, scrub
from medgen.system import files

_LOG = logging.getLogger(__name__)

# MLflow takes 8000 characters in a tag, 5000 in the description of a version; some are left for what is added.
_NOTE_LIMIT, _VERSION_LIMIT = 7500, 3500


class Run:
    """One tracked run or stage; made by :func:`medgen.runs.tracking.start` and :meth:`stage`.

    No method raises because of the store, and none waits for it. Without a journal (``enabled=False``) nothing is kept.

    Attributes:
        id: 32 hexadecimal digits, known at once; in the store it is the tag ``medgen.run``.
        store: Address of the store, without a password.
    """

    def __init__(self, name: str, out: Path, journal: Journal | None, parent: str | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.name = name
        self.store = printable(store_uri(out))
        self._out = out
        self._journal = journal
        self._parent = parent

    @contextmanager
    def stage(self, name: str) -> Iterator[Run]:
        """A child run: FINISHED at the end of the block, FAILED on an exception, KILLED when terminated."""
        child = Run(name, self._out, self._journal, parent=self.id)
        with child.recorded({}):
            yield child

    def log_metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Numbers at one step; None is left out, NaN and infinities are kept.

        Args:
            values: Name → anything ``float`` accepts, one-element tensors included.
            step: Optimiser step, epoch or index.
        """
        numbers = {clean_name(name): float(value) for name, value in values.items() if value is not None}
        if numbers:
            self._append("metrics", values=numbers, step=int(step))

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Settings, nested mappings joined by dots; a value over 6000 characters is replaced by its SHA-256."""
        flat = {clean_name(name): param_text(value) for name, value in flatten(values).items()}
        if flat:
            self._append("params", values=flat)

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Facts about the run; None is left out, a later value replaces an earlier one."""
        tags = {clean_name(name): str(scrub(value)) for name, value in values.items() if value is not None}
        if tags:
            self._append("tags", values=tags)

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Keep a file, or every file below a folder, as artifact, with a SHA-256 as a tag.

        The tag of a folder is the digest of its files' names and digests: one tag, however many there are.

        Args:
            path: The file, which must stay until the run is closed; one that is missing is logged and left out.
            folder: Where to put it in the store.
        """
        path = Path(path)
        place = f"{folder}/{path.name}".strip("/")
        if path.is_dir():
            digests = {}
            for item in sorted(path.rglob("*")):
                if item.is_file() and (content := self._content(item)) is not None:
                    below = item.parent.relative_to(path.parent).as_posix()
                    self._append("file", folder=f"{folder}/{below}" if folder else below, **content)
                    digests[item.relative_to(path).as_posix()] = content["sha256"]
            if digests:
                self.set_tags({f"sha256.{place}": files.sha256_json(digests)})
            return
        if (content := self._content(path)) is not None:
            self._append("file", folder=folder, **content)
            self.set_tags({f"sha256.{place}": content["sha256"]})

    def log_text(self, text: str, name: str) -> None:
        """Keep a short text as artifact ``name``."""
        self._append("text", name=name, text=text)

    def past(self, name: str, began: int, ended: int, values: Mapping[str, Any]) -> None:
        """A child run that is over, such as a training in another process.

        Args:
            name: What it is called.
            began: When it began, in ms since 1970.
            ended: When it ended.
            values: Its numbers, as for :meth:`log_metrics`.
        """
        child = Run(name, self._out, self._journal, parent=self.id)
        child._append("start", name=name, parent=self.id, tags={"medgen.run": child.id}, began=int(began))
        child.log_metrics(values)
        child._append("end", status="FINISHED", ended=int(ended))

    def describe(self, text: str) -> None:
        """What the run's page says first, in Markdown; a later text replaces an earlier one."""
        self.set_tags({"mlflow.note.content": _shortened(text, _NOTE_LIMIT)})

    def log_dataset(self, cohort: str, context: str, sha256: str, facts: Mapping[str, Any]) -> None:
        """Scans that the run has read.

        Args:
            cohort: What their cohort is called.
            context: What they were for: training, calibration, test and the like; part of the data set's name.
            sha256: Digest of their content.
            facts: Further plain facts, such as the numbers of scans and subjects.
        """
        named = scrub(cohort)
        self._append(
            "dataset", name=f"{named}: {context}", cohort=named, context=context, sha256=sha256, facts=scrub(facts)
        )

    def log_table(self, path: Path, name: str) -> None:
        """Keep a CSV file of the run's folder as table ``name``, which the store can show beside those of other runs.

        Args:
            path: The file, which must stay until the run is closed; one that is missing is logged and left out.
            name: Of the artifact, ends with ``.json``.
        """
        if (content := self._content(path)) is not None:
            self._append("table", name=name, **content)

    def log_image(self, path: Path, key: str, step: int = 0, picture: bytes | None = None) -> None:
        """Keep a picture; those of one key are shown with a slider over their steps.

        The journal says which picture is meant and holds none: what shows a patient is in one place.

        Args:
            path: A PNG file in the run's folder, or a page that holds the picture, which must stay until the run is
                closed; one that is missing is logged and left out.
            key: What is seen.
            step: Optimiser step, or the number of the picture.
            picture: Of a page, the bytes of the PNG.
        """
        key = re.sub(r"[^A-Za-z0-9_. -]", " ", key).strip() or "picture"
        if (content := self._content(path)) is not None:
            which = content["sha256"] if picture is None else hashlib.sha256(picture).hexdigest()
            self._append("image", key=key, step=int(step), picture=which, **content)

    def log_model(self, name: str, path: str, sha256: str, tags: Mapping[str, Any], description: str) -> None:
        """Register a model whose files are among the run's artifacts, once for each digest; it becomes the candidate.

        Args:
            name: Of the registered model; characters that no name may have become ``-``.
            path: Its folder among the artifacts.
            sha256: Its digest.
            tags: Facts about it; None is left out.
            description: What it is and what is known of it, in Markdown.
        """
        clean = {clean_name(key): str(scrub(value)) for key, value in tags.items() if value is not None}
        named = re.sub(r"[^\w.-]+", "-", str(scrub(name)), flags=re.ASCII)[:200]
        self._append(
            "model",
            name=named,
            path=path,
            sha256=sha256,
            tags=clean,
            description=_shortened(scrub(description), _VERSION_LIMIT),
        )

    def log_model_used(self, sha256: str) -> None:
        """The run has used the model of that digest; the store ties it to the registered version."""
        self._append("model used", sha256=sha256)

    def _content(self, path: Path) -> dict[str, str] | None:
        """Where a file is, as the journal says it, and its hash; None if it cannot be read, or nothing is kept."""
        if self._journal is None:
            return None
        try:
            digest = files.sha256_file(path)
        except DataError as error:
            _LOG.warning("not tracked: %s", error)
            return None
        return {"path": Path(os.path.relpath(path.resolve(), self._out.resolve())).as_posix(), "sha256": digest}

    def _append(self, kind: str, **content: Any) -> None:
        if self._journal is not None:
            self._journal.append(self.id, kind, **content)

    @contextmanager
    def recorded(self, tags: Mapping[str, Any]) -> Iterator[None]:
        """Note the start and, however the block is left, the end with its status."""
        clean = {clean_name(name): str(scrub(value)) for name, value in tags.items() if value is not None}
        self._append("start", name=self.name, parent=self._parent, tags={**clean, "medgen.run": self.id})
        status = "FINISHED"
        try:
            yield
        except BaseException as error:
            status = _status(error)
            self._tell_why(error, status)
            raise
        finally:
            self._append("end", status=status)

    def _tell_why(self, error: BaseException, status: str) -> None:
        """Say on the run's page that it did not end well, and on its parent's in which stage."""
        if status == "FINISHED":
            return
        if self._parent is not None and self._journal is not None:
            self._journal.append(self._parent, "tags", values={"medgen.failed_stage": self.name})
        # The class only: messages hold file names.
        kind = error.__class__.__name__
        if status == "KILLED":
            self.describe("**Ended before it was done.** The same command with `--resume` goes on, where it has that.")
            return
        self.set_tags({"medgen.error": kind})
        word = "Refused" if isinstance(error, MedgenError) else "Failed"
        self.describe(
            f"**{word}** ({kind}): there is no result. What was wrong was said where the command was started; it is "
            "not kept here, since it may name files."
        )


def _shortened(text: str, limit: int) -> str:
    """Markdown cut at the end of a line, saying so."""
    if len(text) <= limit:
        return text
    return text[:limit].rpartition("\n")[0] + "\n\n(shortened; the whole is in `report.html`)"


def _status(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        if error.code in (None, 0):
            return "FINISHED"
        return "KILLED" if error.code in (128 + signal.SIGTERM, 128 + signal.SIGINT) else "FAILED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
