"""Commands of the anomaly pipeline and its benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.errors import ConfigError

from .options import (
    CohortOptions,
    ConfigArgument,
    Device,
    DryRun,
    Overrides,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Workers,
    finish,
    given,
    group,
    listed,
    plan,
)

anomaly_app = group("anomaly", "Calibrated anomaly heatmaps.", "Example: medgen anomaly run simulated data=cohort")
bench_app = group("bench", "Benchmarks with peers and intervals.", "Example: medgen bench anomaly bench --quick")


@anomaly_app.command("run", epilog="Example: medgen anomaly run oasis data=my-brains out=runs/brains")
def anomaly_run(
    config: ConfigArgument,
    overrides: Overrides = None,
    device: Device = None,
    seed: Seed = None,
    workers: Workers = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Train on healthy scans, calibrate, evaluate on held-out subjects, write heatmaps and a report."""
    told = given("anomaly", config, overrides, device, seed, workers)
    from ..anomaly.config import AnomalyRunConfig, refuse

    settings = told.parse(AnomalyRunConfig)
    refuse(settings, resume=resume, overwrite=overwrite)
    if dry_run:
        from ..anomaly.plan import plan as planned

        plan(planned(settings, resume=resume, overwrite=overwrite))
    from ..anomaly import run as pipeline

    finish(pipeline.run(settings, resume=resume, overwrite=overwrite, progress=not quiet))


@anomaly_app.command("score", epilog="Example: medgen anomaly score scan.nii.gz --model runs/brains/model --out scored")
def anomaly_score(
    scans: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="NIfTI, NRRD or MHA files, DICOM folders.")],
    model: Annotated[Path, typer.Option("--model", help="Artifact folder of an anomaly run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for heatmaps, findings, p-values and the report.")],
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Score what the gate refuses too, and say so; p-values do not hold there.")
    ] = False,
    fill: Annotated[float | None, CohortOptions["fill"]] = None,
    unscaled: Annotated[bool, CohortOptions["unscaled"]] = False,
    slices: Annotated[int | None, CohortOptions["slices"]] = None,
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Score new scans: heatmaps in their own space, findings, p-values and a report."""
    from ..preflight import SCORING, check_model, check_new, check_scans

    check_scans(scans)
    check_model(model)
    check_new(out, (*scans, model), overwrite=overwrite, mark=SCORING)
    from ..anomaly import score as pipeline

    finish(
        pipeline.score(
            scans,
            model=model,
            out=out,
            device=device or "auto",
            ungated=ungated,
            fill=fill,
            unscaled=unscaled,
            slices=slices,
            overwrite=overwrite,
            progress=not quiet,
        )
    )


@anomaly_app.command(
    "evaluate", epilog="Example: medgen anomaly evaluate heatmaps masks --against other-heatmaps --out compared"
)
def anomaly_evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of heatmaps; higher is more anomalous, NaN not scored.")],
    truth: Annotated[Path, typer.Argument(help="Folder of masks with the same file names; above 0 is anomalous.")],
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="Heatmaps of another method; may be given several times.")
    ] = None,
    subjects: Annotated[Path | None, typer.Option("--subjects", help="CSV file: scan, subject.")] = None,
    unmatched_healthy: Annotated[
        bool, typer.Option("--unmatched-healthy", help="A scan without a mask is healthy, not an error.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for metrics.json, metrics.csv, report.html.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all numbers to this file.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the resampling.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Measure heatmaps of any method against masks, and methods against each other."""
    from ..preflight import EVALUATION, check_folder, check_new

    for folder in (predictions, truth, *(against or ())):
        check_folder(folder)
    if out is not None:
        check_new(out, (predictions, truth, *(against or ())), overwrite=overwrite, mark=EVALUATION)
    from ..anomaly import evaluate as pipeline

    settings = pipeline.EvaluateConfig(
        predictions=predictions,
        truth=truth,
        against=tuple(against or ()),
        subjects=subjects,
        unmatched_healthy=unmatched_healthy,
        seed=seed,
        out=out,
    )
    finish(pipeline.run(settings, json_file=json_file, overwrite=overwrite, progress=not quiet))


@bench_app.command("anomaly", epilog="Example: medgen bench anomaly bench --data ../shared/data --seeds 0,1,2")
def bench_anomaly(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of runs, tables and pictures.")] = Path("bench"),
    data: Annotated[Path, typer.Option("--data", help="Has a folder per cohort, and lesions/.")] = Path("data"),
    seeds: Annotated[str | None, typer.Option("--seeds", help="Default: 0,1,2; with --quick 0.")] = None,
    cohorts: Annotated[
        str | None, typer.Option("--cohorts", help="Default: oasis,hippocampus; with --quick simulated.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Coarse grid, few steps: tries the command out.")] = False,
    resume: Resume = False,
    device: Device = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Run the anomaly pipeline under several seeds, with peers, and write anomaly.md, anomaly.json and pictures."""
    chosen = listed(cohorts or ("simulated" if quick else "oasis,hippocampus"))
    numbers = listed(seeds or ("0" if quick else "0,1,2"))
    if not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"--seeds: expected whole numbers such as 0,1,2, found {seeds!r}")
    from ..bench.cohorts import COHORTS, SIMULATED

    # A simulated cohort that is not there is made; unknown ones are refused by name.
    if set(chosen) & (set(COHORTS) - {SIMULATED}):
        from ..preflight import check_folder

        check_folder(data, "a folder per cohort")
    from ..bench import anomaly as pipeline

    finish(
        pipeline.run(
            out,
            data=data,
            seeds=[int(number) for number in numbers],
            cohorts=chosen,
            quick=quick,
            resume=resume,
            device=device or "auto",
            workers=workers or 2,
            progress=not quiet,
        )
    )


@bench_app.command("calibration", epilog="Example: medgen bench calibration bench --cohorts 2000")
def bench_calibration(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of the table.")] = Path("bench"),
    cohorts: Annotated[int, typer.Option("--cohorts", min=1, help="Simulated cohorts for each rate.")] = 2000,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Count how often healthy subjects of simulated cohorts get a finding, and write calibration.md and .json."""
    from ..bench import calibration as pipeline

    finish(pipeline.run(out, cohorts=cohorts, seed=seed or 0, progress=not quiet))
