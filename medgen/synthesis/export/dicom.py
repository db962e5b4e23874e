"""The scans of a synthetic cohort as DICOM: a series each, and a segmentation of its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import medgen
from medgen import io
from medgen.errors import AuditError, ConfigError, DataError
from medgen.io.dicom.objects.synthetic import SyntheticScan, modality_of
from medgen.io.dicom.objects.wanted import missing
from medgen.io.dicom.objects.write import write_synthetic
from medgen.progress import Progress
from medgen.synthesis.export.provenance import AUDIT, FOLDER, LEARNT_FROM, read_record
from medgen.synthesis.usefulness import read_usefulness
from medgen.system import files
from medgen.system.new_folder import new_folder

_LABELS = re.compile(r"labelsTr/|.*_dseg\.nii\.gz$")
# Other files of the folder than records of scans.
_OTHERS = (LEARNT_FROM, AUDIT)


@dataclass(frozen=True)
class DicomCohort:
    """What was written.

    Attributes:
        folder: A folder for each scan.
        scans: How many.
        verdict: What the value study of the run said; empty where the cohort is of no run.
    """

    folder: Path
    scans: int
    verdict: str


def write_dicom(
    cohort: str | Path, out: str | Path, *, harmful: bool = False, progress: Progress | None = None
) -> DicomCohort:
    """Write every scan of a synthetic cohort as a DICOM series of no patient, with a SEG that refers to it.

    Args:
        cohort: Folder of an augment run, its ``synthetic/``, or what ``medgen augment sample`` wrote, in any layout.
        out: New folder, which appears whole or not at all: ``<scan>/image/0001.dcm`` and on, ``<scan>/seg.dcm``.
        harmful: Whether scans of a run whose verdict is HARMFUL are wanted all the same.
        progress: Called with (scans written, scans).

    Raises:
        AuditError: If a record or a file is not as it was exported.
        ConfigError: If ``out`` is in use, or highdicom is not installed.
        DataError: If there is no synthetic cohort, or its run's verdict is HARMFUL and ``harmful`` is not set.
        GeometryError: If a scan lies on a sheared grid.
    """
    if reason := missing():
        raise ConfigError(f"DICOM: {reason}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; choose a new folder")
    folder = _cohort(Path(cohort))
    if out.resolve().is_relative_to(folder.parent.resolve()) and (folder.parent / "outputs.json").is_file():
        raise ConfigError(f"{out}: lies in {folder.parent}, all of whose files the run has recorded; choose another")
    verdict = read_usefulness(folder.parent) if folder.name == "synthetic" else None
    if verdict is not None:
        verdict.require(harmful, folder.parent)
    records = [path for path in sorted((folder / FOLDER).glob("*.json")) if path.name not in _OTHERS]
    if not records:
        raise DataError(f"{folder}: has no record of a scan in {FOLDER}/; expected a synthetic cohort of medgen")
    names, channels = _names(folder)
    with new_folder(out) as temporary:
        for number, path in enumerate(records, start=1):
            scan = _read(folder, read_record(path), names, channels)
            write_synthetic(temporary / scan.name, scan)
            if progress is not None:
                progress(number, len(records))
    return DicomCohort(out, len(records), "" if verdict is None else verdict.sentence)


def _cohort(given: Path) -> Path:
    """The folder of the cohort: the given one, or that of the run."""
    for folder in (given / "synthetic", given):
        if (folder / FOLDER).is_dir():
            return folder
    raise DataError(f"{given}: holds no synthetic cohort (no {FOLDER}/); expected an augment run that accepted scans")


def _names(folder: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Label → name, and names of channels, as the describing files of the cohort's layout have them."""
    if (table := folder / "dseg.tsv").is_file():
        rows = [line.split("\t") for line in table.read_text("utf-8").splitlines()[1:]]
        return {int(row[0]): row[1] for row in rows if int(row[0])}, ()
    about = files.read_json(folder / "dataset.json")
    labels: dict[int, str] = {}
    # nnU-Net: name → number, or numbers where labels are regions; Decathlon: number → name.
    for key, value in about["labels"].items():
        if isinstance(value, str):
            labels[int(key)] = value
        elif isinstance(value, int):
            labels[value] = key
    return {value: name for value, name in labels.items() if value}, tuple((about.get("channel_names") or {}).values())


def _read(folder: Path, record: Mapping[str, Any], names: Mapping[int, str], channels: Sequence[str]) -> SyntheticScan:
    """A scan with the files that its record lists, each of which must be as it was exported."""
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or files.sha256_file(folder / name) != digest:
            raise AuditError(f"{folder / name}: is not the file that was exported; restore it, or sample again")
    listed = sorted(record["files"])
    images = [io.read(folder / name) for name in listed if not _LABELS.match(name)]
    labels = io.read(folder / next(name for name in listed if _LABELS.match(name)))
    labels = labels.with_data(labels.data.astype(np.int64))
    used = [int(value) for value in np.unique(labels.data) if value]
    named = channels if len(channels) == len(images) else ("",) * len(images)
    modality = str(record.get("modality", ""))
    return SyntheticScan(
        name=record["id"],
        images=images,
        channels=named,
        labels=labels,
        label_names={**{value: f"label {value}" for value in used}, **names},
        modality=modality_of(f"{modality} {' '.join(named)}"),
        backend=record["backend"],
        generator=record["generator_sha256"],
        stamp=record["stamp"],
        version=medgen.__version__,
    )
