"""Try a preprocessing recipe alone: prepared scans, pictures of each before and after, a table of what was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from medgen import io
from medgen.config import apply_overrides, read_yaml
from medgen.data.cases import Case
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.errors import DataError, MedgenError
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.cleaning import DONE, Cleaned
from medgen.preprocessing.prepared import PreparedScan, Template
from medgen.preprocessing.recipe import Preprocess
from medgen.preprocessing.template import build_template
from medgen.progress import Progress
from medgen.report.figures.before_after import before_after
from medgen.runs.folder import RunSummary
from medgen.system.files import write_bytes, write_csv, write_text
from medgen.system.new_folder import new_folder
from medgen.volume import Volume

from . import patient_names

TABLE, RECIPE = "prepared.csv", "recipe.yaml"
# Scans that the template is made of: enough for a mean, few enough to be held in memory together.
_TEMPLATE = 12


def wanted_keys(config: Path | None, overrides: Iterable[str]) -> dict[str, Any]:
    """Keys of the recipe: those of a file, or below ``preprocess`` of a run's configuration, and overrides."""
    values = {} if config is None else read_yaml(config)
    if isinstance(values.get("preprocess"), Mapping):
        values = dict(values["preprocess"])
    return apply_overrides(values, overrides)


def run(
    source: Path,
    out: Path,
    cohort: CohortConfig,
    wanted: Mapping[str, Any],
    *,
    max_side: int = 128,
    progress: Progress | None = None,
) -> RunSummary:
    """Prepare every scan of a cohort by one recipe, which the scans themselves complete.

    ``scans/`` gets the prepared images in model intensities, registered ones in the template's space, others in their
    scan's own world; ``mosaics/`` a picture of each before and after; ``prepared.csv`` a line for each with what was
    done or why it was refused; ``recipe.yaml``
    the complete recipe, for ``preprocess:`` of a run. A scan that is refused does not stop the others; the exit code is
    then 1.

    Args:
        source: A cohort in any layout.
        out: New folder; it appears as a whole.
        cohort: How the source is laid out.
        wanted: Keys of :class:`medgen.preprocessing.recipe.Preprocess`; what is left out is chosen from the scans.
        max_side: Most voxels along an axis where the recipe chooses.
        progress: Called with (scans done, scans in all).

    Raises:
        ConfigError: If a key is wrong.
        DataError: If ``out`` is not empty, or no scan could be prepared.
    """
    manifest = load_cohort(source, cohort)
    patient_names.announce(manifest)
    recipe = fit_preprocess(manifest, wanted, max_side)
    with new_folder(out) as folder:
        template = _template(list(manifest), recipe) if recipe.align == "affine" else None
        rows = []
        for number, case in enumerate(manifest, start=1):
            rows.append(_prepared(case, recipe, template, folder))
            if progress is not None:
                progress(number, len(manifest))
        refused = [row for row in rows if row["refused"]]
        if len(refused) == len(rows):
            raise DataError(
                f"{source}: none of {len(rows)} scans could be prepared; the first reason: {rows[0]['case']}: "
                f"{rows[0]['refused']}"
            )
        write_csv(folder / TABLE, rows, list(rows[0]))
        write_text(folder / RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    lines = [
        f"prepared: {len(rows) - len(refused)} of {len(rows)} scans, in {out} ({TABLE} says what was done to each)",
        *(f"{row['case']}: refused: {row['refused']}" for row in refused),
    ]
    return RunSummary(out, 1 if refused else 0, tuple(lines))


def _template(cases: list[Case], recipe: Preprocess) -> Template:
    """The mean of at most twelve scans that can be read and cleaned, spread over the cohort."""
    scans: list[Volume] = []
    for row in np.unique(np.linspace(0, len(cases) - 1, _TEMPLATE).round().astype(int)):
        try:
            scans.append(recipe.clean(cases[row].read_image()).scan)
        except MedgenError:
            continue  # its own line in the table says why
    return build_template(scans, recipe.model_copy(update=DONE))


def _prepared(case: Case, recipe: Preprocess, template: Template | None, folder: Path) -> dict[str, Any]:
    try:
        scan = case.read_image()
        cleaned = recipe.clean(scan)
        prepared = recipe.model_copy(update=DONE).apply(cleaned.scan, template)
    except MedgenError as error:
        return _row(case.id, refused=str(error))
    image = Volume(prepared.image, prepared.grid)
    # A registered scan lies in the template's space: in its own the model grid may be sheared, which no format holds.
    written = image if template is None else Volume(prepared.image, template.grid)
    io.write(written, folder / "scans" / f"{case.id}.nii.gz", description="medgen prepared")
    kept = Volume(prepared.foreground[None].astype(np.uint8), prepared.grid)
    write_bytes(folder / "mosaics" / f"{case.id}.png", before_after(scan, image, kept, case.id))
    return _row(case.id, recipe, cleaned, prepared)


def _row(
    case: str,
    recipe: Preprocess | None = None,
    cleaned: Cleaned | None = None,
    prepared: PreparedScan | None = None,
    refused: str = "",
) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "refused": refused, "steps": "", "black": "", "white": "", "kept": ""}
    row |= {"similarity": "", "foreground_ml": ""}
    if recipe is None or cleaned is None or prepared is None:
        return row
    low, gain = prepared.scale[0]
    volume = float(prepared.foreground.sum()) * prepared.grid.voxel_volume / 1e3
    return row | {
        "steps": " ".join([*cleaned.steps, *_placed(recipe, prepared)]),
        "black": f"{low:.6g}",
        "white": f"{low + gain:.6g}",
        "kept": f"{prepared.quality['kept']:.3f}",
        "similarity": f"{prepared.quality['similarity']:.3f}" if "similarity" in prepared.quality else "",
        "foreground_ml": f"{volume:.1f}",
    }


def _placed(recipe: Preprocess, prepared: PreparedScan) -> list[str]:
    """What was done after the steps on the scan's own grid: where it was put, and how it was scaled."""
    if recipe.align == "affine":
        quality = prepared.quality
        where = (
            f"Registered to the mean of the cohort (affine): correlation {quality['similarity']:.2f}, volume "
            f"{quality['determinant']:.2f} times the template's."
        )
    else:
        centre = "field of view" if recipe.center_on == "fov" else "foreground"
        where = f"Centred on its {centre}."
    voxels, spacing = (" x ".join(f"{value:g}" for value in own) for own in (recipe.shape, recipe.spacing))
    by = "its percentiles" if recipe.window is None else "the window"
    ends = ", ".join(f"{low:.6g} to {low + gain:.6g}" for low, gain in prepared.scale)
    return [where, f"Resampled to {voxels} voxels of {spacing} mm.", f"Scaled by {by}: {ends} become 0 to 1."]
