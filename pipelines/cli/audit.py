"""Commands that verify, trace and remake the outputs of a run, and look for leaks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .answer import Answer
from .carry_out import bar, group
from .options import Device, command

audit_app = group("audit", "Verify and trace the outputs of a run.", "Example: medgen audit verify runs/anomaly")


@command(audit_app, "verify", "medgen audit verify runs/anomaly")
def audit_verify(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> Answer:
    """Compare every output file of a run with the hashes recorded when it ended; exit 2 on any difference."""
    from medgen.audit.verify import verify

    problems = verify(target)
    lines = () if problems else (f"{target}: every output is as the run left it",)
    return Answer({"target": target, "problems": problems}, lines, tuple(map(str, problems)), 2 if problems else 0)


@command(audit_app, "trace", "medgen audit trace runs/anomaly/heatmaps/case-001.nii.gz")
def audit_trace(target: Annotated[Path, typer.Argument(help="Output folder of a run, or one file in it.")]) -> Answer:
    """Print which run, inputs, configuration, code and weights an output comes from, as JSON."""
    from medgen.audit.verify import trace
    from medgen.system.files import plain

    found = trace(target)
    return Answer(found, (json.dumps(plain(found), indent=2, ensure_ascii=False),))


@command(audit_app, "sync", "medgen audit sync runs/anomaly")
def audit_sync(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> Answer:
    """Send what a run could not deliver to the MLflow store; what has arrived is not sent twice."""
    from medgen.runs.tracking import sync

    sent = sync(target)
    return Answer({"target": target, "sent": sent}, (f"{sent} record(s) sent",))


@command(audit_app, "replay", "medgen audit replay runs/augment/synthetic/provenance/syn-0001.json")
def audit_replay(
    target: Annotated[Path, typer.Argument(help="A record, a synthetic scan, or the folder of a synthetic cohort.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Generator; default: the model/ folder beside or above the cohort.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the files made again here.")] = None,
    device: Device = None,
) -> Answer:
    """Make synthetic scans again from their records and compare every byte; exit 1 if any differs."""
    from ..preflight import check_path

    check_path(target, "a record, a synthetic scan or the folder of a cohort")
    from medgen.audit.replay import replay

    with tempfile.TemporaryDirectory() as temporary, bar("replaying") as tick:
        results = replay(target, out or Path(temporary), model=model, device=device or "auto", tick=tick)
    found = [{"id": item.id, "identical": item.identical, "differences": item.differences} for item in results]
    code = 0 if all(item.identical for item in results) else 1
    return Answer({"target": target, "scans": found}, tuple(map(str, results)), exit_code=code)


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
) -> Answer:
    """Say whether anybody in validation or test is a parent of, or was learnt from for, a synthetic cohort."""
    from ..preflight import check_folder, check_path

    check_folder(cohort, "a synthetic cohort")
    check_path(held_out, "splits.csv, splits_final.json, a list of case ids, or a folder of scans")
    from medgen.audit.leaks import find_leaks

    leaks, count = find_leaks(cohort, held_out)
    line = f"{count} held-out case(s), {len(leaks)} known to the synthetic cohort"
    data = {"held_out": count, "leaks": [vars(leak) for leak in leaks]}
    return Answer(data, (line,), tuple(map(str, leaks)), 2 if leaks else 0)
