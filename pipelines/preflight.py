"""What a run refuses before it spends anything: missing inputs, an output folder that it could not use.

The same questions are asked by ``--dry-run`` and by the run itself, so that a plan never promises what the run would
refuse. Nothing here needs torch, which takes seconds to import, and nothing is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from medgen.config import nearest
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.runs.folder import CONFIG_FILE, REMOVING, RunConfig, check_unchanged, foreign_entries, in_use, unfinished
from medgen.system.files import exists, is_utf8

from .given_scans import GivenScan
from .sources import inits


def preflight(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse a run whose inputs are not there, or whose ``out`` cannot be used.

    Raises:
        ConfigError: If ``out`` is in use, holds something else, lies in the folder of the data, holds its input and
            would be removed, or was started with another configuration.
        DataError: If the data or a further input is missing, or ``out`` cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; choose one")
    check_data(config.data)
    for key, path in config.inputs().items():
        if not exists(path):
            raise DataError(f"{path}: no such file or folder; {key} names it; check the path")
    sources = [init.artifact for _, init, _ in inits(config)]
    for path in sources:
        check_model(path)
    check_start(config.out, (config.data, *config.inputs().values(), *sources), resume=resume, overwrite=overwrite)
    if resume and (config.out / CONFIG_FILE).is_file() and not (config.out / REMOVING).exists():
        check_unchanged(config.out, config)


def check_start(out: Path, inputs: Collection[Path], *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that a run cannot be written to, or that holds one without a word about what is to become of it.

    Raises:
        ConfigError: As :func:`check_out`, or if it holds a run and neither flag is given, or both are.
        DataError: As there.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; choose one")
    check_out(out, inputs, overwrite=overwrite)
    going_on = resume and (out / CONFIG_FILE).is_file()
    if not going_on and not overwrite and foreign_entries(out) and not (out / REMOVING).exists():
        raise ConfigError(f"{out}: already holds a run; pass --resume to go on with it or --overwrite to start again")


def check_data(path: Path) -> None:
    """Refuse a cohort that is not there.

    Raises:
        DataError: If there is nothing of that name.
    """
    if not exists(path):
        raise DataError(f"{path}: no such file or folder; expected a cohort folder or manifest CSV; check the path")


def check_utf8(path: Path) -> None:
    """Refuse a name that records of a run, which are UTF-8, could not hold.

    Raises:
        DataError: If it holds other bytes.
    """
    if not is_utf8(path):
        raise DataError(f"{path}: the name is not UTF-8; expected one that every file can hold; rename it")


def check_out(out: Path, inputs: Collection[Path] = (), *, overwrite: bool = False) -> None:
    """Refuse a folder that a run cannot be written to, before anything is read.

    Args:
        out: Folder of the run; need not exist.
        inputs: What the run reads. A folder among them, or the folder of a ``dataset.json``, takes no output.
        overwrite: An earlier run in ``out`` is removed first.

    Raises:
        ConfigError: If it is a file, in use, holds something else than a run, lies in an input or holds one that would
            be removed.
        DataError: If it cannot be written.
    """
    for path in (out, *inputs):
        check_utf8(path)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: expected a folder for the run, found a file; choose another folder for the output")
    place = out.resolve()
    for path in inputs:
        source = (path.parent if path.name == "dataset.json" else path).resolve()
        if source.is_dir() and place.is_relative_to(source):
            raise ConfigError(
                f"{out}: lies in {path}, which the run reads; outputs there would be taken for data later; choose a "
                "folder elsewhere"
            )
        if overwrite and source.is_relative_to(place):
            raise ConfigError(
                f"{path}: the run reads it, and --overwrite would remove it with {out}; "
                "choose another folder for the output"
            )
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not there.is_dir():
        raise DataError(f"{out}: cannot be made, {there} is a file; choose another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"{out}: cannot be written (no permission to write in {there}); choose another folder")
    if foreign_entries(out) and not (out / CONFIG_FILE).is_file() and not (out / REMOVING).exists():
        raise ConfigError(f"{out}: holds files that are not a medgen run (no {CONFIG_FILE}); choose an empty folder")
    if in_use(out):
        raise ConfigError(f"{out}: another medgen run is writing here; wait for it or choose another folder")


# Keys of configurations that one command alone has, see :func:`medgen.runs.folder.unfinished`.
SCORING, EVALUATION, EXPLORATION, ADAPTATION = "model_sha256", "predictions", "along", "adapted_from"


def check_new(out: Path, inputs: Collection[Path] = (), *, overwrite: bool = False, mark: str = "") -> None:
    """As :func:`check_out`, for commands that cannot go on with earlier results.

    Args:
        out: Folder of the results.
        inputs: What the command reads.
        overwrite: Earlier results in ``out`` are removed first.
        mark: A key that only this command's configuration has: what it has left unfinished in ``out`` is replaced.

    Raises:
        ConfigError: As there, or if ``out`` holds results and ``overwrite`` is not set.
        DataError: As there.
    """
    check_out(out, inputs, overwrite=overwrite)
    if foreign_entries(out) and not overwrite and not unfinished(out, mark):
        raise ConfigError(f"{out}: already holds results; pass --overwrite to replace them, or another --out")


def check_scoring(out: Path, inputs: Collection[Path], *, resume: bool = False, overwrite: bool = False) -> None:
    """As :func:`check_new` for a scoring, which can go on with what an interrupted one has left.

    Raises:
        ConfigError: As there, or if both flags are given.
        DataError: As there.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; choose one")
    if resume:
        check_out(out, inputs)
    else:
        check_new(out, inputs, overwrite=overwrite, mark=SCORING)


def check_spread(spread: object, scans: int, workers: int | None) -> None:
    """Refuse options for many scans that would do nothing.

    Raises:
        ConfigError: If a single scan is to be spread, or workers are given and nothing is spread.
    """
    if spread is not None and scans < 2:
        raise ConfigError("--executor, --shards: one scan is not spread; leave them out, or give several scans")
    if spread is None and workers is not None:
        raise ConfigError("--workers: scans are scored one after the other; add --executor or --shards to spread them")


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that an option does not have.

    Raises:
        ConfigError: With those that it has.
    """
    if value not in choices:
        raise ConfigError(
            f"{option}: found {value!r}; expected {', '.join(choices[:-1])} or {choices[-1]}{nearest(value, choices)}"
        )


def check_model(model: Path) -> None:
    """Refuse, before torch is imported, a model folder that is not there.

    Raises:
        ArtifactError: If it is no folder, or the run around a model folder.
    """
    if not model.is_dir():
        raise ArtifactError(f"{model}: no such folder; expected the model/ folder of a run")
    if (model / "model").is_dir() and not (model / "artifact.json").is_file():
        raise ArtifactError(f"{model}: a run, not its model; expected {model / 'model'}")


def check_scans(scans: Iterable[Path]) -> None:
    """Refuse a list of scans of which none is there.

    Raises:
        DataError: If no scan is given, none exists, one is given twice, or the name of one is not UTF-8.
    """
    given = [GivenScan.parse(path) for path in scans]
    if not given:
        raise DataError("no scan given; name at least one NIfTI file or DICOM folder")
    seen = Counter(tuple(file.resolve() for file in scan.files) for scan in given)
    for scan in given:
        for path in scan.files:
            check_utf8(path)
        if (times := seen[tuple(file.resolve() for file in scan.files)]) > 1:
            raise DataError(f"{scan.path}: given {times} times; expected each scan once; leave out the others")
    if not any(all(map(exists, scan.files)) for scan in given):
        lost = next(path for path in given[0].files if not exists(path))
        raise DataError(f"{lost}: no such file or folder; check the path")


def check_folder(folder: Path, holds: str = "images") -> None:
    """Refuse a folder that is not there.

    Raises:
        DataError: If it is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with {holds}")


def check_path(path: Path, expected: str = "a cohort folder, a manifest, a scan file or a DICOM folder") -> None:
    """Refuse a file or folder that is not there.

    Raises:
        DataError: If there is nothing of that name, not even a link that leads nowhere.
    """
    if not exists(path) and not os.path.lexists(path):
        raise DataError(f"{path}: no such file or folder; expected {expected}; check the path")


def check_empty(out: Path) -> None:
    """Refuse a new folder that holds something, before anything is imported.

    Raises:
        DataError: If it is no folder, or not empty.
    """
    check_utf8(out)
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: exists and is not empty; expected a new folder; choose another one or remove it")
    if exists(out) and not out.is_dir():
        raise DataError(f"{out}: is a file; expected a new folder; choose another one")
