"""The folder of one run: made once, locked while in use, the same names in every pipeline."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from pydantic import Field

from medgen.config import Config, read_yaml
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.tables import read_table
from medgen.errors import ConfigError, DataError, MedgenError
from medgen.runs.machine_sizes import SizeName
from medgen.runs.outputs import CONFIG, RECORD, SIGNATURE, strangers_of, write_outputs_record
from medgen.runs.plain_text import scrub
from medgen.runs.recorded_environment import write_environment
from medgen.runs.tracking import MAY_CHANGE, config_digest
from medgen.system.files import REPLACED, TEMPORARY, unwritable, write_csv, write_json, write_text
from medgen.system.modes import file_mode
from medgen.system.new_folder import made_folder

if TYPE_CHECKING:
    from medgen.data.cases import Manifest
    from medgen.transforms.kept_registrations import KeptRegistrations

CONFIG_FILE = CONFIG
LOCK_FILE = ".medgen-lock"
FAILURES = "failures.csv"
# There while an earlier run is being removed; a removal that was interrupted is finished first.
REMOVING = ".medgen-removing"


class RunConfig(Config):
    """The keys that every pipeline shares.

    Attributes:
        data: Folder, manifest CSV or ``dataset.json`` of the cohort.
        out: Folder of the run.
        seed: Seed from which every random stream of the run is derived.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads that read and prepare scans, and processes of a value study; 0 is the same as 1. No result
            depends on it.
        cohort: How the cohort is laid out.
        scaled_to: The size of machine that grid, widths, steps and precision have been scaled to: ``size`` on the
            command line does it, see :mod:`medgen.runs.machine_sizes`, and writes it here.
    """

    # Keys, dots between levels, that a resumed run may change, since nothing that is trained depends on them.
    RECALIBRATED: ClassVar[tuple[str, ...]] = ()

    data: Path
    out: Path
    seed: int = 0
    device: str = "auto"
    workers: int = Field(default=2, ge=0, le=256)
    cohort: CohortConfig = CohortConfig()
    scaled_to: SizeName | None = None

    def inputs(self) -> dict[str, Path]:
        """What a run reads beside ``data``: by key, a file or folder that must be there."""
        return {}

    def digest(self) -> str:
        """SHA-256 of the settings that results depend on: not of where a run computes and writes, nor how fast."""
        return config_digest(self.model_dump(mode="json"))


@dataclass(frozen=True)
class RunSummary:
    """What a pipeline tells the command line.

    Attributes:
        out: Its output folder; None if it writes none.
        exit_code: How it ended: 0 done, 1 done but for some cases.
        lines: What people are told.
        facts: What programs are told beside these and the folder's ``metrics.json``: plain data by name.
    """

    out: Path | None
    exit_code: int
    lines: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    out: Path

    @property
    def model(self) -> Path:
        """The trained model (artifact folder)."""
        return self.out / "model"

    @property
    def heatmaps(self) -> Path:
        """Native-space heatmaps, one NIfTI per case."""
        return self.out / "heatmaps"

    @property
    def synthetic(self) -> Path:
        """The synthetic cohort in nnU-Net layout."""
        return self.out / "synthetic"

    @property
    def figures(self) -> Path:
        """PNG pictures that the report also holds."""
        return self.out / "figures"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of trainings under way, one folder per training."""
        return self.out / "checkpoints"

    @property
    def registrations(self) -> KeptRegistrations:
        """What registers scans and keeps the results until the run is finished."""
        from medgen.transforms.kept_registrations import KeptRegistrations

        return KeptRegistrations(self.checkpoints / "registrations")

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.out / "report.html"

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``: every number of the report, with its interval."""
        write_json(self.out / "metrics.json", metrics)

    def write_failures(self, failures: Iterable[tuple[str, str, str]]) -> None:
        """Write ``failures.csv``: (case, stage, reason) of every case that could not be processed; header if none."""
        rows = [{"case": case, "stage": stage, "reason": reason} for case, stage, reason in failures]
        write_csv(self.out / FAILURES, rows, ["case", "stage", "reason"])


@contextmanager
def open_run(
    out: str | Path, config: Config, *, resume: bool = False, overwrite: bool = False, mark: str = ""
) -> Iterator[RunFolder]:
    """Make or reopen a run folder, hold its lock, write ``config.yaml``; at a good end record the outputs' hashes.

    Args:
        out: The folder. A new or empty one is always accepted.
        config: The configuration as resolved; written to ``config.yaml``.
        resume: Go on with a run of the same configuration (``out``, ``device`` and ``workers`` may differ).
        overwrite: Remove an earlier medgen run first. A folder that is not a medgen run is never removed.
        mark: For commands that have no ``resume``: a key of their configuration that no other has. What an interrupted
            or refused one has left is replaced (:func:`unfinished`).

    A run that is refused before it has made anything to go on with leaves nothing: half of its tables would be taken
    for results. A folder that was there stays, empty.

    Raises:
        ConfigError: If the folder is in use, holds something else, or holds a run and neither flag is given.
        DataError: If it cannot be written.
    """
    out = Path(out)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; choose one")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: expected a folder for the run, found a file; choose another folder for the output")
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folder(out))
        except OSError as error:
            raise unwritable(out, error) from error
        stack.enter_context(_locked(out))
        if (out / REMOVING).exists():
            _remove(out)
        if unfinished(out, mark):
            _start_removing(out)
        fresh = not foreign_entries(out)
        strangers = {} if fresh else _reuse(out, config, resume=resume, overwrite=overwrite)
        sweep(out)
        write_text(out / CONFIG_FILE, yaml.safe_dump(_kept(config), sort_keys=False, allow_unicode=True))
        write_environment(out)
        try:
            yield RunFolder(out)
        except MedgenError:
            if (fresh or overwrite) and not _worth_keeping(out, mark):
                _start_removing(out)
                (out / LOCK_FILE).unlink(missing_ok=True)
            raise
        write_outputs_record(out, strangers=strangers)
        # A finished run needs its checkpoints no more: the artifact holds the weights.
        shutil.rmtree(out / "checkpoints", ignore_errors=True)


def sweep(out: Path) -> None:
    """Remove what a killed process left half-written below a run folder: ``.tmp-*`` and ``.old-*``."""
    for folder, folders, names in os.walk(out):
        for name in [name for name in (*folders, *names) if name.startswith((TEMPORARY, REPLACED))]:
            _delete(Path(folder) / name)
        folders[:] = [name for name in folders if not name.startswith((TEMPORARY, REPLACED))]


def foreign_entries(out: Path) -> bool:
    """Whether a folder holds anything but a lock and what a run that was killed at once has left."""
    return out.is_dir() and any(entry.name != LOCK_FILE and not _is_first_write(entry) for entry in out.iterdir())


def unfinished(out: Path, mark: str) -> bool:
    """Whether a folder holds what an interrupted or refused command has left that cannot go on with it.

    Args:
        out: The folder.
        mark: A key of the command's configuration that no other command's has; empty for those that can go on.
    """
    if not mark or not (out / CONFIG_FILE).is_file() or (out / RECORD).exists():
        return False
    try:
        return mark in read_yaml(out / CONFIG_FILE)
    except ConfigError:
        return False


def in_use(out: Path) -> bool:
    """Whether another process holds the lock of a run folder now; the folder is not touched."""
    try:
        handle = os.open(out / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    else:
        return False
    finally:
        os.close(handle)


def _is_first_write(entry: Path) -> bool:
    """Whether this is what a run that was killed while it wrote its very first file has left."""
    return entry.name.startswith(TEMPORARY) and entry.name.endswith(f"-{CONFIG_FILE}")


def _worth_keeping(out: Path, mark: str) -> bool:
    """Whether a run has made something that ``--resume`` goes on with, or has listed why its scans failed.

    A command that is told by a ``mark`` goes on with checkpoints alone, and says the reasons in its message.
    """
    if mark:
        return (out / "checkpoints").exists()
    failures = out / FAILURES
    listed = failures.is_file() and failures.read_text(encoding="utf-8").count("\n") > 1
    return listed or (out / "checkpoints").exists() or (out / "model").exists()


def _reuse(out: Path, config: Config, *, resume: bool, overwrite: bool) -> dict[str, str]:
    """Make room in a folder that holds something, or take it over; returns the files in it that are not the run's."""
    if not (out / CONFIG_FILE).is_file():
        raise ConfigError(f"{out}: holds files that are not a medgen run (no {CONFIG_FILE}); choose an empty folder")
    if overwrite:
        _start_removing(out)
        return {}
    if not resume:
        raise ConfigError(f"{out}: already holds a run; pass --resume to go on with it or --overwrite to start again")
    check_unchanged(out, config)
    strangers = strangers_of(out)
    # What it lists is about to change.
    (out / RECORD).unlink(missing_ok=True)
    (out / SIGNATURE).unlink(missing_ok=True)
    return strangers


def _start_removing(out: Path) -> None:
    write_text(out / REMOVING, "An earlier run is being removed.\n")
    _remove(out)


def _remove(out: Path) -> None:
    """Empty a run folder; the sign that this is under way goes last."""
    try:
        for entry in out.iterdir():
            if entry.name not in (LOCK_FILE, REMOVING):
                _delete(entry)
        (out / REMOVING).unlink()
    except OSError as error:
        raise ConfigError(
            f"{error.filename or out}: cannot be removed ({error.strerror}); remove it, or choose "
            "another folder for the output"
        ) from None


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def check_cohort(out: Path, manifest: Manifest) -> None:
    """Refuse to go on with a run whose files were changed, added or removed since it was started.

    Args:
        out: Folder of the run.
        manifest: The cohort with hashes as they are now.

    Raises:
        DataError: Naming the first case that differs from the run's ``manifest.csv``.
    """
    path = out / "manifest.csv"
    if not path.is_file():
        return
    _, rows = read_table(path)
    before = {row["id"]: (row.get("sha256_image"), row.get("sha256_mask")) for _, row in rows}
    now = {case.id: manifest.hashes_of(case) for case in manifest}
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            what = "is gone" if name not in now else "is new" if name not in before else "was changed"
            raise DataError(
                f"{out}: cannot resume, case {name} {what} since the run was started; restore its files, or start "
                "again with --overwrite or another folder"
            )


def _kept(config: Config) -> dict[str, Any]:
    """The configuration with absolute paths cut to their last name: a run folder is shared, and paths name people."""
    kept: dict[str, Any] = scrub(config.model_dump(mode="json"))
    return kept


def check_unchanged(out: Path, config: Config) -> None:
    """Refuse a run folder that was started with another configuration (``MAY_CHANGE`` and ``RECALIBRATED`` apart).

    Raises:
        ConfigError: If any key differs.
    """
    before, now = read_yaml(out / CONFIG_FILE), _kept(config)
    for path in config.RECALIBRATED if isinstance(config, RunConfig) else ():
        _forget(before, path)
        _forget(now, path)
    changed = sorted(key for key in {*before, *now} - set(MAY_CHANGE) if before.get(key) != now.get(key))
    if changed:
        raise ConfigError(
            f"{out}: cannot resume, the configuration differs from the first start in: {', '.join(changed)}; "
            "use the same values, or another folder"
        )


def _forget(settings: dict[str, Any], path: str) -> None:
    """Take a key, dots between levels, out of nested settings; nothing where it is not there."""
    *above, last = path.split(".")
    for key in above:
        inner = settings.get(key)
        if not isinstance(inner, dict):
            return
        settings = inner
    settings.pop(last, None)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    # flock is released by the kernel when the process dies, so a lock can never be stale.
    try:
        handle = os.open(out / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, file_mode())
    except OSError as error:
        raise unwritable(out / LOCK_FILE, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ConfigError(
                    f"{out}: files cannot be locked on this file system ({error.strerror}), so two runs could write at "
                    "once; choose a folder on a local disk"
                ) from None
            raise ConfigError(
                f"{out}: another medgen run is writing here; wait for it or choose another folder for the output"
            ) from None
        yield
    finally:
        os.close(handle)
