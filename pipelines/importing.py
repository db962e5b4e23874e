"""Convert a cohort of any layout to NIfTI with a manifest and a draft data card, under ids that name nobody."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from medgen import faces, io
from medgen.cards import new_card
from medgen.cases import Case, Manifest, case_files
from medgen.errors import DataError, MedgenError
from medgen.faults import FaultyDataError
from medgen.files import write_csv, write_text
from medgen.integrity import image_faults
from medgen.layouts import CohortConfig, load_cohort
from medgen.pseudonyms import Pseudonyms, plain_attributes

from .runfolder import RunSummary

_SHOWN = 20


def key_file(source: Path) -> Path:
    """Where the key of a source's pseudonyms is kept: beside the source, never in the output."""
    source = source.resolve()
    return source.parent / f"{source.name}.medgen-key.json"


def run(
    source: Path, out: Path, cohort: CohortConfig, *, workers: int, keep_ids: bool = False, key: Path | None = None
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
        key: Key file of the pseudonyms; default: :func:`key_file`.

    Raises:
        DataError: If ``out`` is not empty, no case could be read, or the key file cannot be kept.
    """
    manifest = load_cohort(source, cohort)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose a new folder")
    names = None
    if not keep_ids:
        place = (key or key_file(source)).absolute()
        if place.resolve().is_relative_to(out.resolve()):
            raise DataError(f"{place}: the key must not lie in the new folder, which is to be shared; give --key FILE")
        names = Pseudonyms(place)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as name:
        folder = Path(name) / "cohort"
        folder.mkdir()
        cases: list[Case] = []
        failures: list[dict[str, str]] = []
        spoken: list[str] = []
        notes: Counter[str] = Counter()
        for case in manifest:
            target = case if names is None else _pseudonymous(case, names)
            try:
                converted_case, found = _convert(case, target, folder)
                cases.append(converted_case)
                notes.update(found)
            except MedgenError as error:
                spoken.append(f"{target.id}: {error}")
                reason = str(error) if names is None else _nameless(error, case, manifest)
                failures.append({"case": target.id, "stage": "import", "reason": reason})
        if not cases:
            raise DataError(f"{source}: none of {len(manifest)} case(s) could be read; first: {spoken[0]}")
        label = manifest.name if keep_ids else out.resolve().name
        converted = replace(manifest, name=label, root=folder, cases=tuple(sorted(cases, key=lambda item: item.id)))
        converted = converted.with_hashes(workers=workers)
        converted.write_csv(folder / "manifest.csv")
        write_csv(folder / "failures.csv", failures, ["case", "stage", "reason"])
        warnings = [f"{count} case(s): {note}" for note, count in sorted(notes.items())]
        card = new_card(out.name, n_cases=len(cases), n_subjects=len(converted.subjects), labels=manifest.labels)
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


def _nameless(error: MedgenError, case: Case, manifest: Manifest) -> str:
    """Why a case could not be read, without the names of its files and folders, which may name the patient."""
    if isinstance(error, FaultyDataError):
        text = " | ".join(f"{fault.found}; expected {fault.expected}; {fault.action}" for fault in error.faults[:10])
    else:
        text = str(error)
    words = {case.id, case.subject, manifest.name}
    for path in case_files(case):
        inside = path.rglob("*") if path.is_dir() else ()
        for file in (path, path.absolute(), *inside):
            words |= {str(file), file.name, io.stem(file), file.stem, *file.parts}
    for word in sorted((word for word in words if len(word) > 2), key=len, reverse=True):
        text = text.replace(word, "(name)")
    return text


def _with_privacy(card: str, keep_ids: bool, warnings: list[str]) -> str:
    ids = "are those of the source" if keep_ids else "are pseudonyms, whose key is kept beside the source"
    found = "".join(f"\n- {line}" for line in warnings) or "\n- no sign of faces or of text in the pixels was found"
    return f"{card.rstrip()}\n\n## Privacy on import\n\n- case and subject ids {ids}{found}\n"


def _convert(case: Case, target: Case, folder: Path) -> tuple[Case, list[str]]:
    """Write a case under the ids of ``target``; the case as written, and what to know before sharing it."""
    image = case.read_image()
    if faults := image_faults(case.images[0], image):
        raise FaultyDataError(faults)
    mask = case.read_mask(image)
    images = []
    for channel in range(image.data.shape[0]):
        name = f"{target.id}.nii.gz" if image.data.shape[0] == 1 else f"{target.id}_{channel:04d}.nii.gz"
        images.append(folder / "images" / name)
        io.write(image.with_data(image.data[channel]), images[-1])
    labels = None
    if mask is not None:
        labels = folder / "masks" / f"{target.id}.nii.gz"
        io.write(mask, labels)
    notes = {note.split(" with ", 1)[-1] for path in case.images if path.is_dir() for note in io.dicom_notes(path)}
    notes |= {faces.NOTE} if faces.may_show_face(image) else set()
    # Once converted, channels are files and slices are an axis.
    kept = {name: value for name, value in target.attributes.items() if name not in ("channels", "slices")}
    return replace(target, images=tuple(images), mask=labels, sha256={}, relabel={}, attributes=kept), sorted(notes)
