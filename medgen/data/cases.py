"""Cases and manifests: which scans a run uses, who they belong to, and how subjects are split."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medgen import io
from medgen.data.intake import Intake
from medgen.data.masks import on_grid, read_labels, renumber
from medgen.errors import DataError
from medgen.faults import fail
from medgen.io.channels import stacked
from medgen.seeds import derive
from medgen.system import files
from medgen.system.advice import apart
from medgen.system.processes import thread_pool
from medgen.volume import Volume

COLUMNS = ("id", "subject", "image", "mask", "sha256_image", "sha256_mask")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_safe_id(name: str) -> bool:
    """Whether a case id can be a file name everywhere: letters, digits, ``.``, ``_``, ``-``, at most 100.

    >>> is_safe_id("sub-01_T1w"), is_safe_id("../x"), is_safe_id("a b")
    (True, False, False)
    """
    return _SAFE_ID.fullmatch(name) is not None and not name.endswith(".")


@dataclass(frozen=True)
class Case:
    """One scan, optionally with a mask, that belongs to one subject.

    Attributes:
        id: Unique in its manifest and usable as a file name.
        subject: Whom it shows; splits never part the cases of a subject.
        images: One file (or DICOM folder) per channel, in channel order.
        mask: Label map on the same grid, or None.
        attributes: Further columns of the manifest. ``channels`` says how many channels a 4D image holds, ``slices``
            how many slices a DICOM series has.
        sha256: Hash per file, keyed by its path relative to the manifest's root; empty until hashed.
        relabel: Label number in the mask file → number in use; labels it does not name become 0. Empty keeps all.
        fill: Value for image voxels that are NaN or infinite; None refuses such images.
        unscaled: Whether a scale of 0 or NaN in a NIfTI header means that values are as stored; else it is refused.
        resample_mask: Whether a mask on another grid is brought to that of its image; else it is refused.
        empty_mask: Whether a mask without a labelled voxel says that there is nothing; else it is a fault.
        resample_channels: Whether channels on another grid than the first are brought to its grid; else such a case is
            refused.
    """

    id: str
    subject: str
    images: tuple[Path, ...]
    mask: Path | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    relabel: Mapping[int, int] = field(default_factory=dict)
    fill: float | None = None
    unscaled: bool = False
    resample_mask: bool = False
    empty_mask: bool = False
    resample_channels: bool = False

    def read_image(self) -> Volume:
        """All channels on one grid, (c, i, j, k).

        Raises:
            DataError: If a file cannot be used, or the number of channels is not the declared one.
            GeometryError: If the channels lie on different grids.
        """
        declared = self._declared("channels", "a number")
        slices = self._declared("slices", "a number of slices") or None
        volumes = [
            (path, io.read(path, multichannel=declared > 1, slices=slices, fill=self.fill, unscaled=self.unscaled))
            for path in self.images
        ]
        image = stacked(volumes, self.id, move=self.resample_channels)
        if declared and image.data.shape[0] != declared:
            raise fail(self.images[0], f"{image.data.shape[0]} channels", f"{declared}", "correct the manifest")
        return image

    def _declared(self, name: str, what: str) -> int:
        text = self.attributes.get(name) or ""
        if text and (not re.fullmatch("[0-9]{1,6}", text) or int(text) < 1):
            raise fail(self.images[0], f"{name} {text[:40]!r} declared", what, "correct the manifest")
        return int(text or 0)

    def read_mask(self, image: Volume | None = None) -> Volume | None:
        """The label map, integers of shape (1, i, j, k), renumbered by ``relabel``; None where the case has none.

        Args:
            image: The case's image, if it has been read already: saves reading it again for its grid.

        Raises:
            DataError: If the file cannot be used, or has several channels, fractional or negative labels.
            GeometryError: If it does not lie on the grid of the image.
        """
        if self.mask is None:
            return None
        mask = read_labels(self.mask, unscaled=self.unscaled)
        return self.renumbered(self.on_grid(mask, self.read_image() if image is None else image))

    def on_grid(self, mask: Volume, image: Volume) -> Volume:
        """A label map on the grid of the case's image: as it is, or moved there where that is declared.

        Raises:
            GeometryError: As :func:`medgen.data.masks.on_grid`.
        """
        _, name = apart(self.mask or Path(), self.images[0])
        return on_grid(mask, image, str(self.mask), name, move=self.resample_mask)

    def renumbered(self, mask: Volume) -> Volume:
        """A label map with the numbers in use instead of those of the file."""
        return mask.with_data(renumber(mask.data, self.relabel)) if self.relabel else mask


@dataclass(frozen=True)
class Manifest:
    """The cases of a cohort.

    >>> cases = [Case(f"{who}-{n}", who, (Path(f"{who}-{n}.nii.gz"),)) for who in ("ann", "bob") for n in (1, 2)]
    >>> parts = split_subjects(Manifest("mine", Path(), tuple(cases)), {"train": 0.5, "test": 0.5}, seed=0)
    >>> [case.id for case in parts["train"]], parts["test"].subjects
    (['ann-1', 'ann-2'], ['bob'])

    Attributes:
        name: What the cohort is called in reports.
        root: Folder that the keys of the cases' hashes are relative to.
        cases: Ids are unique, also where upper and lower case are the same.
        labels: Name per label value, without 0 (background); may be empty.
        named_by_folders: Whether ids are the names of DICOM folders, which scanners and archives name after patients.
        intake: How the cases were found, and what was left out.

    Raises:
        DataError: If an id is unsafe or occurs twice.
    """

    name: str
    root: Path
    cases: tuple[Case, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    named_by_folders: bool = False
    intake: Intake = field(default_factory=Intake)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for case in self.cases:
            if not is_safe_id(case.id):
                raise DataError(f"case id {case.id!r}: expected letters, digits, '.', '_' and '-'; rename the case")
            if case.id.lower() in seen:
                raise DataError(f"case id {case.id!r} occurs twice in {self.name}; expected unique ids; rename one")
            seen.add(case.id.lower())

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @property
    def subjects(self) -> list[str]:
        """Sorted names of the subjects."""
        return sorted({case.subject for case in self.cases})

    def subset(self, ids: Collection[str]) -> Manifest:
        """The cases with these ids, in the manifest's order.

        Raises:
            DataError: If an id is not in the manifest.
        """
        wanted = set(ids)
        unknown = sorted(wanted - {case.id for case in self.cases})
        if unknown:
            raise DataError(f"{self.name}: no case {unknown[0]!r} ({len(unknown)} unknown ids); check the ids")
        return replace(self, cases=tuple(case for case in self.cases if case.id in wanted))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """What image channels are called: as the cohort says, else by their numbers, from 1.

        >>> Manifest("mine", Path(), (Case("a", "a", (Path("a_t1.nii"), Path("a_t2.nii"))),)).channel_names
        ('1', '2')
        """
        if self.intake.channels or not self.cases:
            return self.intake.channels
        count = max(len(self.cases[0].images), self.cases[0]._declared("channels", "a number"))
        return tuple(str(number + 1) for number in range(count))

    def labelled(self) -> Manifest:
        """The cases with a mask."""
        return replace(self, cases=tuple(case for case in self.cases if case.mask is not None))

    def unlabelled(self) -> Manifest:
        """The cases without a mask."""
        return replace(self, cases=tuple(case for case in self.cases if case.mask is None))

    def with_hashes(self, workers: int = 2) -> Manifest:
        """The same manifest with the SHA-256 of every file as it is now; ``workers`` threads."""
        paths = sorted({path for case in self.cases for path in case_files(case)})
        with thread_pool(workers) as pool:
            hashes = dict(zip(paths, pool.map(sha256_of, paths), strict=True))
        cases = tuple(
            replace(case, sha256={self.key(path): hashes[path] for path in case_files(case)}) for case in self.cases
        )
        return replace(self, cases=cases)

    def key(self, path: Path) -> str:
        """How a file is named in :attr:`Case.sha256`: relative to the root, with forward slashes."""
        return key_of(path, self.root)

    def hashes_of(self, case: Case) -> tuple[str, str]:
        """SHA-256 of a case's images, joined by ``;``, and of its mask, as ``manifest.csv`` has them."""
        hashes = [case.sha256.get(self.key(file), "") for file in case.images]
        images = ";".join(hashes) if all(hashes) else ""
        return images, "" if case.mask is None else case.sha256.get(self.key(case.mask), "")

    def digest(self) -> str:
        """SHA-256 over ids, subjects, labels and file contents; independent of order, names and places of files."""
        hashed = self if all(case.sha256 for case in self.cases) else self.with_hashes()
        rows: list[Any] = [
            [case.id, case.subject, [case.sha256[self.key(path)] for path in case_files(case)], case.mask is not None]
            for case in sorted(hashed.cases, key=lambda case: case.id)
        ]
        # How files are read is part of what is read, where it is not the usual way.
        for case in hashed.cases:
            if case.fill is not None or case.unscaled:
                rows.append([case.id, case.fill, case.unscaled])
            if case.resample_mask:
                rows.append([case.id, "resampled mask"])
            if case.resample_channels and len(case.images) > 1:
                rows.append([case.id, "resampled channels"])
        return files.sha256_json([rows, {str(value): name for value, name in sorted(self.labels.items())}])

    def write_csv(self, path: str | Path) -> None:
        """Write the canonical manifest, and beside it a ``.json`` of the same name with cohort name and labels.

        Columns: id, subject, image, mask, sha256_image, sha256_mask, then the attributes. Paths are relative to the
        CSV's folder, and ``;`` joins channels.

        Raises:
            DataError: If a path holds ``;``, an attribute is named as a column, or the file cannot be written.
        """
        path = Path(path)
        extra = sorted({name for case in self.cases for name in case.attributes})
        if clash := set(extra) & set(COLUMNS):
            raise DataError(f"{path}: attribute {min(clash)!r} is the name of a manifest column; rename the attribute")
        files.write_csv(path, [self._row(case, path, extra) for case in self.cases], (*COLUMNS, *extra))
        labels = {str(value): name for value, name in sorted(self.labels.items())}
        about: dict[str, Any] = {"name": self.name, "labels": labels}
        if self.intake.channels:
            about["channels"] = list(self.intake.channels)
        if self.intake.regions:
            about["regions"] = {name: list(numbers) for name, numbers in self.intake.regions.items()}
            about["class_order"] = list(self.intake.class_order)
        files.write_json(path.with_suffix(".json"), about)

    def _row(self, case: Case, path: Path, extra: Sequence[str]) -> dict[str, str]:
        for file in case_files(case):
            if ";" in str(file):
                raise DataError(f"{file}: ';' in a file name cannot be written to {path}; rename the file")
        images, mask = self.hashes_of(case)
        return {
            "id": case.id,
            "subject": case.subject,
            "image": ";".join(key_of(file, path.parent) for file in case.images),
            "mask": "" if case.mask is None else key_of(case.mask, path.parent),
            "sha256_image": images,
            "sha256_mask": mask,
            **{name: case.attributes.get(name, "") for name in extra},
        }


def case_files(case: Case) -> list[Path]:
    """Image files in channel order, then the mask."""
    return [*case.images, *([] if case.mask is None else [case.mask])]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of all that is read with it: a folder, a DICOM series, voxels beside a header."""
    if path.is_dir():
        folder, found = path, [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    else:
        folder, found = path.parent, io.files_of(path)
        if found == [path]:
            return files.sha256_file(path)
    return files.sha256_json([[key_of(file, folder), files.sha256_file(file)] for file in sorted(found)])


def key_of(path: Path, folder: Path) -> str:
    """How a file is named relative to a folder, with forward slashes."""
    # Folders are resolved, so that ".." leads back through no link; a file that is itself a link keeps its own name.
    own = path.parent.resolve() / path.name
    try:
        return Path(os.path.relpath(own, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return own.as_posix()


def split_subjects(manifest: Manifest, parts: Mapping[str, float], seed: int) -> dict[str, Manifest]:
    """Divide a cohort by subject.

    Subjects are ordered by a hash of seed and name, so the split does not depend on the order of the cases, and
    largest remainders decide how many subjects each part gets.

    Args:
        manifest: The cohort.
        parts: Size of each part relative to the others, such as ``{"train": 0.6, "calibration": 0.2, "test": 0.2}``.
        seed: Seed of the run, from which every random stream is derived.

    Returns:
        A manifest per part, in the order of ``parts``; every subject is in exactly one.

    Raises:
        DataError: If a size is not positive, or there are fewer subjects than parts.
    """
    if not parts or min(parts.values()) <= 0:
        raise DataError(f"parts {dict(parts)}: expected a positive size for each part of the split")
    subjects = _shuffled(manifest, seed, "split")
    if len(subjects) < len(parts):
        raise DataError(
            f"{manifest.name}: {len(subjects)} subjects cannot be split into {len(parts)} parts ({', '.join(parts)}); "
            "add subjects, or check the subject list"
        )
    shares = np.array(list(parts.values()), dtype=np.float64)
    # One subject for every part first; the rest by largest remainder of what each part still lacks.
    exact = np.maximum(shares / shares.sum() * len(subjects), 1)
    spare = len(subjects) - len(parts)
    lacking = exact - 1
    ideal = lacking / lacking.sum() * spare if lacking.sum() > 0 else np.zeros(len(parts))
    counts = np.floor(ideal + 1e-9).astype(int) + 1
    for index in np.argsort(-(ideal - np.floor(ideal + 1e-9)), kind="stable")[: len(subjects) - counts.sum()]:
        counts[index] += 1
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return {
        name: _of_subjects(manifest, subjects[start:stop])
        for name, start, stop in zip(parts, bounds, bounds[1:], strict=False)
    }


def kfold_subjects(manifest: Manifest, k: int, seed: int) -> list[tuple[Manifest, Manifest]]:
    """``k`` pairs (train, held out), each subject held out once; sizes differ by one subject at most.

    Raises:
        DataError: If ``k`` is below 2 or above the number of subjects.
    """
    subjects = _shuffled(manifest, seed, "kfold")
    if not 2 <= k <= len(subjects):
        raise DataError(f"{manifest.name}: {k} folds of {len(subjects)} subjects; expected 2 to {len(subjects)} folds")
    folds = [subjects[number::k] for number in range(k)]
    return [
        (_of_subjects(manifest, [name for name in subjects if name not in set(fold)]), _of_subjects(manifest, fold))
        for fold in folds
    ]


def write_splits(path: str | Path, parts: Mapping[str, Manifest]) -> None:
    """Write which case is in which part: columns case, subject, part.

    Raises:
        DataError: If a subject is in two parts, or the file cannot be written.
    """
    owner: dict[str, str] = {}
    for part, manifest in parts.items():
        for subject in manifest.subjects:
            if owner.setdefault(subject, part) != part:
                raise DataError(f"{path}: subject {subject!r} is in {owner[subject]!r} and {part!r}; split by subject")
    rows = [{"case": case.id, "subject": case.subject, "part": part} for part, m in parts.items() for case in m]
    files.write_csv(path, rows, ("case", "subject", "part"))


def _shuffled(manifest: Manifest, seed: int, purpose: str) -> list[str]:
    return sorted(manifest.subjects, key=lambda subject: (derive(seed, purpose, subject), subject))


def _of_subjects(manifest: Manifest, subjects: Sequence[str]) -> Manifest:
    wanted = set(subjects)
    return replace(manifest, cases=tuple(case for case in manifest.cases if case.subject in wanted))


def moved(manifest: Manifest, old: Path, new: Path) -> Manifest:
    """The same manifest after its folder was renamed; hashes are relative to the root and stay valid."""
    cases = tuple(
        replace(
            case,
            images=tuple(new / path.relative_to(old) for path in case.images),
            mask=None if case.mask is None else new / case.mask.relative_to(old),
        )
        for case in manifest
    )
    return replace(manifest, root=new, cases=cases)
