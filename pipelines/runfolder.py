"""The folder of one run: made once, locked while in use, the same names in every pipeline."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from medgen.config import Config, read_yaml
from medgen.errors import ConfigError
from medgen.files import write_csv, write_json, write_text
from medgen.journal import scrub
from medgen.layouts import CohortConfig

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".medgen-lock"
# Where and how fast a run computes may change between the first try and its resumption; what it computes may not.
MAY_CHANGE = ("out", "device", "workers")


class RunConfig(Config):
    """The keys that every pipeline shares.

    Attributes:
        data: Folder, manifest CSV or ``dataset.json`` of the cohort.
        out: Folder of the run.
        seed: Of every random stream.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads that read and prepare scans.
        cohort: How the cohort is laid out.
    """

    data: Path
    out: Path
    seed: int = 0
    device: str = "auto"
    workers: int = Field(default=2, ge=1)
    cohort: CohortConfig = CohortConfig()


@dataclass(frozen=True)
class RunSummary:
    """What a pipeline tells the command line: where its output is, how it ended, and the lines to print."""

    out: Path
    exit_code: int
    lines: tuple[str, ...]


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
    def report(self) -> Path:
        """The HTML report."""
        return self.out / "report.html"

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``: every number of the report, with its interval."""
        write_json(self.out / "metrics.json", metrics)

    def write_failures(self, failures: Iterable[tuple[str, str, str]]) -> None:
        """Write ``failures.csv``: (case, stage, reason) of every case that could not be processed; header if none."""
        rows = [{"case": case, "stage": stage, "reason": reason} for case, stage, reason in failures]
        write_csv(self.out / "failures.csv", rows, ["case", "stage", "reason"])


@contextmanager
def open_run(out: str | Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> Iterator[RunFolder]:
    """Make or reopen a run folder, hold its lock, write ``config.yaml``; at a good end record the outputs' hashes.

    Args:
        out: The folder. A new or empty one is always accepted.
        config: The configuration as resolved; written to ``config.yaml``.
        resume: Go on with a run of the same configuration (``out``, ``device`` and ``workers`` may differ).
        overwrite: Remove an earlier medgen run first. A folder that is not a medgen run is never removed.

    Raises:
        ConfigError: If the folder is in use, holds something else, or holds a run and neither flag is given.
    """
    out = Path(out)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; choose one")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: expected a folder for the run, found a file; choose another out=")
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        content = [entry for entry in out.iterdir() if entry.name != LOCK_FILE]
        if content:
            _reuse(out, content, config, resume=resume, overwrite=overwrite)
        write_text(out / CONFIG_FILE, yaml.safe_dump(_kept(config), sort_keys=False, allow_unicode=True))
        yield RunFolder(out)
        from medgen.audit import write_outputs_record

        # A finished run needs its checkpoints no more: the artifact holds the weights.
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        write_outputs_record(out)


def _reuse(out: Path, content: list[Path], config: Config, *, resume: bool, overwrite: bool) -> None:
    earlier = out / CONFIG_FILE
    if not earlier.is_file():
        raise ConfigError(f"{out}: holds files that are not a medgen run (no {CONFIG_FILE}); choose an empty folder")
    if overwrite:
        for entry in content:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return
    if not resume:
        raise ConfigError(f"{out}: already holds a run; pass --resume to go on with it or --overwrite to start again")
    check_unchanged(out, config)


def _kept(config: Config) -> dict[str, Any]:
    """The configuration with absolute paths cut to their last name: a run folder is shared, and paths name people."""
    kept: dict[str, Any] = scrub(config.model_dump(mode="json"))
    return kept


def check_unchanged(out: Path, config: Config) -> None:
    """Refuse a run folder that was started with another configuration (``MAY_CHANGE`` apart).

    Raises:
        ConfigError: If any key differs.
    """
    before, now = read_yaml(out / CONFIG_FILE), _kept(config)
    changed = sorted(key for key in {*before, *now} - set(MAY_CHANGE) if before.get(key) != now.get(key))
    if changed:
        raise ConfigError(
            f"{out}: cannot resume, the configuration differs from the first start in: {', '.join(changed)}; "
            "use the same values, or another out="
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    # flock is released by the kernel when the process dies, so a lock can never be stale.
    handle = os.open(out / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{out}: another medgen run is writing here; wait for it or choose another out="
            ) from None
        yield
    finally:
        os.close(handle)
