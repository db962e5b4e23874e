"""Commands about synthetic cohorts: sample more, make scans again, look for leaks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from medgen.errors import ConfigError

from .data import audit_app
from .options import AsJson, Device, Quiet, bar, echo_json, finish


def register(augment_app: typer.Typer) -> None:
    """Add ``sample`` to the ``augment`` commands."""
    augment_app.command(
        "sample", epilog="Example: medgen augment sample --model runs/augment/model -n 200 --out more --seed 1"
    )(augment_sample)


def augment_sample(
    model: Annotated[Path, typer.Option("--model", help="model/ or model/<backend> of a finished augment run.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the synthetic cohort.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Accepted scans wanted, over all backends.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the samples.")] = 0,
    layout: Annotated[str, typer.Option("--layout", help="nnunet, msd or bids.")] = "nnunet",
    attempts: Annotated[float, typer.Option("--attempts", min=1, help="Most samples per wanted scan.")] = 4.0,
    device: Device = None,
    harmful: Annotated[bool, typer.Option("--harmful", help="Even if the run's verdict is HARMFUL.")] = False,
    quiet: Quiet = False,
) -> None:
    """Sample scans from saved generators under the run's own filter and audit; refused without these."""
    from ..preflight import check_model

    if layout not in ("nnunet", "msd", "bids"):
        raise ConfigError(f"--layout: expected nnunet, msd or bids, found {layout!r}")
    check_model(model)
    from ..augment import sample as pipeline

    finish(
        pipeline.run(
            model,
            out,
            n=n,
            seed=seed,
            layout=layout,  # type: ignore[arg-type]
            attempts=attempts,
            device=device or "auto",
            harmful=harmful,
            progress=not quiet,
        )
    )


@audit_app.command("replay", epilog="Example: medgen audit replay runs/augment/synthetic/provenance/syn-0001.json")
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


@audit_app.command("leaks", epilog="Example: medgen audit leaks runs/augment/synthetic splits_final.json")
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
