"""A data set for nnU-Net v2 from a real cohort and synthetic scans, with folds in which nothing leaks.

nnU-Net splits training cases at random unless it finds ``splits_final.json``: synthetic scans would land in validation,
and scans of a generator that has seen a validation subject in its training part. The folds written here have real
validation cases only, and in each fold only those synthetic scans whose generators have not learnt from any of them.
Format: nnU-Net v2, documentation/dataset_format.md and manual_data_splits.md (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import DataError
from medgen.progress import Progress
from medgen.seeds import numpy_rng
from medgen.synthesis.export.layouts import labels_or_regions, original_labels, renumbered_regions
from medgen.synthesis.lineage import SPLITS, RunSplits, read_origin
from medgen.synthesis.usefulness import NOT_MEASURED, Usefulness, read_usefulness
from medgen.system import files
from medgen.system.new_folder import new_folder
from medgen.transforms.intensity_matching import match_intensities
from medgen.volume import Volume

FOLDS = "splits_final.json"
_ENDING = ".nii.gz"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class _Run:
    """What is needed of one augment run."""

    folder: Path
    real: Manifest
    origin: RunSplits
    synthetic: Manifest
    original: Mapping[int, int]
    parents: Mapping[str, tuple[str, ...]]
    name: str

    def part(self, *names: str) -> list[Case]:
        """Real cases with masks of these parts, in the manifest's order."""
        return [case for case in self.real if case.mask is not None and self.origin.part.get(case.id) in names]

    @property
    def is_fold(self) -> bool:
        """Whether the run is one of several."""
        return bool(self.name)

    @property
    def held_out(self) -> list[Case]:
        """What a fold validates on: the run's test part; of a single run its validation part, if it has one."""
        return self.part("test") if self.is_fold else self.part("validation") or self.part("test")

    @property
    def trained(self) -> list[Case]:
        """Real training cases; in a cross-validation also those on which the run chose its backend."""
        return self.part("labelled", "validation") if self.is_fold else self.part("labelled")

    def new_id(self, case: str) -> str:
        """Id of a synthetic scan in the data set; several runs number their scans alike."""
        return case if not self.is_fold else f"syn-{self.name}-{case.removeprefix('syn-')}"


@dataclass(frozen=True)
class NnunetDataset:
    """What was written.

    Attributes:
        folder: ``DatasetXXX_Name``.
        folds: Ids of training and validation cases per fold.
        synthetic: Number of synthetic scans in all.
        test: Number of cases in ``imagesTs``.
        verdicts: What the value study of each run said, each sentence once.
    """

    folder: Path
    folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    synthetic: int
    test: int
    verdicts: tuple[str, ...] = ()


def write_nnunet(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    number: int,
    name: str,
    channels: Sequence[str] = (),
    seed: int = 0,
    harmful: bool = False,
    progress: Progress | None = None,
) -> NnunetDataset:
    """Write ``DatasetXXX_Name``: ``imagesTr``, ``labelsTr``, ``dataset.json``, ``splits_final.json``, ``subjects.csv``.

    Each run is one fold: it trains on the run's labelled scans and on synthetic scans, and validates on subjects that
    the run held out: of several runs each on its test part, a single run on its validation part (its test cases then go
    to ``imagesTs`` and ``labelsTs``), else on its test part. Labels are numbered 1 to n in ascending order of their own
    numbers. The intensities of synthetic scans are matched to a real training scan, their parent where there is one.

    Args:
        runs: Folders of finished augment runs on one cohort; several ones are the folds of a cross-validation.
        out: The folder ``nnUNet_raw``.
        number: Number of the data set, 1 to 999.
        name: Name of the data set: letters, digits, ``_`` and ``-``.
        channels: Name of each channel, by which nnU-Net chooses the normalisation (``CT``, else z-score); those of
            the synthetic cohort if empty.
        seed: Seed of the choice of reference scans for intensities.
        harmful: Whether scans of runs whose verdict is HARMFUL are wanted all the same.
        progress: Called with (cases written, cases).

    Returns:
        Folder and folds.

    Raises:
        AuditError: If a synthetic scan has a parent that the run did not train on, or a subject is validated on that
            the generators of its own fold learnt from.
        DataError: If a run is not finished, runs differ in cohort or labels, folds overlap, scans changed since the
            run, or the folder exists; or the verdict of a run is HARMFUL and ``harmful`` is not set.
    """
    if not _NAME.fullmatch(name) or not 1 <= number <= 999:
        raise DataError(f"data set {number} {name!r}: expected a number from 1 to 999 and letters, digits, '_', '-'")
    read = [_read(Path(folder), f"f{index}" if len(runs) > 1 else "") for index, folder in enumerate(runs)]
    _agree(read)
    verdicts = [read_usefulness(run.folder) or NOT_MEASURED for run in read]
    for run, verdict in zip(read, verdicts, strict=True):
        verdict.require(harmful, run.folder)
    first = read[0]
    folds = tuple(_fold(run, read) for run in read)
    used = {case for train, held_out in folds for case in (*train, *held_out)}
    test = first.part("test") if len(read) == 1 and first.part("validation") else []
    real = [case for case in first.real if case.id in used]
    synthetic = [(run, case) for run in read for case in run.synthetic if run.new_id(case.id) in used]
    numbers = sorted(first.original.values())
    consecutive = {label: index for index, label in enumerate(numbers, start=1)}
    with new_folder(Path(out) / f"Dataset{number:03d}_{name}") as folder:
        total, count = len(real) + len(test) + len(synthetic), 0
        for place, cases in (("Tr", real), ("Ts", test)):
            for case in cases:
                _write(folder, place, case.id, case.read_image(), case, consecutive)
                count += 1
                if progress is not None:
                    progress(count, total)
        for run, case in synthetic:
            image = case.read_image()
            image = image.with_data(match_intensities(image.data, _reference(run, case, seed).data))
            relabel = {mine: consecutive[file] for mine, file in run.original.items()}
            _write(folder, "Tr", run.new_id(case.id), image, case, relabel, "SYNTHETIC medgen")
            count += 1
            if progress is not None:
                progress(count, total)
        sentences = tuple(dict.fromkeys(verdict.sentence for verdict in verdicts))
        names = {label: first.real.labels.get(label, f"label {label}") for label in numbers}
        description = files.read_json(first.folder / "synthetic" / "dataset.json")
        about = _description(name, names, consecutive, description, channels, count - len(test), verdicts)
        intake = first.real.intake
        regions = renumbered_regions(intake.regions, intake.class_order, consecutive)
        if regions[0]:
            about |= labels_or_regions({}, *regions)
        files.write_json(folder / "dataset.json", about)
        files.write_json(folder / FOLDS, [{"train": list(train), "val": list(val)} for train, val in folds])
        files.write_csv(folder / "subjects.csv", _subjects(real, test, synthetic), ("case", "subject", "kind"))
    return NnunetDataset(Path(out) / f"Dataset{number:03d}_{name}", folds, len(synthetic), len(test), sentences)


def _read(folder: Path, name: str) -> _Run:
    for needed in ("manifest.csv", SPLITS, "synthetic/dataset.json"):
        if not (folder / needed).is_file():
            raise DataError(f"{folder}: has no {needed}; expected a finished augment run that accepted scans")
    real = load_cohort(folder / "manifest.csv")
    now = real.with_hashes()
    for before, after in zip(real, now, strict=True):
        if dict(before.sha256) != dict(after.sha256):
            raise DataError(f"{before.images[0]}: this case changed since the run {folder}; restore it or run again")
    synthetic = load_cohort(folder / "synthetic").labelled()
    parents = {}
    for case in synthetic:
        record = files.read_json(folder / "synthetic" / "provenance" / f"{case.id}.json")
        parents[case.id] = tuple(str(parent["case"]) for parent in record["parents"])
    original = original_labels(folder / "synthetic") or {label: label for label in synthetic.labels}
    run = _Run(folder, real, read_origin(folder / SPLITS), synthetic, original, parents, name)
    for case_id, names in parents.items():
        run.origin.refuse_parents(case_id, names)
    if not run.held_out:
        raise DataError(f"{folder}: the run held no labelled case out, so that there is nothing to validate on")
    return run


def _agree(runs: Sequence[_Run]) -> None:
    if not runs:
        raise DataError("no augment run; expected one, or one per fold")
    owner: dict[str, Path] = {}
    for number, run in enumerate(runs):
        twin = next((other for other in runs[:number] if _same(run, other)), None)
        if twin is not None:
            raise DataError(
                f"{run.folder}: is the same run as {twin.folder}, whose scans would be in a fold twice; expected a run "
                "per fold: run with folds=K and fold=0 to K-1 and the same seed"
            )
        if run.real.digest() != runs[0].real.digest() or run.original != runs[0].original:
            raise DataError(
                f"{run.folder}: has another cohort or other labels than {runs[0].folder}; expected runs on one cohort"
            )
        for subject in sorted({case.subject for case in run.held_out}):
            if owner.setdefault(subject, run.folder) != run.folder:
                raise DataError(
                    f"subject {subject!r} is held out in {owner[subject]} and in {run.folder}; expected folds that "
                    "share no subject: run with folds=K and fold=0 to K-1 and the same seed"
                )


def _same(run: _Run, other: _Run) -> bool:
    """Whether two folders are one run: the same folder, or a copy that holds out the same subjects."""
    if run.folder.resolve() == other.folder.resolve():
        return True
    return {case.subject for case in run.held_out} == {case.subject for case in other.held_out}


def _fold(run: _Run, runs: Sequence[_Run]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the training cases (real, then synthetic) and of the validation cases of one run's fold."""
    held_out = run.held_out
    names = {name for case in held_out for name in (case.id, case.subject)}
    run.origin.refuse_validation(names)
    train = [case.id for case in run.trained]
    for other in runs:
        if not other.origin.learnt & names:
            train += [other.new_id(case.id) for case in other.synthetic]
    return tuple(train), tuple(case.id for case in held_out)


def _reference(run: _Run, case: Case, seed: int) -> Volume:
    """A real training scan whose intensities a synthetic scan takes: its parent, else one that is drawn."""
    training = {real.id: real for real in run.part("labelled")}
    parent = next((name for name in run.parents[case.id] if name in training), None)
    if parent is None:
        parent = sorted(training)[int(numpy_rng(seed, "nnunet", case.id).integers(len(training)))]
    return training[parent].read_image()


def _write(
    folder: Path, place: str, name: str, image: Volume, case: Case, relabel: Mapping[int, int], note: str = ""
) -> None:
    mask = case.read_mask(image)
    if mask is None:
        raise DataError(f"{case.id}: has no mask; expected labelled cases")
    for channel, data in enumerate(image.data):
        path = folder / f"images{place}" / f"{name}_{channel:04d}{_ENDING}"
        io.write(image.with_data(data[None]), path, description=note)
    labels = np.zeros(mask.data.shape, dtype=np.uint8)
    for file, label in relabel.items():
        labels[mask.data == file] = label
    path = folder / f"labels{place}" / f"{name}{_ENDING}"
    io.write(mask.with_data(labels), path, description=note and f"{note} labels")


def _description(
    name: str,
    names: Mapping[int, str],
    consecutive: Mapping[int, int],
    synthetic: Mapping[str, Any],
    channels: Sequence[str],
    training: int,
    verdicts: Sequence[Usefulness],
) -> dict[str, Any]:
    given = list(synthetic["channel_names"].values())
    if channels and len(channels) != len(given):
        raise DataError(f"{len(channels)} channel names; expected {len(given)}, one per image channel")
    if len(set(names.values())) != len(names):
        raise DataError(f"two labels have one name: {', '.join(sorted(names.values()))}; expected different names")
    return {
        "name": name,
        "description": "Real and SYNTHETIC (syn-...) labelled scans, by medgen; not for clinical use",
        "channel_names": {str(index): channel for index, channel in enumerate(channels or given)},
        "labels": {"background": 0, **{names[label]: index for label, index in consecutive.items()}},
        "numTraining": training,
        "file_ending": _ENDING,
        "medgen": {"verdicts": [asdict(verdict) for verdict in verdicts]},
    }


def _subjects(
    real: Sequence[Case], test: Sequence[Case], synthetic: Sequence[tuple[_Run, Case]]
) -> list[dict[str, str]]:
    rows = [{"case": case.id, "subject": case.subject, "kind": "real"} for case in (*real, *test)]
    made = [run.new_id(case.id) for run, case in synthetic]
    return rows + [{"case": name, "subject": name, "kind": "synthetic"} for name in made]
