"""Benchmarks beside peers, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from .answer import Answer, finish
from .carry_out import group, listed, whole_numbers
from .options import Device, Quiet, Resume, Seed, Workers, command

Families = Annotated[
    str,
    typer.Option(
        "--families",
        help="Families with a configuration train/FAMILY.",
        autocompletion=completion.several_among(completion.families),
    ),
]


@dataclass(frozen=True)
class CohortBench:
    """What benchmarks take that train on a part of one cohort and measure on another."""

    out: Annotated[
        Path, typer.Argument(metavar="[OUT]", help="Folder of tables; what is there is not computed again.")
    ] = Path("bench")
    data: Annotated[Path, typer.Option("--data", help="A cohort; where labels are learnt, with masks.")] = Path("data")
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of every configuration used; may be repeated.")
    ] = None
    device: Device = None
    quiet: Quiet = False

    def given(self) -> dict[str, Any]:
        """As the pipelines take them, once the cohort is there."""
        from ..preflight import check_data

        check_data(self.data)
        return {
            "out": self.out,
            "data": self.data,
            "overrides": self.settings or (),
            "device": self.device,
            "progress": not self.quiet,
        }


def _check_families(families: str) -> None:
    """Refuse a family without a shipped configuration, before torch is imported."""
    from ..preflight import check_choice

    known = completion.shipped_configs("train")
    for name in listed(families):
        check_choice("--families", name, known)


bench_app = group("bench", "Benchmarks with peers and intervals.", "Example: medgen bench anomaly bench --quick")


@command(bench_app, "anomaly", "medgen bench anomaly bench --data ../shared/data --seeds 0,1,2")
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
) -> Answer:
    """Run the anomaly pipeline under several seeds, with peers, and write anomaly.md, anomaly.json and pictures."""
    chosen = listed(cohorts or ("simulated" if quick else "oasis,hippocampus"))
    numbers = whole_numbers("--seeds", seeds or ("0" if quick else "0,1,2"))
    from ..bench.cohorts import COHORTS, SIMULATED

    # A simulated cohort that is not there is made; unknown ones are refused by name.
    if set(chosen) & (set(COHORTS) - {SIMULATED}):
        from ..preflight import check_folder

        check_folder(data, "a folder per cohort")
    from ..bench import anomaly as pipeline

    return finish(
        pipeline.run(
            out,
            data=data,
            seeds=numbers,
            cohorts=chosen,
            quick=quick,
            resume=resume,
            device=device or "auto",
            workers=workers or 2,
            progress=not quiet,
        )
    )


@command(bench_app, "artefacts", "medgen bench artefacts bench --data ../shared/data/oasis --acquired-mm 2")
def bench_artefacts(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of the two files.")] = Path("bench"),
    data: Annotated[Path, typer.Option("--data", help="A cohort of healthy scans.")] = Path("data"),
    cohort: Annotated[str, typer.Option("--cohort", help="Shipped configuration anomaly/NAME.")] = "oasis",
    acquired_mm: Annotated[
        float, typer.Option("--acquired-mm", min=0.5, max=16, help="Voxel size that faulty scans are acquired with.")
    ] = 2.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the configuration; may be repeated.")
    ] = None,
    quiet: Quiet = False,
) -> Answer:
    """Spoil scans of held-out subjects and count which artefacts are named: artefacts.md and .json."""
    from ..preflight import check_data

    check_data(data)
    from ..bench import artefacts as pipeline

    return finish(
        pipeline.run(
            out,
            data=data,
            cohort=cohort,
            acquired_mm=acquired_mm,
            overrides=settings or (),
            progress=not quiet,
        )
    )


@command(bench_app, "calibration", "medgen bench calibration bench --cohorts 2000")
def bench_calibration(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of the table.")] = Path("bench"),
    cohorts: Annotated[int, typer.Option("--cohorts", min=1, help="Simulated cohorts for each rate.")] = 2000,
    seed: Seed = None,
    quiet: Quiet = False,
) -> Answer:
    """Count how often healthy subjects of simulated cohorts get a finding, and write calibration.md and .json."""
    from ..bench import calibration as pipeline

    return finish(pipeline.run(out, cohorts=cohorts, seed=seed or 0, progress=not quiet))


@command(bench_app, "painting", "medgen bench painting bench --data ../shared/data/hippocampus --seeds 0")
def bench_painting(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of tables and pictures.")] = Path("bench"),
    data: Annotated[Path, typer.Option("--data", help="A cohort whose scans have masks.")] = Path("data"),
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of split, training and samples.")] = "0",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the configuration train/flow; may be repeated.")
    ] = None,
    quiet: Quiet = False,
) -> Answer:
    """Paint label maps of subjects that the painter has not seen, and compare with their scans: painting.md, .json."""
    from ..preflight import check_data

    check_data(data)
    numbers = whole_numbers("--seeds", seeds)
    from ..bench import painting as pipeline

    return finish(pipeline.run(out, data=data, seeds=numbers, overrides=settings or (), progress=not quiet))


@command(bench_app, "value", "medgen bench value bench --data ../shared/data/hippocampus --subjects 5,10")
def bench_value(
    common: CohortBench,
    subjects: Annotated[str, typer.Option("--subjects", help="Numbers of real labelled subjects.")] = "5,10",
    repetitions: Annotated[int, typer.Option("--repetitions", min=1, help="Trainings of the generators, each.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each segmenter.")] = 3,
    ordinary: Annotated[
        str, typer.Option("--ordinary", help="Ordinary arms to compare with.")
    ] = "standard,self_training",
    workers: Workers = None,
) -> Answer:
    """Repeat generators (augment/hippocampus_study) and segmenters, ours and MONAI's: value.md, .json."""
    given = common.given()
    numbers = whole_numbers("--subjects", subjects, "5,10")
    from ..bench import value as pipeline

    return finish(
        pipeline.run(
            **given,
            subjects=numbers,
            repetitions=repetitions,
            seeds=seeds,
            ordinary=listed(ordinary),
            workers=workers or 1,
        )
    )


@command(bench_app, "families", "medgen bench families bench --data ../shared/data/hippocampus --families vae,flow")
def bench_families(
    common: CohortBench,
    families: Families = "vae,vqvae,flow",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of split, weights, training and samples.")] = "0,1,2",
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=1, help="Processor time of each training, instead of the configured steps."),
    ] = None,
) -> Answer:
    """Measure families on unseen subjects: rebuilt and new scans, likelihood, heatmaps: families.md, .json."""
    given = common.given()
    numbers = whole_numbers("--seeds", seeds)
    _check_families(families)
    from ..bench import families as pipeline

    return finish(
        pipeline.run(
            **given,
            families=listed(families),
            seeds=numbers,
            seconds=seconds,
        )
    )


@command(
    bench_app,
    "transfer",
    "medgen bench transfer bench --data ../shared/data/hippocampus --from brains=runs/pretrain/model",
)
def bench_transfer(
    common: CohortBench,
    family: Annotated[str, typer.Option("--family", help="The family.")] = "vae",
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", help="NAME=ARTIFACT, or NAME={artifact: ..., statistics: source}; may be repeated."),
    ] = None,
    scans: Annotated[str, typer.Option("--scans", help="Numbers of training scans.")] = "5,10",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of split, scans, weights and training.")] = "0,1,2",
) -> Answer:
    """Train a family on few scans, from random weights and from trained models: transfer.md, .json."""
    given = common.given()
    numbers = {"--seeds": whole_numbers("--seeds", seeds), "--scans": whole_numbers("--scans", scans, "5,10")}
    from ..bench import transfer as pipeline

    return finish(
        pipeline.run(
            **given,
            family=family,
            sources=pipeline.read_sources(sources or ()),
            scans=numbers["--scans"],
            seeds=numbers["--seeds"],
        )
    )


@command(bench_app, "presets", "medgen bench presets bench")
def bench_presets(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of the table.")] = Path("bench"),
    families: Families = "vae,flow,context",
    quiet: Quiet = False,
) -> Answer:
    """Count memory and graph breaks of the GPU sizes on a machine without a GPU, and write gpu.md and gpu.json."""
    _check_families(families)
    from ..bench import presets as pipeline

    return finish(pipeline.run(out, families=listed(families), progress=not quiet))


@command(bench_app, "speed", "medgen bench speed bench --benchmarks train-step,io")
def bench_speed(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder of table, figures and picture.")] = Path("bench"),
    benchmarks: Annotated[
        str,
        typer.Option(
            "--benchmarks",
            help="Which, parted by commas; what was measured before of others stays. An unknown name lists them.",
            autocompletion=completion.several_among(completion.speed_benchmarks),
        ),
    ] = "all",
    data: Annotated[
        Path | None, typer.Option("--data", help="Brains for registration and end-to-end; else scans are simulated.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=3, max=999, help="Times that each is measured.")] = 7,
    quick: Annotated[bool, typer.Option("--quick", help="Small work: tries the command out.")] = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Answer:
    """Time medgen beside its peers, in turns in one process: performance.md, .json and a picture."""
    from ..preflight import check_choice, check_data

    known = completion.speed_benchmarks()
    chosen = known if benchmarks == "all" else list(dict.fromkeys(listed(benchmarks))) or [benchmarks]
    for name in chosen:
        check_choice("--benchmarks", name, known)
    if data is not None:
        check_data(data)
    from ..bench.speed.run import run

    return finish(run(out, benchmarks=chosen, device=device, rounds=rounds, quick=quick, data=data, progress=not quiet))
