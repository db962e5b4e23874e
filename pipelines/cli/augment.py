"""The commands of ``medgen augment``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .answer import Answer, finish
from .carry_out import Runnable, bar, carry_out, group, listed
from .options import Device, Quiet, RunOptions, Seed, command

augment_app = group("augment", "Labelled synthetic scans.", "Example: medgen augment run simulated data=cohort")
LAYOUTS = ("nnunet", "msd", "bids")
RUN = Runnable(
    configs="augment",
    config="augment.config:AugmentRunConfig",
    refuse="preflight:preflight",
    plan="augment.plan:plan",
    run="augment.run:run",
)
VALUE = Runnable(
    configs="value",
    config="augment.value_config:ValueRunConfig",
    refuse="preflight:preflight",
    plan="augment.value:plan",
    run="augment.value:run",
)


@command(augment_app, "run", "medgen augment run hippocampus data=my-labelled-scans out=runs/augment")
def augment_run(options: RunOptions) -> Answer:
    """Train generators on labelled scans, sample, filter, and measure whether the samples help segmentation."""
    return carry_out(RUN, options)


@command(augment_app, "value", "medgen augment value default data=my-scans synthetic.other=their-scans")
def augment_value(options: RunOptions) -> Answer:
    """Measure what ordinary augmentation, synthetic scans made elsewhere, or those of an earlier run are worth."""
    return carry_out(VALUE, options)


@command(augment_app, "nnunet", "medgen augment nnunet runs/augment --out nnUNet_raw --id 501 --name Heart")
def augment_nnunet(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished augment runs: one, or one per fold.")],
    out: Annotated[Path, typer.Option("--out", help="The folder nnUNet_raw.")],
    number: Annotated[int, typer.Option("--id", min=1, max=999, help="Number of the data set.")],
    name: Annotated[str, typer.Option("--name", help="Name of the data set.")],
    channels: Annotated[str | None, typer.Option("--channels", help="Channel names, such as CT or T1,T2.")] = None,
    seed: Seed = None,
    harmful: Annotated[bool, typer.Option("--harmful", help="Even if a run's verdict is HARMFUL.")] = False,
) -> Answer:
    """Write a data set for nnU-Net: real and synthetic scans, with folds in which nothing leaks."""
    from ..preflight import check_folder

    for run in runs:
        check_folder(run, "a finished augment run")
    from medgen.synthesis.export.nnunet import FOLDS, write_nnunet

    with bar("writing") as tick:
        made = write_nnunet(
            runs,
            out,
            number=number,
            name=name,
            channels=listed(channels or ""),
            seed=seed or 0,
            harmful=harmful,
            progress=tick,
        )
    folds = [
        {"real": len(train) - synthetic, "synthetic": synthetic, "validation": len(held_out)}
        for train, held_out in made.folds
        for synthetic in [sum(case.startswith("syn-") for case in train)]
    ]
    lines = [*made.verdicts, f"{made.folder}: {made.synthetic} synthetic scans, {made.test} test cases"]
    lines += [
        f"fold {index}: {fold['real']} real and {fold['synthetic']} synthetic scans for training, "
        f"{fold['validation']} real ones for validation"
        for index, fold in enumerate(folds)
    ]
    lines += [
        f"next: nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity, then copy {FOLDS} into",
        f"nnUNet_preprocessed/{made.folder.name}, then train these folds only",
    ]
    facts = {"out": made.folder, "synthetic": made.synthetic, "test": made.test, "folds": folds}
    return Answer({**facts, "lines": lines}, tuple(lines))


@command(augment_app, "dicom", "medgen augment dicom runs/augment --out synthetic-dicom")
def augment_dicom(
    cohort: Annotated[
        Path, typer.Argument(metavar="RUN", help="Finished augment run, or what medgen augment sample wrote.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for a series and a segmentation of each scan.")],
    harmful: Annotated[bool, typer.Option("--harmful", help="Even if the run's verdict is HARMFUL.")] = False,
) -> Answer:
    """Write synthetic scans as DICOM series of no patient, marked SYNTHETIC, with their labels as segments (SEG)."""
    from ..preflight import check_folder

    check_folder(cohort, "a synthetic cohort")
    from medgen.synthesis.export.dicom import write_dicom

    with bar("writing") as tick:
        made = write_dicom(cohort, out, harmful=harmful, progress=tick)
    lines = [made.verdict] if made.verdict else []
    lines.append(f"{made.folder}: {made.scans} synthetic scans, each with a series and seg.dcm; of no patient")
    return Answer({"out": made.folder, "scans": made.scans, "verdict": made.verdict, "lines": lines}, tuple(lines))


@command(augment_app, "sample", "medgen augment sample --model runs/augment/model --out more flow.solver_steps=16")
def augment_sample(
    model: Annotated[Path, typer.Option("--model", help="model/ or model/<backend> of a finished augment run.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the synthetic cohort.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Accepted scans wanted, over all backends.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the samples.")] = 0,
    layout: Annotated[
        str, typer.Option("--layout", help="nnunet, msd or bids.", autocompletion=completion.among(LAYOUTS))
    ] = "nnunet",
    attempts: Annotated[float, typer.Option("--attempts", min=1, help="Most samples per wanted scan.")] = 4.0,
    device: Device = None,
    harmful: Annotated[bool, typer.Option("--harmful", help="Even if the run's verdict is HARMFUL.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OPTION=VALUE]...", help="Options of sampling, as in flow.solver_steps=16."),
    ] = None,
    quiet: Quiet = False,
) -> Answer:
    """Sample scans from saved generators under the run's own filter and audit; refused without these."""
    from ..preflight import check_choice, check_empty, check_model

    check_choice("--layout", layout, LAYOUTS)
    check_model(model)
    check_empty(out)
    from ..augment import sample as pipeline

    return finish(
        pipeline.run(
            model,
            out,
            n=n,
            seed=seed,
            layout=layout,  # type: ignore[arg-type]
            attempts=attempts,
            device=device or "auto",
            harmful=harmful,
            options=options or (),
            progress=not quiet,
        )
    )
