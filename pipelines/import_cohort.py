"""Convert a cohort of any layout to NIfTI with a manifest and a draft data card, under ids that name nobody."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np

from medgen import io
from medgen.data import faces
from medgen.data.account import account
from medgen.data.cards.card import new_card
from medgen.data.cards.facts import facts_of
from medgen.data.cases import Case, Manifest, case_files
from medgen.data.integrity import image_faults
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.data.pseudonyms import Pseudonyms, plain_attributes
from medgen.errors import DataError, MedgenError
from medgen.faults import FaultyDataError, visible
from medgen.runs.cases.manifest import Item
from medgen.runs.cases.map_cases import Spread, collect, map_cases
from medgen.runs.folder import RunSummary
from medgen.system.advice import as_options, quoted
from medgen.system.files import write_csv, write_text
from medgen.system.modes import make_folder
from medgen.volume import Grid

from .spread.check import stamps

_SHOWN = 20


def key_file(out: Path) -> Path:
    """Where the key of the pseudonyms is kept: beside the new folder, never in it nor in the source."""
    out = out.resolve()
    return out.parent / f"{out.name}.medgen-key.json"


def check_key(place: Path, source: Path, out: Path) -> None:
    """Refuse a place for the key that is shared or read with the scans.

    Raises:
        DataError: If it lies in the new folder or in the source.
    """
    if place.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{place}: the key must not lie in the new folder, which is to be shared; give --key FILE")
    if source.is_dir() and place.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{place}: the key must not lie among the scans of the source; give --key FILE")


def plan(
    source: Path,
    out: Path,
    cohort: CohortConfig,
    *,
    keep_ids: bool = False,
    key: Path | None = None,
    spread: Spread | None = None,
) -> list[str]:
    """What an import would read and write: the lines of ``--dry-run``.

    Raises:
        DataError: As :func:`run`, as far as that is known beforehand.
    """
    manifest = load_cohort(source, cohort)
    place = _checked_places(source, out, keep_ids=keep_ids, key=key)
    how = [] if spread is None else spread.words(len(manifest))
    return [*map(as_options, account(manifest)), *_key_lines(place, source), *how, f"output: {out}"]


def _checked_places(source: Path, out: Path, *, keep_ids: bool, key: Path | None) -> Path | None:
    """Where the key goes, None without pseudonyms; nothing is written if a place will not do."""
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose a new folder")
    if keep_ids:
        return None
    place = (key or key_file(out)).absolute()
    check_key(place, source, out)
    return place


def _key_lines(place: Path | None, source: Path) -> list[str]:
    if place is None:
        return ["ids: those of the source are kept (--keep-ids)"]
    there = "is used again" if place.exists() else "will be made"
    lines = [f"key of the pseudonyms: {place} ({there}; keep it, and never share it)"]
    earlier = source.resolve().parent / f"{source.resolve().name}.medgen-key.json"
    if earlier.exists() and earlier != place and not place.exists():
        lines.append(f"an earlier key lies beside the source; for the same ids as then, add --key {quoted(earlier)}")
    return lines


def run(
    source: Path,
    out: Path,
    cohort: CohortConfig,
    *,
    workers: int,
    keep_ids: bool = False,
    key: Path | None = None,
    spread: Spread | None = None,
    shards_in: Path | None = None,
) -> RunSummary:
    """Read every case, write ``images/`` and ``masks/`` as NIfTI, ``manifest.csv`` and ``card.md``.

    Case and subject ids become pseudonyms, and no name, path or free text of the source is written to ``out``. A case
    that cannot be read is listed in ``failures.csv`` and left out; the others are done. The new folder appears as a
    whole or not at all.

    Args:
        source: DICOM folder or a cohort in any layout.
        out: New folder.
        cohort: How the source is laid out.
        workers: Threads that hash files.
        keep_ids: Keep the source's own ids and columns.
        key: Key file of the pseudonyms; default: :func:`key_file`. Its path is said on stderr before it is made.
        spread: Where cases are converted; None: one after the other in this process.
        shards_in: Folder for the shards, which an import that was interrupted goes on with. The key is then kept before
            anything is converted, since the same case gets the same pseudonym by it alone.

    Raises:
        ConfigError: If ``shards_in`` holds shards of another import or something else.
        DataError: If ``out`` is not empty, no case could be read, or the key file cannot be kept.
    """
    manifest = load_cohort(source, cohort)
    place = _checked_places(source, out, keep_ids=keep_ids, key=key)
    names = None if place is None else Pseudonyms(place)
    print("\n".join(map(visible, [*map(as_options, account(manifest)), *_key_lines(place, source)])), file=sys.stderr)
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as name:
        folder = Path(name) / "cohort"
        make_folder(folder)
        place = shards_in or Path(name) / "shards"
        targets = (case if names is None else _pseudonymous(case, names) for case in manifest)
        pairs = zip(manifest, targets, strict=True)
        convert = Convert(manifest.name, nameless=names is not None)
        if spread is None:
            done = _Done.of(folder, ((case, target, convert((case, target), folder)) for case, target in pairs))
        else:
            if names is not None and shards_in is not None:
                names.save()
            done = _Done.of(folder, _in_shards(convert, manifest, pairs, place, spread, cohort))
            collect(place, folder)
        cases, failures, spoken = done.cases, done.failures, done.spoken
        if not cases:
            raise DataError(f"{source}: none of {len(manifest)} case(s) could be read; first: {spoken[0]}")
        label = manifest.name if keep_ids else out.resolve().name
        converted = replace(manifest, name=label, root=folder, cases=tuple(sorted(cases, key=lambda item: item.id)))
        converted = converted.with_hashes(workers=workers)
        converted.write_csv(folder / "manifest.csv")
        write_csv(folder / "failures.csv", failures, ["case", "stage", "reason"])
        warnings = [f"{count} case(s): {note}" for note, count in sorted(done.notes.items())]
        facts = facts_of(replace(manifest, cases=tuple(done.read)), done.grids)
        # Patients may have other numbers than their folders say.
        card = new_card(out.name, {**facts.fields(), "n_subjects": len(converted.subjects)})
        write_text(folder / "card.md", _with_privacy(card, keep_ids, warnings))
        if names is not None:
            names.save()
        if out.exists():
            out.rmdir()
        folder.rename(out)
    lines = [f"{len(cases)} case(s) in {out} (manifest.csv; fill in card.md)"]
    lines += [f"warning: {line}" for line in warnings]
    if names is not None:
        lines.append(f"ids are pseudonyms; {names.path} leads back to the patients: keep it, and never share it")
    if failures:
        lines.append(f"{len(failures)} case(s) could not be read, see {out / 'failures.csv'}")
        lines += spoken[:_SHOWN]
    return RunSummary(out, 1 if failures else 0, tuple(lines))


def _pseudonymous(case: Case, names: Pseudonyms) -> Case:
    patient = io.patient_key(case.images[0]) if case.images[0].is_dir() else ""
    return replace(
        case,
        id=names.name("case", case.id),
        subject=names.name("subject", patient or case.subject),
        attributes=plain_attributes(case.attributes),
    )


def _nameless(error: MedgenError, case: Case, cohort: str) -> str:
    """Why a case could not be read, without the names of its files and folders, which may name the patient."""
    if isinstance(error, FaultyDataError):
        text = " | ".join(f"{fault.found}; expected {fault.expected}; {fault.action}" for fault in error.faults[:10])
    else:
        text = str(error)
    words = {case.id, case.subject, cohort}
    for path in case_files(case):
        inside = path.rglob("*") if path.is_dir() else ()
        for file in (path, path.absolute(), *inside):
            words |= {str(file), file.name, io.stem(file), file.stem, *file.parts}
    for word in sorted((word for word in words if len(word) > 2), key=len, reverse=True):
        text = text.replace(word, "(name)")
    return text


def _with_privacy(card: str, keep_ids: bool, warnings: list[str]) -> str:
    ids = "are those of the source" if keep_ids else "are pseudonyms, whose key is kept apart from this folder"
    found = "".join(f"\n- {line}" for line in warnings) or "\n- no sign of faces or of text in the pixels was found"
    return f"{card.rstrip()}\n\n## Privacy on import\n\n- case and subject ids {ids}{found}\n"


@dataclass(frozen=True)
class Convert:
    """Converts a case, in whichever process.

    Attributes:
        cohort: What the cohort of the source is called.
        nameless: Whether reasons of failures must not hold names.
    """

    cohort: str
    nameless: bool

    def __call__(self, task: tuple[Case, Case], place: Path) -> dict[str, Any]:
        """Write a case, given with what it is to be called, below ``place``; what was written, or why it was not."""
        case, target = task
        try:
            return _convert(case, target, place)
        except MedgenError as error:
            return {"said": str(error), "reason": _nameless(error, case, self.cohort) if self.nameless else str(error)}


@dataclass
class _Done:
    """What is done of an import: cases as written, those that they were read from, their grids, and what went wrong."""

    cases: list[Case] = field(default_factory=list)
    read: list[Case] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    spoken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, converting: Iterable[tuple[Case, Case, Mapping[str, Any]]]) -> _Done:
        """Of cases, what they are called, and what was written of each below a folder."""
        own = cls()
        for case, target, done in converting:
            if "grid" in done:
                own.cases.append(_converted(target, done, folder))
                own.read.append(case)
                own.grids.append(Grid(tuple(done["grid"]["shape"]), np.array(done["grid"]["affine"])))
                own.notes.update(done["notes"])
            else:
                own.spoken.append(f"{target.id}: {done['said']}")
                own.failures.append({"case": target.id, "stage": "import", "reason": done["reason"]})
        return own


def _in_shards(
    convert: Convert,
    manifest: Manifest,
    pairs: Iterator[tuple[Case, Case]],
    place: Path,
    spread: Spread,
    cohort: CohortConfig,
) -> Iterator[tuple[Case, Case, dict[str, Any]]]:
    """Convert cases in shards; the cases in their order, what they are called, and what was written of each."""
    given, told = tee(pairs)
    found = map_cases(
        convert,
        (Item(target.id, (case, target), stamps(case)) for case, target in given),
        count=len(manifest),
        folder=place,
        settings={"work": "data import", "nameless": convert.nameless, "cohort": cohort.model_dump(mode="json")},
        spread=spread,
    )
    for (case, target), (_, done) in zip(told, found, strict=True):
        yield case, target, done


def _converted(target: Case, done: Mapping[str, Any], folder: Path) -> Case:
    """The case as written below a folder."""
    # Once converted, channels are files and slices are an axis.
    kept = {name: value for name, value in target.attributes.items() if name not in ("channels", "slices")}
    images = tuple(folder / name for name in done["images"])
    mask = None if done["mask"] is None else folder / done["mask"]
    return replace(target, images=images, mask=mask, sha256={}, relabel={}, attributes=kept)


def _convert(case: Case, target: Case, folder: Path) -> dict[str, Any]:
    """Write a case under the ids of ``target``: files below ``folder``, what to know before sharing it, its grid."""
    image = case.read_image()
    if faults := image_faults(case.images[0], image):
        raise FaultyDataError(faults)
    mask = case.read_mask(image)
    images = []
    for channel in range(image.data.shape[0]):
        name = f"{target.id}.nii.gz" if image.data.shape[0] == 1 else f"{target.id}_{channel:04d}.nii.gz"
        images.append(f"images/{name}")
        io.write(image.with_data(image.data[channel]), folder / images[-1])
    labels = None
    if mask is not None:
        labels = f"masks/{target.id}.nii.gz"
        io.write(mask, folder / labels)
    notes = {note.split(" with ", 1)[-1] for path in case.images if path.is_dir() for note in io.dicom_notes(path)}
    notes |= {faces.NOTE} if faces.may_show_face(image) else set()
    grid = {"shape": list(image.grid.shape), "affine": image.grid.affine.tolist()}
    return {"images": images, "mask": labels, "notes": sorted(notes), "grid": grid}
