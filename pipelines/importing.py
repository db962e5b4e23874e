"""Convert a cohort of any layout to NIfTI with a manifest and a draft data card."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from medgen import io
from medgen.cards import new_card
from medgen.cases import Case
from medgen.errors import DataError, MedgenError
from medgen.files import write_csv, write_text
from medgen.layouts import CohortConfig, load_cohort

from .runfolder import RunSummary


def run(source: Path, out: Path, cohort: CohortConfig, *, workers: int) -> RunSummary:
    """Read every case, write ``images/`` and ``masks/`` as NIfTI, ``manifest.csv`` and ``card.md``.

    A case that cannot be read is listed in ``failures.csv`` and left out; the others are done. The new folder appears
    as a whole or not at all.

    Raises:
        DataError: If ``out`` is not empty or no case could be read.
    """
    manifest = load_cohort(source, cohort)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as name:
        folder = Path(name) / "cohort"
        folder.mkdir()
        cases: list[Case] = []
        failures: list[dict[str, str]] = []
        for case in manifest:
            try:
                cases.append(_convert(case, folder))
            except MedgenError as error:
                failures.append({"case": case.id, "stage": "import", "reason": str(error)})
        if not cases:
            raise DataError(f"{source}: none of {len(manifest)} case(s) could be read; first: {failures[0]['reason']}")
        converted = replace(manifest, root=folder, cases=tuple(cases)).with_hashes(workers=workers)
        converted.write_csv(folder / "manifest.csv")
        write_csv(folder / "failures.csv", failures, ["case", "stage", "reason"])
        write_text(
            folder / "card.md",
            new_card(out.name, n_cases=len(cases), n_subjects=len(converted.subjects), labels=manifest.labels),
        )
        if out.exists():
            out.rmdir()
        folder.rename(out)
    lines = [f"{len(cases)} case(s) in {out} (manifest.csv; fill in card.md)"]
    if failures:
        lines.append(f"{len(failures)} case(s) could not be read, see {out / 'failures.csv'}")
    return RunSummary(out, 1 if failures else 0, tuple(lines))


def _convert(case: Case, folder: Path) -> Case:
    image, mask = case.read_image(), case.read_mask()
    images = []
    for channel in range(image.data.shape[0]):
        name = f"{case.id}.nii.gz" if image.data.shape[0] == 1 else f"{case.id}_{channel:04d}.nii.gz"
        images.append(folder / "images" / name)
        io.write(image.with_data(image.data[channel]), images[-1])
    target = None
    if mask is not None:
        target = folder / "masks" / f"{case.id}.nii.gz"
        io.write(mask, target)
    return replace(case, images=tuple(images), mask=target, sha256={})
