"""Every fault of a scan or a cohort in one pass: files, geometry, intensities, masks, labels, doubles."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medgen import io
from medgen.data import account
from medgen.data.annotation import annotation_faults, ignored_faults, unlike_binary_masks
from medgen.data.cases import Case, Manifest, case_files, key_of, sha256_of
from medgen.data.content import traits
from medgen.data.copies import Seen, doubles, label_maps, likely_copies, stripped_copies
from medgen.data.faces import NOTE, may_show_face
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.data.layouts.listing import images_in, is_dicom_file
from medgen.data.looked import CheckedCase, Looked
from medgen.data.masks import read_labels
from medgen.errors import DataError
from medgen.faults import Fault, FaultyDataError
from medgen.progress import Progress
from medgen.system.advice import apart, setting
from medgen.system.files import is_utf8
from medgen.system.processes import thread_pool
from medgen.volume import Volume

__all__ = [
    "CheckResult",
    "Fault",
    "check",
    "check_scans",
    "image_faults",
    "label_values",
    "look",
    "mask_faults",
    "mixed_channels",
]

_DEFAULT = CohortConfig()


@dataclass(frozen=True)
class CheckResult:
    """The faults and notes that a check of a cohort found.

    Attributes:
        faults: Everything that is wrong, by file; empty if all is well.
        cases: Number of cases (1 for a single scan) that were looked at.
        notes: What to know before the data are used or shared, and is no fault: objects that were left out, signs of
            text in the pixels.
        manifest: The cohort with hashes of its files as they are now; None for a single scan, or if no layout
            could be made out.
        scan: Lines that say what a single scan was taken for; empty for a cohort.
        scans: What was found of each case of a cohort, in its order.
    """

    faults: list[Fault]
    cases: int
    manifest: Manifest | None
    notes: tuple[str, ...] = ()
    scan: tuple[str, ...] = ()
    scans: tuple[CheckedCase, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def to_plain(self, path: str | Path) -> dict[str, Any]:
        """Plain data, as ``medgen data check --json`` writes it; keys of a schema are only ever added to.

        Returns:
            ``schema`` (1), ``path`` that was checked, ``ok``, ``cases`` (how many were looked at), ``files`` (names of
            those with a fault, each once), ``faults`` (each with ``file``, ``found``, ``expected``, ``action``),
            ``notes`` (sentences about what is no fault), ``taken`` (what was taken for what; null without a cohort),
            ``scans`` (what was found of each case, a :class:`CheckedCase`).
        """
        faults = [asdict(fault) for fault in self.faults]
        names = list(dict.fromkeys(fault.file for fault in self.faults))
        return {
            "schema": 1,
            "path": str(path),
            "ok": self.ok,
            "cases": self.cases,
            "files": names,
            "faults": faults,
            "notes": list(self.notes),
            "taken": None if self.manifest is None else account.to_plain(self.manifest),
            "scans": [asdict(case) for case in self.scans],
        }


# Looks at every case of a cohort, in its order: where it is done is the caller's choice.
Looking = Callable[[Manifest], Iterable[Looked]]


def check(
    path: str | Path,
    config: CohortConfig = _DEFAULT,
    workers: int = 2,
    progress: Progress | None = None,
    looking: Looking | None = None,
) -> CheckResult:
    """Look at every file of a cohort, a scan or a DICOM series, and collect all faults.

    A cohort's faults are those of its layout, of each image (unreadable, damaged, not finite, without orientation,
    constant, voxel sizes that cannot be mm), of each mask (other grid, fractional, negative or undeclared labels,
    empty), of hashes that are no longer right, and between cases: equal content under two subjects, different numbers
    of channels.

    Args:
        path: Cohort folder, manifest CSV, scan file, or folder with one DICOM series.
        config: How to find the cases.
        workers: Threads that read files.
        progress: Called with the number of cases done and their total.
        looking: What looks at the cases instead of threads, by :func:`look`.

    Returns:
        The result; nothing is raised for faulty data.
    """
    path = Path(path)
    if _is_scan(path):
        faults: list[Fault] = []
        volume = _read(lambda: io.read(path, slices=config.slices, fill=config.fill, unscaled=config.unscaled), faults)
        if volume is None:
            return CheckResult(faults, 1, None)
        scan = tuple(account.account_of_scan(path, volume))
        return CheckResult(image_faults(path, volume), 1, None, tuple(_notes(path, volume)), scan)
    try:
        manifest = load_cohort(path, config)
    except FaultyDataError as error:
        return CheckResult(list(error.faults), 0, None)
    except DataError as error:
        return CheckResult([_as_fault(path, error)], 0, None)
    return _check(manifest, workers, progress, looking)


def check_scans(
    manifest: Manifest,
    workers: int = 2,
    progress: Progress | None = None,
    *,
    masks: bool = True,
) -> Manifest:
    """The cohort with hashes of its files, once every file of it was looked at: training starts on sound data or not.

    Args:
        manifest: The cases.
        workers: Threads that read files.
        progress: Called with the number of cases done and their total.
        masks: Whether masks are looked at, too; False where the run does not use them.

    Raises:
        FaultyDataError: With every fault of :func:`check`.
    """
    cases = tuple(case if masks else replace(case, mask=None) for case in manifest)
    result = _check(replace(manifest, cases=cases), workers, progress)
    if result.faults:
        raise FaultyDataError(result.faults)
    return manifest.with_hashes(workers)


def _check(manifest: Manifest, workers: int, progress: Progress | None, looking: Looking | None = None) -> CheckResult:
    looked: list[Looked] = []
    with thread_pool(workers) as pool:
        threads = partial(pool.map, lambda case: look(case, manifest.root, manifest.labels), manifest.cases)
        for item in threads() if looking is None else looking(manifest):
            looked.append(item)
            if progress is not None:
                progress(len(looked), len(manifest))
    faults = [fault for item in looked for fault in item.faults]
    scans = [Seen(item.case, item.traits, item.content) for item in looked if item.traits]
    pairs = likely_copies(scans)
    faults += doubles(scans, pairs) + label_maps(scans) + stripped_copies(pairs)
    faults += mixed_channels([(item.case, item.channels) for item in looked])
    faults += unlike_binary_masks([(item.case, item.values) for item in looked], manifest.labels)
    with suppress(FaultyDataError):  # that the column is no numbers is said case by case
        faults += annotation_faults([item.case for item in looked if item.case.mask], manifest.labels)
    notes = tuple(note for item in looked for note in item.notes)
    checked = replace(manifest, cases=tuple(item.case for item in looked))
    return CheckResult(faults, len(manifest), checked, notes, scans=tuple(_checked(item, manifest) for item in looked))


def _checked(item: Looked, manifest: Manifest) -> CheckedCase:
    case, names = item.case, manifest.intake.channels
    grid = None if item.traits is None else item.traits.grid
    return CheckedCase(
        case.id,
        case.subject,
        () if grid is None else grid.shape,
        () if grid is None else grid.spacing,
        "" if grid is None else grid.axcodes,
        item.channels,
        names if len(names) == item.channels else (),
        case.mask is not None,
        item.values,
    )


def _is_scan(path: Path) -> bool:
    """Whether a path is meant as one scan: a folder of DICOM files, or any file that is no list of a cohort."""
    try:
        if path.is_dir():
            return io.has_dicom(path) and all(is_dicom_file(file) for file in images_in(path))
    except (OSError, ValueError):
        return True
    return path.suffix.lower() not in (".csv", ".json")


def _read(reader: Callable[[], Volume | None], faults: list[Fault]) -> Volume | None:
    """What the reader returns; its faults are collected instead of raised."""
    try:
        return reader()
    except FaultyDataError as error:
        faults.extend(error.faults)
    except DataError as error:
        faults.append(_as_fault(Path(), error))
    return None


def _as_fault(path: Path, error: DataError) -> Fault:
    """An error of one sentence, "file: found; expected ...; what to do", in its parts."""
    file, _, text = str(error).partition(": ")
    found, *rest = (text or str(error)).split("; ")
    expected = rest[0].removeprefix("expected ") if rest else "usable data"
    action = rest[1] if len(rest) > 1 else "correct it, or leave it out"
    return Fault(file if text else str(path), found, expected, action)


def look(case: Case, root: Path, labels: Mapping[int, str]) -> Looked:
    """Look at the files of one case.

    Args:
        case: The case.
        root: Folder that the keys of its hashes are relative to.
        labels: Declared label numbers; empty declares nothing.
    """
    faults: list[Fault] = []
    sha256, unread = {}, []
    for file in case_files(case):
        try:
            sha256[key_of(file, root)] = sha256_of(file)
        except DataError as error:
            unread.append(_as_fault(file, error))
    for name, recorded in case.sha256.items():
        if name in sha256 and sha256[name] != recorded:
            found, expected = (
                f"content changed (sha256 {sha256[name][:12]}...)",
                f"{recorded[:12]}... as in the manifest",
            )
            faults.append(Fault(str(root / name), found, expected, "restore it, or write the manifest again"))
    image = _read(case.read_image, faults)
    content = ""
    if image is not None:
        faults += image_faults(case.images[0], image)
        content, own = _content(image), traits(image)
        channels = image.data.shape[0]
    else:
        channels, own = 0, None
    values: tuple[int, ...] = ()
    if case.mask is not None:
        wrong, values = mask_faults(case, image, labels)
        faults += wrong
    # Said here only where the readers, which know more, have not said why.
    said = {fault.file for fault in faults}
    faults += [fault for fault in unread if fault.file not in said]
    notes = [] if image is None else _notes(case.images[0], image)
    return Looked(replace(case, sha256=sha256), tuple(faults), content, channels, tuple(notes), own, values)


def _content(image: Volume) -> str:
    """A hash of the voxels: the same scan packed anew, or stored as another type, is still the same scan."""
    digest = hashlib.blake2b(str(image.data.shape).encode(), digest_size=16)
    for plane in image.data.transpose(0, 3, 2, 1).reshape(-1, *image.data.shape[2:0:-1]):
        # Adding 0 makes one of the two zeros.
        digest.update(np.add(plane, 0, dtype=np.float32, casting="unsafe", order="C").data)
    return digest.hexdigest()


def _notes(path: Path, image: Volume) -> list[str]:
    """What to know of a file that can be read."""
    notes = io.dicom_notes(path) if path.is_dir() or io.is_dicom(path) else []
    notes += [] if is_utf8(path) else ["the name is not UTF-8: a run refuses it, medgen data import gives it another"]
    return [f"{path}: {note}" for note in (*notes, *([NOTE] if may_show_face(image) else []))]


def image_faults(path: Path, image: Volume) -> list[Fault]:
    """What is wrong with an image, (c, i, j, k), that could be read: a constant channel."""
    faults = []
    for number, channel in enumerate(image.data):
        low, high = channel.min(), channel.max()
        if low == high:
            which = f"channel {number} is" if len(image.data) > 1 else "all voxels are"
            faults.append(
                Fault(str(path), f"{which} {low:g}", "an image with contrast", "export it again, or leave it out")
            )
    return faults


def mask_faults(case: Case, image: Volume | None, labels: Mapping[int, str]) -> tuple[list[Fault], tuple[int, ...]]:
    """What is wrong with the mask of a case, and the label numbers it holds.

    Args:
        case: With a mask.
        image: Its image; None (unreadable) leaves the grid unchecked.
        labels: Declared label numbers; empty declares nothing.

    Returns:
        Faults: unreadable, other grid, fractional, negative or undeclared labels, empty, the image itself, voxels to
        ignore. Numbers without 0, ascending.
    """
    path = case.mask
    if path is None:
        return [], ()
    faults: list[Fault] = []
    # Where it lies and what it holds are looked at apart, so that a mask is corrected once and not once per fault.
    mask = _read(lambda: read_labels(path, unscaled=case.unscaled), faults)
    if mask is None:
        return faults, ()
    if image is not None:
        try:
            mask = case.on_grid(mask, image)
        except DataError as error:
            faults.append(_as_fault(path, error))
    values = label_values(case.renumbered(mask))
    if not values and not case.empty_mask:
        action = (
            "redraw it, leave the case out, or declare that empty masks say that there is nothing "
            "(cohort.empty_masks=true)"
        )
        faults.append(Fault(str(path), "an empty mask", "at least one labelled voxel", action))
    if image is not None and any(np.array_equal(mask.data[0], channel) for channel in image.data):
        action = "give the label map, or leave the case out"
        faults.append(Fault(str(path), f"the same voxels as {apart(path, case.images[0])[1]}", "a label map", action))
    if labels and (unknown := sorted(set(values) - set(labels))):
        found = f"undeclared labels {', '.join(map(str, unknown[:8]))}" + (" ..." if len(unknown) > 8 else "")
        known = ", ".join(str(value) for value in labels)
        names = {**labels, **{value: f"label {value}" for value in unknown[:8]}}
        # YAML of one line, as settings are given.
        declared = setting("labels", json.dumps({str(value): name for value, name in names.items()}))
        faults.append(Fault(str(path), found, f"0, {known}"[:80], f"declare them ({declared}), or correct the mask"))
    try:
        faults += ignored_faults(case, values, labels)
    except FaultyDataError as error:
        faults += error.faults
    return faults, values


def label_values(mask: Volume) -> tuple[int, ...]:
    """The labels that occur, without 0, ascending; counting is ten times faster than sorting where labels are small."""
    if mask.data.max() < 1 << 16:
        found = np.flatnonzero(np.bincount(mask.data.ravel(order="K").astype(np.int64, copy=False)))
    else:
        found = np.unique(mask.data)
    return tuple(int(value) for value in found if value > 0)


def mixed_channels(counts: Sequence[tuple[Case, int]]) -> list[Fault]:
    """A fault for every case whose number of channels is not the usual one; 0 stands for unknown."""
    numbers = Counter(count for _, count in counts if count)
    if len(numbers) < 2:
        return []
    usual = numbers.most_common(1)[0][0]
    return [
        Fault(str(case.images[0]), f"{count} channels", f"{usual} as in most cases", "add or remove channels")
        for case, count in counts
        if count not in (0, usual)
    ]
