"""Runs benchmarks of speed one after the other: ``performance.json``, ``performance.md`` and a picture of growth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medgen.errors import ConfigError, DataError
from medgen.progress import bars
from medgen.runs.folder import RunSummary
from medgen.system.files import read_json, unwritable, write_json, write_text
from medgen.system.new_folder import made_folder
from medgen.system.processes import torch_threads
from medgen.training.trainer import device_of

from . import page, roofline
from .catalogue import benchmarks as known
from .catalogue import entries_of
from .clock import clock_for
from .contest import Settings
from .measured import measured

FILE, PAGE, PICTURE = "performance.json", "performance.md", "performance-growth.png"
_KEYS = {"command", "device", "quick", "roofline", "versions", "entries"}
# What a ratio depends on.
_PACKAGES = (
    *("torch", "monai", "torchio", "batchgeneratorsv2", "nibabel", "isal", "SimpleITK", "antspyx", "numpy", "scipy"),
    *("mlflow", "dask", "submitit"),
)


def run(
    out: Path,
    *,
    benchmarks: Sequence[str],
    device: str | None = None,
    rounds: int = 7,
    quick: bool = False,
    data: Path | None = None,
    progress: bool = False,
) -> RunSummary:
    """Measure the named benchmarks and write all that is known into ``out``.

    What an earlier call has measured of other benchmarks stays in the file and on the page.

    Args:
        out: Folder of the results.
        benchmarks: Names, see :func:`~.catalogue.benchmarks`.
        device: Where medgen and its peers work: ``auto``, ``cpu`` or ``cuda[:N]``; the CPU unless said.
        rounds: Times that every contender is measured.
        quick: Small volumes and few steps, to try the command out.
        data: A cohort for benchmarks that take one.
        progress: Show progress bars.

    Raises:
        ConfigError: If what was measured in earnest would give way to figures of ``quick``.
        DataError: If ``out`` cannot be written, or ``performance.json`` in it is not one of these.
    """
    where = str(device_of(device or "cpu"))
    clock = clock_for(where)
    kept = _kept(out / FILE)
    if quick and (lost := [name for name in benchmarks if name in kept and not kept[name]["quick"]]):
        raise ConfigError(
            f"{out / FILE}: holds {', '.join(lost)} measured without --quick, which figures of small work would "
            "replace; give another folder to try the command out"
        )
    _check_writable(out)
    lines = []
    # What a second thread brings is another question, and other processes have the other cores.
    with torch_threads(1), bars(progress) as move:
        roof = roofline.measure(where)
        for place, name in enumerate(benchmarks):
            move("benchmarks", place, len(benchmarks), name)
            with tempfile.TemporaryDirectory(prefix="medgen-speed-") as scratch:
                settings = Settings(where, rounds, quick, data, Path(scratch))
                entries = [measured(entry, rounds, clock, roof) for entry in entries_of(name)(settings)]
            kept[name] = {
                "command": _command(name, device, rounds, quick, data is not None),
                "device": torch.device(where).type,
                "threads": 1,
                "quick": quick,
                "roofline": asdict(roof),
                "versions": _versions(),
                "entries": entries,
            }
            # After each one: what is measured is not lost with what comes next.
            _write(out, kept)
            lines += page.lines(name, kept[name])
        move("benchmarks", len(benchmarks), len(benchmarks))
    lines += [page.QUICK] if quick else []
    return RunSummary(out, 0, (*lines, f"written: {out / PAGE}"))


def _check_writable(out: Path) -> None:
    """Told before anything is measured, which may take an hour."""
    try:
        with made_folder(out), tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise unwritable(out, error) from error


def _write(out: Path, kept: dict[str, Any]) -> None:
    ordered = {name: kept[name] for name in known() if name in kept}
    write_json(out / FILE, ordered)
    drawn = page.growth_picture(out / PICTURE, ordered)
    write_text(out / PAGE, page.text(ordered, PICTURE if drawn else None))


def _kept(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or not all(
        isinstance(kept, dict) and kept.keys() >= _KEYS for kept in found.values()
    ):
        raise DataError(f"{path}: expected figures that this command has written; remove it, or give another folder")
    return {name: found[name] for name in known() if name in found}


def _command(name: str, device: str | None, rounds: int, quick: bool, data: bool) -> str:
    parts = [f"medgen bench speed OUT --benchmarks {name} --rounds {rounds}"]
    parts += [f"--device {device}"] if device else []
    parts += ["--data DATA"] if data else []
    parts += ["--quick"] if quick else []
    return " ".join(parts)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
