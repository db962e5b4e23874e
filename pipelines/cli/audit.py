"""Commands that verify, trace and remake the outputs of a run, and look for leaks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .carry_out import bar, echo_json, group
from .options import AsJson, Device, command

audit_app = group("audit", "Verify and trace the outputs of a run.", "Example: medgen audit verify runs/anomaly")


@command(audit_app, "verify", "medgen audit verify runs/anomaly")
def audit_verify(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Compare every output file of a run with the hashes recorded when it ended; exit 2 on any difference."""
    from medgen.audit.verify import verify

    problems = verify(target)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{target}: every output is as the run left it")


@command(audit_app, "trace", "medgen audit trace runs/anomaly/heatmaps/case-001.nii.gz")
def audit_trace(target: Annotated[Path, typer.Argument(help="Output folder of a run, or one file in it.")]) -> None:
    """Print which run, inputs, configuration, code and weights an output comes from, as JSON."""
    from medgen.audit.verify import trace

    echo_json(trace(target))


@command(audit_app, "sync", "medgen audit sync runs/anomaly")
def audit_sync(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Send what a run could not deliver to the MLflow store; what has arrived is not sent twice."""
    from medgen.runs.tracking import sync

    typer.echo(f"{sync(target)} record(s) sent")


@command(audit_app, "replay", "medgen audit replay runs/augment/synthetic/provenance/syn-0001.json")
def audit_replay(
    target: Annotated[Path, typer.Argument(help="A record, a synthetic scan, or the folder of a synthetic cohort.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Generator; default: the model/ folder beside or above the cohort.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the files made again here.")] = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Make synthetic scans again from their records and compare every byte; exit 1 if any differs."""
    from medgen.audit.replay import replay

    with tempfile.TemporaryDirectory() as temporary, bar("replaying") as tick:
        results = replay(target, out or Path(temporary), model=model, device=device or "auto", tick=tick)
    if json_:
        echo_json([{"id": item.id, "identical": item.identical, "differences": item.differences} for item in results])
    else:
        for result in results:
            typer.echo(result)
    raise typer.Exit(0 if all(item.identical for item in results) else 1)


@command(audit_app, "leaks", "medgen audit leaks runs/augment/synthetic splits_final.json")
def audit_leaks(
    cohort: Annotated[Path, typer.Argument(metavar="SYNTHETIC", help="Folder of a synthetic cohort.")],
    held_out: Annotated[
        Path,
        typer.Argument(
            metavar="HELD_OUT",
            help="splits.csv, nnU-Net's splits_final.json, a list of case ids, or a folder of held-out scans.",
        ),
    ],
    json_: AsJson = False,
) -> None:
    """Say whether anybody in validation or test is a parent of, or was learnt from for, a synthetic cohort."""
    from medgen.audit.leaks import find_leaks

    leaks, count = find_leaks(cohort, held_out)
    if json_:
        echo_json([vars(leak) for leak in leaks])
    else:
        for leak in leaks:
            typer.echo(leak, err=True)
        typer.echo(f"{count} held-out case(s), {len(leaks)} known to the synthetic cohort")
    raise typer.Exit(2 if leaks else 0)
