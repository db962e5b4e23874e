"""The ``medgen`` command. Heavy packages are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from medgen.errors import ConfigError, MedgenError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medgen.config import Config
    from medgen.layouts import CohortConfig

    from .runfolder import RunSummary

C = TypeVar("C", bound="Config")

NOT_CLINICAL = "Research use only, not for clinical use."
HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="medgen",
    help=f"3D medical image synthesis and anomaly detection for small cohorts. {NOT_CLINICAL}",
    no_args_is_help=True,
    context_settings=HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Example: medgen demo --out demo",
)


def _group(name: str, text: str, example: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True, context_settings=HELP, rich_markup_mode=None, epilog=example)
    app.add_typer(group, name=name)
    return group


data_app = _group("data", "Check, simulate, import and implant cohorts.", "Example: medgen data check my-scans")
anomaly_app = _group("anomaly", "Calibrated anomaly heatmaps.", "Example: medgen anomaly run simulated data=cohort")
augment_app = _group("augment", "Labelled synthetic scans.", "Example: medgen augment run simulated data=cohort")
bench_app = _group("bench", "Benchmarks with peers and intervals.", "Example: medgen bench anomaly bench --quick")
audit_app = _group("audit", "Verify and trace the outputs of a run.", "Example: medgen audit verify runs/anomaly")
card_app = _group("card", "Data cards.", "Example: medgen card lint data_cards/simulated.md")

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped one such as 'simulated'.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the file, such as out=D.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda[:N].")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random stream.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads that read and prepare scans.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same configuration.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run in the same folder first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan with a memory and time estimate, then stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress bars.")]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log what the library does.")] = False,
) -> None:
    if version:
        from medgen import __version__

        typer.echo(__version__)
        raise typer.Exit
    if debug:
        os.environ["MEDGEN_DEBUG"] = "1"
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


@app.command(epilog="Example: medgen doctor")
def doctor(json_: AsJson = False) -> None:
    """Say what this machine can do: versions, cores, memory, GPU, store."""
    from medgen.environment import doctor as examine

    facts = examine()
    if json_:
        _echo_json([{"name": f.name, "value": f.value, "ok": f.ok, "hint": f.hint} for f in facts])
    else:
        for fact in facts:
            hint = "" if fact.ok or not fact.hint else f"  ({fact.hint})"
            typer.echo(f"{'ok ' if fact.ok else 'BAD'} {fact.name:<14} {fact.value}{hint}")
    raise typer.Exit(0 if all(fact.ok for fact in facts) else 1)


@app.command(epilog="Example: medgen demo --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the cohort and both runs.")] = Path("demo"),
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Run both pipelines on a simulated cohort and say where the reports are."""
    from . import demo as pipeline

    _finish(pipeline.run(out, device=device or "auto", overwrite=overwrite, progress=not quiet))


@app.command(epilog="Example: medgen train vae data=cohort out=runs/vae")
def train(
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
    """Train one generative model and save it as an artifact."""
    from . import train as pipeline

    settings = _load(pipeline.TrainRunConfig, "train", config, overrides, device, seed, workers)
    if dry_run:
        _plan(pipeline.plan(settings))
    _finish(pipeline.run(settings, resume=resume, overwrite=overwrite, progress=not quiet))


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
    from . import anomaly as pipeline

    settings = _load(pipeline.AnomalyRunConfig, "anomaly", config, overrides, device, seed, workers)
    if dry_run:
        _plan(pipeline.plan(settings))
    _finish(pipeline.run(settings, resume=resume, overwrite=overwrite, progress=not quiet))


@anomaly_app.command("score", epilog="Example: medgen anomaly score scan.nii.gz --model runs/brains/model --out scored")
def anomaly_score(
    scans: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="NIfTI, NRRD or MHA files, DICOM folders.")],
    model: Annotated[Path, typer.Option("--model", help="Artifact folder of an anomaly run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for heatmaps, findings, p-values and the report.")],
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Score new scans: heatmaps in their own space, findings, p-values and a report."""
    from . import anomaly as pipeline

    _finish(
        pipeline.score(scans, model=model, out=out, device=device or "auto", overwrite=overwrite, progress=not quiet)
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
    from . import anomaly_evaluate as pipeline

    settings = pipeline.EvaluateConfig(
        predictions=predictions,
        truth=truth,
        against=tuple(against or ()),
        subjects=subjects,
        unmatched_healthy=unmatched_healthy,
        seed=seed,
        out=out,
    )
    _finish(pipeline.run(settings, json_file=json_file, overwrite=overwrite, progress=not quiet))


@augment_app.command("run", epilog="Example: medgen augment run hippocampus data=my-labelled-scans out=runs/augment")
def augment_run(
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
    """Train generators on labelled scans, sample, filter, and measure whether the samples help segmentation."""
    from . import augment as pipeline

    settings = _load(pipeline.AugmentRunConfig, "augment", config, overrides, device, seed, workers)
    if dry_run:
        _plan(pipeline.plan(settings))
    _finish(pipeline.run(settings, resume=resume, overwrite=overwrite, progress=not quiet))


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
    from . import bench_anomaly as pipeline

    chosen = _listed(cohorts or ("simulated" if quick else "oasis,hippocampus"))
    numbers = _listed(seeds or ("0" if quick else "0,1,2"))
    if not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"--seeds: expected whole numbers such as 0,1,2, found {seeds!r}")
    _finish(
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


CohortOptions = {
    "layout": typer.Option("--layout", help="auto, csv, folder, nnunet, msd, bids or dicom."),
    "images": typer.Option("--images", help="Glob of the image files in a plain folder, such as '*_T1w.nii.gz'."),
    "masks": typer.Option("--masks", help="Mask of an image, such as '{id}_labels.nii.gz'."),
}


@data_app.command("check", epilog="Example: medgen data check my-scans --json report.json")
def data_check(
    path: Annotated[Path, typer.Argument(help="Cohort folder, manifest, one scan file or one DICOM folder.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")] = None,
    layout: Annotated[str, CohortOptions["layout"]] = "auto",
    images: Annotated[str | None, CohortOptions["images"]] = None,
    masks: Annotated[str | None, CohortOptions["masks"]] = None,
    workers: Workers = None,
) -> None:
    """Check every file of a cohort in one pass; exit 2 if any has a fault."""
    from medgen.files import write_json
    from medgen.integrity import check

    with _bar("checking") as progress:
        result = check(path, _cohort(layout, images, masks), workers=workers or 2, progress=progress)
    for fault in result.faults:
        typer.echo(f"{fault.file}: found {fault.found}; expected {fault.expected}; {fault.action}", err=True)
    if json_file is not None:
        faults = [{"file": f.file, "found": f.found, "expected": f.expected, "action": f.action} for f in result.faults]
        write_json(json_file, {"cases": result.cases, "faults": faults})
    if result.faults:
        typer.echo(f"{len(result.faults)} fault(s) in {result.cases} case(s)")
        raise typer.Exit(2)
    typer.echo(f"{result.cases} case(s), no fault")


@data_app.command("simulate", epilog="Example: medgen data simulate cohort -n 40 --seed 0 --spacing 2")
def data_simulate(
    out: Annotated[Path, typer.Argument(help="New folder for the cohort.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of subjects.")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Seed; subject k is the same whatever n.")] = 0,
    spacing: Annotated[float, typer.Option("--spacing", min=0.5, max=16, help="Voxel size in mm.")] = 2.0,
) -> None:
    """Simulate a cohort of brains with CSF, GM and WM labels from the MNI template."""
    from medgen.cohorts import simulate

    with _bar("simulating") as progress:
        manifest = simulate(out, n=n, seed=seed, spacing=spacing, progress=progress)
    typer.echo(f"{len(manifest)} subjects in {out} (manifest.csv, card.md)")


@data_app.command("implant", epilog="Example: medgen data implant cohort implanted --seed 0 --kinds uniform,blur")
def data_implant(
    cohort: Annotated[Path, typer.Argument(help="Cohort of healthy scans, any layout.")],
    out: Annotated[Path, typer.Argument(help="New folder for the implanted scans and their ground truth.")],
    seed: Annotated[int, typer.Option("--seed")] = 0,
    kinds: Annotated[str | None, typer.Option("--kinds", help="Comma-separated kinds; default: all.")] = None,
    lesions: Annotated[
        Path | None, typer.Option("--masks", help="Folder of real lesion masks for lesion shapes.")
    ] = None,
    layout: Annotated[str, CohortOptions["layout"]] = "auto",
    images: Annotated[str | None, CohortOptions["images"]] = None,
) -> None:
    """Put anomalies with known ground truth into healthy scans."""
    from medgen.cohorts import implant_cohort
    from medgen.layouts import load_cohort

    manifest = load_cohort(cohort, _cohort(layout, images, None))
    chosen = None if kinds is None else _listed(kinds)
    with _bar("implanting") as progress:
        result = implant_cohort(manifest, out, seed=seed, kinds=chosen, masks=lesions, progress=progress)
    typer.echo(f"{len(result)} scans in {out} (manifest.csv names kind, size and contrast of each)")


@data_app.command("import", epilog="Example: medgen data import dicom-folder cohort")
def data_import(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DICOM folder or a cohort in any layout.")],
    out: Annotated[Path, typer.Argument(help="New folder for NIfTI files, manifest and a draft card.")],
    layout: Annotated[str, CohortOptions["layout"]] = "auto",
    images: Annotated[str | None, CohortOptions["images"]] = None,
    masks: Annotated[str | None, CohortOptions["masks"]] = None,
    workers: Workers = None,
) -> None:
    """Convert a cohort to NIfTI with a manifest and a draft data card."""
    from . import importing

    _finish(importing.run(source, out, _cohort(layout, images, masks), workers=workers or 2))


@audit_app.command("verify", epilog="Example: medgen audit verify runs/anomaly")
def audit_verify(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Compare every output file of a run with the hashes recorded when it ended; exit 2 on any difference."""
    from medgen.audit import verify

    problems = verify(target)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{target}: every output is as the run left it")


@audit_app.command("trace", epilog="Example: medgen audit trace runs/anomaly/heatmaps/case-001.nii.gz")
def audit_trace(target: Annotated[Path, typer.Argument(help="Output folder of a run, or one file in it.")]) -> None:
    """Print which run, inputs, configuration, code and weights an output comes from, as JSON."""
    from medgen.audit import trace

    _echo_json(trace(target))


@audit_app.command("sync", epilog="Example: medgen audit sync runs/anomaly")
def audit_sync(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Send what a run could not deliver to the MLflow store; what has arrived is not sent twice."""
    from medgen.tracking import sync

    typer.echo(f"{sync(target)} record(s) sent")


@card_app.command("lint", epilog="Example: medgen card lint data_cards/simulated.md")
def card_lint(paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Cards.")]) -> None:
    """Check cards against the schema; exit 2 on any problem."""
    from medgen.cards import lint

    problems = [f"{path}: {problem}" for path in paths for problem in lint(path)]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{len(paths)} card(s), no problem")


@card_app.command("new", epilog="Example: medgen card new my-cohort.md")
def card_new(path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write; must not exist.")]) -> None:
    """Write a card with every required field to fill in."""
    from medgen.cards import new_card
    from medgen.files import write_text

    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another name")
    write_text(path, new_card(path.stem))
    typer.echo(f"{path}: fill in the fields, then run: medgen card lint {path}")


def main() -> None:
    """Entry point: user errors become one line and exit 2; everything else is a bug and says how to report it."""
    # Threads that wait for each other by spinning slow a training tenfold when another program uses the cores too.
    # OpenMP reads this when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except MedgenError as error:
        _fail(str(error), error)
    except KeyboardInterrupt:
        typer.echo("interrupted; pass --resume to go on", err=True)
        sys.exit(130)
    except MemoryError as error:
        _fail("out of memory; use fewer workers, a smaller training.batch_size or a coarser preprocess.spacing", error)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # Usage errors of the parser, which typer vendors or takes from click depending on its version.
        if hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            hint = f"; see {context.command_path} --help" if context is not None else ""
            _fail(f"{error.format_message().rstrip('.')}{hint}", error)
        _fail(f"unexpected {type(error).__name__}: {error}; this is a bug, medgen --debug shows where", error, code=70)


def _fail(message: str, error: BaseException, code: int = 2) -> NoReturn:
    if os.environ.get("MEDGEN_DEBUG"):
        raise error
    typer.echo("medgen: " + " ".join(message.split()), err=True)
    sys.exit(code)


def _finish(summary: RunSummary) -> NoReturn:
    for line in summary.lines:
        typer.echo(line)
    raise typer.Exit(summary.exit_code)


def _plan(lines: Iterable[str]) -> NoReturn:
    for line in lines:
        typer.echo(line)
    raise typer.Exit


def _load(
    cls: type[C],
    group: str,
    config: str,
    overrides: list[str] | None,
    device: str | None,
    seed: int | None,
    workers: int | None,
) -> C:
    from medgen.config import load_config

    flags = {"device": device, "seed": seed, "workers": workers}
    settings = [*(overrides or []), *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    return load_config(cls, _find_config(group, config), settings)


def _find_config(group: str, name: str) -> Path:
    """The file named on the command line, else the shipped configuration of that name in the pipeline's group."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    from importlib.resources import files

    folder = Path(str(files("medgen.configs"))) / group
    shipped = folder / f"{name}.yaml"
    if not shipped.is_file():
        known = ", ".join(sorted(entry.stem for entry in folder.glob("*.yaml")))
        raise ConfigError(f"{name}: no such configuration file, and none of that name is shipped (shipped: {known})")
    return shipped


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for commands without ``--quiet``: shown to people, not to files and pipes."""
    from .progress import bars

    with bars(sys.stderr.isatty()) as tick:
        yield lambda done, total: tick(what, done, total)


def _listed(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _echo_json(data: object) -> None:
    from medgen.files import plain

    typer.echo(json.dumps(plain(data), indent=2, ensure_ascii=False))


def _cohort(layout: str, images: str | None, masks: str | None) -> CohortConfig:
    from medgen.config import parse_config
    from medgen.layouts import CohortConfig

    return parse_config(CohortConfig, {"layout": layout, "images": images, "masks": masks}, source="command line")
