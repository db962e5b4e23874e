"""What a cohort was taken for, told the same way by ``data check``, by every plan, by runs and by reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgen import io
from medgen.data.cases import Manifest
from medgen.system.advice import shown
from medgen.volume import Volume


def account(manifest: Manifest, *, examples: bool = True) -> list[str]:
    """The lines that say what was taken for what: scans, masks, subjects, what was decided, what was left out.

    Args:
        manifest: The cohort.
        examples: Whether files are named; False where their names must not be shown.
    """
    intake, cases = manifest.intake, manifest.cases
    lines = []
    if intake.layout:
        lines.append(f"layout: {intake.layout}{' (made out from what is there)' if intake.chosen else ''}")
    first = f", such as {manifest.key(cases[0].images[0])}" if cases and examples else ""
    lines.append(f"scans: {len(cases)}{_channels(manifest)}{first}")
    marked = [case for case in cases if case.mask is not None]
    if marked and marked[0].mask is not None:
        told = f"; told by {intake.masks}" if intake.masks else ""
        such = f", such as {manifest.key(marked[0].mask)}" if examples else ""
        lines.append(f"masks: of {len(marked)} scans{such}{told}")
    else:
        lines.append("masks: none")
    source = f" ({intake.subjects})" if intake.subjects else ""
    lines.append(f"subjects: {len(manifest.subjects)}{source}")
    if intake.regions:
        regions = shown([f"{name} = {' + '.join(map(str, numbers))}" for name, numbers in intake.regions.items()], 6)
        lines.append(f"regions: {regions}")
    lines += [f"decided: {decision}" for decision in intake.decisions]
    return [*lines, *filter(None, [intake.left_out_sentence(examples=examples)])]


def account_of_scan(path: Path, image: Volume) -> list[str]:
    """The same of a single scan: what it was taken for, and how many voxels, of which size, it has.

    Args:
        path: A file, or a folder with one DICOM series.
        image: What was read from it, (c, i, j, k).
    """
    series = io.list_series(path)[:1] if path.is_dir() else []
    layout = f"one DICOM series ({series[0].modality}, {series[0].files} files)" if series else "one file"
    voxels = " x ".join(map(str, image.grid.shape))
    sizes = " x ".join(f"{size:.4g}" for size in image.grid.spacing)
    channels = f" of {len(image.data)} channels" if len(image.data) > 1 else ""
    return [f"layout: {layout}", f"scans: 1{channels}, {voxels} voxels of {sizes} mm, axes {image.grid.axcodes}"]


def to_plain(manifest: Manifest) -> dict[str, Any]:
    """The same as plain data, for JSON."""
    return {
        **manifest.intake.to_plain(),
        "scans": len(manifest),
        "masks": len(manifest.labelled()),
        "subjects": len(manifest.subjects),
    }


def _channels(manifest: Manifest) -> str:
    counts = {len(case.images) for case in manifest}
    names = manifest.intake.channels
    if len(counts) != 1 or (counts == {1} and len(names) < 2):
        return f" ({names[0]})" if len(names) == 1 else ""
    return f" of {max(*counts, len(names))} channels{' (' + ', '.join(names) + ')' if names else ''}"
