"""Commands about cohorts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from .answer import Answer, finish, plan
from .carry_out import bar, group, listed
from .options import CohortOptions, ImageOptions, SpreadInFolder, Workers, command

data_app = group("data", "Check, simulate, import and implant cohorts.", "Example: medgen data check my-scans")


@command(data_app, "check", "medgen data check my-scans")
def data_check(
    path: Annotated[Path, typer.Argument(help="Cohort folder, manifest, one scan file or one DICOM folder.")],
    options: CohortOptions,
    spreading: SpreadInFolder,
    workers: Workers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the cases are and how they would be spread, then stop.")
    ] = False,
) -> Answer:
    """Check every file of a cohort in one pass and print a table of its cases; exit 2 if any has a fault."""
    from ..preflight import check_path

    check_path(path)
    spread = spreading.spread(workers)
    cohort = options.cohort()
    if dry_run:
        from medgen.data.account import account
        from medgen.data.layouts.detect import load_cohort

        manifest = load_cohort(path, cohort)
        how = [f"{len(manifest)} case(s) in threads of this process"] if spread is None else spread.words(len(manifest))
        return plan([*account(manifest), *how])
    if spread is not None:
        from ..spread.check import run
        from .checked import answer

        with bar("checking") as progress:
            return answer(path, run(path, cohort, spread, spreading.shards_in, progress))
    from medgen.data.integrity import check

    from .checked import answer

    with bar("checking") as progress:
        result = check(path, cohort, workers=workers or 2, progress=progress)
    return answer(path, result)


@command(data_app, "simulate", "medgen data simulate cohort -n 40 --seed 0 --spacing 2")
def data_simulate(
    out: Annotated[Path, typer.Argument(help="New folder for the cohort.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of subjects.")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Seed; subject k is the same whatever n.")] = 0,
    spacing: Annotated[float, typer.Option("--spacing", min=0.5, max=16, help="Voxel size in mm.")] = 2.0,
) -> Answer:
    """Simulate a cohort of brains with CSF, GM and WM labels from the MNI template."""
    from ..preflight import check_empty

    check_empty(out)
    from medgen.data.simulation import simulate

    with bar("simulating") as progress:
        manifest = simulate(out, n=n, seed=seed, spacing=spacing, progress=progress)
    line = f"{len(manifest)} subjects in {out} (manifest.csv, card.md)"
    return Answer({"out": out, "subjects": len(manifest), "lines": [line]}, (line,))


@command(data_app, "implant", "medgen data implant cohort implanted --seed 0 --kinds uniform,blur")
def data_implant(
    cohort: Annotated[Path, typer.Argument(help="Cohort of healthy scans, any layout.")],
    out: Annotated[Path, typer.Argument(help="New folder for the implanted scans and their ground truth.")],
    options: ImageOptions,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kinds",
            help="Comma-separated kinds; default: all.",
            autocompletion=completion.several_among(completion.kinds),
        ),
    ] = None,
    lesions: Annotated[
        Path | None, typer.Option("--masks", help="Folder of real lesion masks for lesion shapes.")
    ] = None,
) -> Answer:
    """Put anomalies with known ground truth into healthy scans."""
    from ..preflight import check_data, check_empty, check_folder

    check_data(cohort)
    check_empty(out)
    if lesions is not None:
        check_folder(lesions, "lesion masks")
    reading = options.cohort()
    from medgen.data.layouts.detect import load_cohort
    from medgen.implants import implant_cohort

    manifest = load_cohort(cohort, reading)
    chosen = None if kinds is None else listed(kinds)
    with bar("implanting") as progress:
        result = implant_cohort(manifest, out, seed=seed, kinds=chosen, masks=lesions, progress=progress)
    line = f"{len(result)} scans in {out} (manifest.csv names kind, size and contrast of each)"
    return Answer({"out": out, "scans": len(result), "lines": [line]}, (line,))


@command(data_app, "prepare", "medgen data prepare scans prepared brain=extract bias_field=n4")
def data_prepare(
    source: Annotated[Path, typer.Argument(metavar="COHORT", help="Cohort in any layout.")],
    out: Annotated[Path, typer.Argument(help="New folder for prepared scans, pictures and the table.")],
    options: ImageOptions,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the recipe, such as window=brain or brain=extract."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML with keys of the recipe, or a run's configuration with `preprocess:`."),
    ] = None,
    max_side: Annotated[
        int, typer.Option("--max-side", min=16, help="Most voxels along an axis where the recipe chooses.")
    ] = 128,
) -> Answer:
    """Try a preprocessing recipe: every scan before and after, and what was done; exit 2 if none can be prepared."""
    from ..preflight import check_data, check_empty

    check_data(source)
    check_empty(out)
    reading = options.cohort()
    from .. import prepare_cohort

    wanted = prepare_cohort.wanted_keys(config, overrides or [])
    with bar("preparing") as progress:
        summary = prepare_cohort.run(source, out, reading, wanted, max_side=max_side, progress=progress)
    return finish(summary)


@command(data_app, "import", "medgen data import dicom-folder cohort")
def data_import(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DICOM folder or a cohort in any layout.")],
    out: Annotated[Path, typer.Argument(help="New folder for NIfTI files, manifest and a draft card.")],
    options: CohortOptions,
    spreading: SpreadInFolder,
    keep_ids: Annotated[
        bool,
        typer.Option("--keep-ids", help="Keep the source's case and subject ids and columns, whoever they name."),
    ] = False,
    key: Annotated[
        Path | None, typer.Option("--key", help="Key file of the pseudonyms; default: beside OUT. Never share it.")
    ] = None,
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read and written, then stop.")] = False,
) -> Answer:
    """Convert a cohort to NIfTI with a manifest and a draft data card, under pseudonymous ids."""
    from ..preflight import check_data, check_empty

    check_data(source)
    check_empty(out)
    spread = spreading.spread(workers)
    settings = options.cohort()
    from .. import import_cohort as importing

    common: dict[str, Any] = {"keep_ids": keep_ids, "key": key, "spread": spread}
    if dry_run:
        return plan(importing.plan(source, out, settings, **common))
    return finish(importing.run(source, out, settings, workers=workers or 2, shards_in=spreading.shards_in, **common))
