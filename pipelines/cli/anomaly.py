"""Commands of the anomaly pipeline and its benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .answer import Answer, finish, plan
from .carry_out import Runnable, carry_out, group, listed, say_if_new
from .options import (
    Device,
    FindOptions,
    Overwrite,
    Quiet,
    ReadOptions,
    Resume,
    RunOptions,
    SpreadOptions,
    Workers,
    command,
)

anomaly_app = group("anomaly", "Calibrated anomaly heatmaps.", "Example: medgen anomaly run simulated data=cohort")
# As :data:`medgen.io.dicom.objects.wanted.KINDS`, known before DICOM is imported.
VIEWERS = ("auto", "all", "findings", "none")
DICOM_OBJECTS = ("seg", "pmap", "sc", "sr")
PROGRAMS = ("bids", "slicer", "itksnap")
RUN = Runnable(
    configs="anomaly",
    config="anomaly.config:AnomalyRunConfig",
    refuse="anomaly.config:refuse",
    plan="anomaly.plan:plan",
    run="anomaly.run:run",
)


@command(anomaly_app, "run", "medgen anomaly run oasis data=my-brains out=runs/brains")
def anomaly_run(options: RunOptions) -> Answer:
    """Train on healthy scans, calibrate, evaluate on held-out subjects, write heatmaps and a report."""
    return carry_out(RUN, options)


@command(anomaly_app, "score", "medgen anomaly score scan.nii.gz --model runs/brains/model --out scored")
def anomaly_score(
    scans: Annotated[
        list[Path],
        typer.Argument(metavar="SCAN...", help="NIfTI, NRRD or MHA files, DICOM folders; or T1=FILE,T2=FILE."),
    ],
    model: Annotated[Path, typer.Option("--model", help="Artifact folder of an anomaly run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for heatmaps, findings, p-values and the report.")],
    reading: ReadOptions,
    spreading: SpreadOptions,
    ungated: Annotated[
        bool,
        typer.Option(
            "--ungated", help="Score what the gate refuses too: heatmap and ranks, no p-values and no findings."
        ),
    ] = False,
    covariates: Annotated[
        str | None,
        typer.Option("--covariates", help="Of the people: age=71,sex=F, or a table with a line for each scan."),
    ] = None,
    unadjusted: Annotated[
        bool, typer.Option("--unadjusted", help="Score scans whose covariates are not known as average people.")
    ] = False,
    resume: Resume = False,
    false_findings: Annotated[
        float | None,
        typer.Option("--false-findings", help="List findings up to so many expected false ones per healthy scan."),
    ] = None,
    viewers: Annotated[
        str,
        typer.Option(
            "--viewers",
            help="Pages to look through scans: auto, all, findings (scans with some) or none.",
            autocompletion=completion.among(VIEWERS),
        ),
    ] = "auto",
    dicom: Annotated[
        str | None,
        typer.Option(
            "--dicom",
            help="DICOM objects of scans from DICOM series: seg,pmap,sc,sr or some of these; all.",
            autocompletion=completion.several_among(lambda: (*DICOM_OBJECTS, "all")),
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            "--export",
            help="For other programs: bids,slicer,itksnap or some of these; all.",
            autocompletion=completion.several_among(lambda: (*PROGRAMS, "all")),
        ),
    ] = None,
    overwrite: Overwrite = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=256, help="How many work at once, with --executor or --shards."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how the scans would be spread, with which resources, then stop.")
    ] = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Answer:
    """Score new scans: heatmaps in their own space, findings, p-values and a report."""
    from ..given_scans import GivenScan
    from ..preflight import check_choice, check_model, check_scans, check_scoring, check_spread

    check_choice("--viewers", viewers, VIEWERS)
    for kind in listed(dicom or ""):
        check_choice("--dicom", kind.lower(), (*DICOM_OBJECTS, "all"))
    for kind in listed(export or ""):
        check_choice("--export", kind.lower(), (*PROGRAMS, "all"))
    check_scans(scans)
    check_model(model)
    check_scoring(
        out,
        (*(file for scan in scans for file in GivenScan.parse(scan).files), model),
        resume=resume,
        overwrite=overwrite,
    )
    from medgen.anomaly.export.wanted import wanted as wanted_programs
    from medgen.io.dicom.objects.wanted import wanted

    kinds = () if dicom is None else wanted(dicom)
    programs = () if export is None else wanted_programs(export)
    spread = spreading.spread(workers)
    check_spread(spread, len(scans), workers)
    if dry_run:
        how = [f"{len(scans)} scan(s), one after the other"] if spread is None else spread.words(len(scans))
        return plan([*how, f"output: {out}"])
    if resume:
        say_if_new(out)
    from ..anomaly import score as pipeline

    return finish(
        pipeline.score(
            scans,
            model=model,
            out=out,
            device=device or "auto",
            ungated=ungated,
            covariates=covariates,
            unadjusted=unadjusted,
            false_findings=false_findings,
            fill=reading.fill,
            unscaled=reading.unscaled,
            slices=reading.slices,
            viewers=viewers,
            dicom=kinds,
            export=programs,
            resume=resume,
            overwrite=overwrite,
            progress=not quiet,
            spread=spread,
        )
    )


@command(anomaly_app, "adapt", "medgen anomaly adapt runs/brains/model healthy-scans-of-our-site runs/our-site")
def anomaly_adapt(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Artifact folder of an anomaly run.")],
    healthy: Annotated[
        Path, typer.Argument(metavar="HEALTHY", help="Healthy scans of the other site, at least ten subjects.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder; OUT/model is what score takes.")],
    found: FindOptions,
    device: Device = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> Answer:
    """Move a model to another site by a few of its healthy scans; nothing is trained, the old model stays."""
    from ..preflight import ADAPTATION, check_data, check_model, check_new

    check_model(model)
    check_data(healthy)
    check_new(out, (model, healthy), overwrite=overwrite, mark=ADAPTATION)
    cohort = found.cohort()
    from ..anomaly import adapt as pipeline

    return finish(
        pipeline.run(
            model,
            healthy=healthy,
            out=out,
            cohort=cohort,
            device=device or "auto",
            workers=2 if workers is None else workers,
            overwrite=overwrite,
            progress=not quiet,
        )
    )


@command(anomaly_app, "evaluate", "medgen anomaly evaluate heatmaps masks --against other-heatmaps --out compared")
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
    seed: Annotated[int, typer.Option("--seed", help="Seed of the resampling.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> Answer:
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
    return finish(pipeline.run(settings, overwrite=overwrite, progress=not quiet))
