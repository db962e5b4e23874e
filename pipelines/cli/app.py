"""The ``medgen`` command. Heavy packages are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from medgen.errors import ConfigError, MedgenError, out_of_memory
from medgen.faults import FaultyDataError, visible
from medgen.system.advice import as_options
from medgen.system.files import unwritable
from medgen.system.modes import umask
from medgen.system.signals import Terminated, terminable

from .anomaly import anomaly_app
from .answer import Answer, document, finish, stdout_apart, wants_json
from .audit import audit_app
from .augment import augment_app
from .bench import bench_app
from .card import card_app
from .carry_out import HELP, Runnable, carry_out
from .data import data_app
from .model import model_app
from .options import CohortOptions, Device, Overwrite, Quiet, RunOptions, Workers, command

_RESUMABLE = (
    ("train",),
    ("pretrain",),
    ("anomaly", "run"),
    ("anomaly", "score"),
    ("augment", "run"),
    ("augment", "value"),
    ("bench", "anomaly"),
)
TRAIN = Runnable(
    configs="train",
    config="train_settings:TrainRunConfig",
    refuse="train_settings:refuse",
    plan="train:plan",
    run="train:run",
)
PRETRAIN = Runnable(
    configs="train",
    config="pretrain_settings:PretrainRunConfig",
    refuse="pretrain_settings:refuse",
    plan="pretrain:plan",
    run="pretrain:run",
)
NOT_CLINICAL = "Research use only, not for clinical use."

app = typer.Typer(
    name="medgen",
    help=f"3D medical image synthesis and anomaly detection for small cohorts. {NOT_CLINICAL}",
    no_args_is_help=True,
    context_settings=HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    epilog="Example: medgen demo --out demo",
)
for commands in (data_app, anomaly_app, augment_app, bench_app, audit_app, model_app, card_app):
    app.add_typer(commands)


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


@command(app, "doctor", "medgen doctor")
def doctor() -> Answer:
    """Say what this machine can do: versions, cores, memory, GPU, store."""
    from medgen.runs.environment import doctor as examine

    facts = examine()
    lines = []
    for fact in facts:
        hint = "" if fact.ok or not fact.hint else f"  ({fact.hint})"
        lines.append(f"{'ok ' if fact.ok else 'BAD'} {fact.name:<14} {fact.value}{hint}")
    data = {"checks": [{"name": f.name, "value": f.value, "ok": f.ok, "hint": f.hint} for f in facts]}
    return Answer(data, tuple(lines), exit_code=0 if all(fact.ok for fact in facts) else 1)


@command(app, "demo", "medgen demo --out demo")
def demo(
    series: Annotated[
        Path | None, typer.Argument(metavar="[SERIES]", help="With --dicom: a folder with a series of your own.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the cohort and both runs.")] = Path("demo"),
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom", help="Take a DICOM series through the demo's anomaly model, which is trained if need be."
        ),
    ] = False,
    overwrite: Overwrite = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Answer:
    """Run both pipelines on a simulated cohort; says how long, and where to look. Or take a DICOM series through."""
    from ..preflight import check_new, check_scans

    if series is not None and not dicom:
        raise ConfigError(f"{series}: a series is for --dicom; add it, or leave the series out")
    if dicom:
        from medgen.io.dicom.objects.wanted import KINDS, check_wanted

        check_wanted(KINDS)
        if series is not None:
            check_scans([series])
    else:
        for name in ("anomaly", "augment"):
            check_new(out / name, overwrite=overwrite)
    from .. import demo as pipeline

    named = device or "auto"
    if dicom:
        return finish(pipeline.through_dicom(out, series, device=named, overwrite=overwrite, progress=not quiet))
    return finish(pipeline.run(out, device=named, overwrite=overwrite, progress=not quiet))


@command(app, "train", "medgen train vae data=cohort out=runs/vae")
def train(
    options: RunOptions,
    source: Annotated[
        Path | None, typer.Option("--from", help="Trained model to start from: training.init.artifact.")
    ] = None,
) -> Answer:
    """Train one generative model and save it as an artifact."""
    if source is not None:
        # JSON is YAML: any path is one value.
        chosen = f"training.init.artifact={json.dumps(str(source), ensure_ascii=False)}"
        options = replace(options, overrides=[*(options.overrides or []), chosen])
    return carry_out(TRAIN, options)


@command(app, "explore", "medgen explore runs/vae/model --data cohort --out explored --along age")
def explore(
    model: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The model/ folder of a run.")],
    data: Annotated[Path, typer.Option("--data", help="The cohort that the model was trained on.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for film strips, animations, numbers and the report.")],
    reading: CohortOptions,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option("--between", metavar="CASE CASE", help="Scans to interpolate between; default: far apart."),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="CASE", help="Scan that is changed; default: the most typical.")
    ] = None,
    along: Annotated[
        list[str] | None,
        typer.Option("--along", metavar="COLUMN", help="Column of the cohort's table to follow, such as age."),
    ] = None,
    components: Annotated[int, typer.Option("--components", min=0, max=20, help="Principal directions to follow.")] = 3,
    reach: Annotated[float, typer.Option("--reach", help="Standard deviations along them, either way.")] = 2.5,
    steps: Annotated[int, typer.Option("--steps", min=3, max=15, help="Pictures in a film strip.")] = 7,
    overwrite: Overwrite = False,
    device: Device = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> Answer:
    """Walk through a model's codes: between scans, along principal directions and along columns such as age."""
    from ..preflight import EXPLORATION, check_data, check_model, check_new

    check_model(model)
    check_data(data)
    check_new(out, (model, data), overwrite=overwrite, mark=EXPLORATION)
    cohort = reading.cohort()
    from ..explore import run as pipeline

    return finish(
        pipeline.run(
            model,
            data=data,
            out=out,
            cohort=cohort,
            between=between,
            at=at,
            along=tuple(along or ()),
            components=components,
            reach=reach,
            steps=steps,
            device=device or "auto",
            workers=2 if workers is None else workers,
            overwrite=overwrite,
            progress=not quiet,
        )
    )


@command(app, "pretrain", "medgen pretrain vae data=simulated out=runs/pretrain")
def pretrain(options: RunOptions) -> Answer:
    """Train a model on label maps under random contrasts; medgen train --from takes it."""
    return carry_out(PRETRAIN, options)


@command(app, "open", "medgen open runs/anomaly")
def open_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its report.html.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0: a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")] = False,
) -> Answer:
    """Show the report of a run in the browser, served on this machine only, until Ctrl-C."""
    from medgen.report.serve import ReportServer

    server = ReportServer(run, port)

    def serve() -> None:
        import webbrowser

        if not no_browser:
            webbrowser.open(server.address)
        try:
            with server:
                server.serve_forever()
        except Terminated as ended:
            # Ctrl-C is how it is meant to end.
            if ended.code != 128 + signal.SIGINT:
                raise

    lines = (server.address, "for this machine only; Ctrl-C ends it")
    return Answer({"address": server.address, "folder": server.folder}, lines, afterwards=serve)


def main() -> None:
    """Entry point: user errors become one line and exit 2; everything else is a bug and says how to report it."""
    if sys.platform == "win32":
        sys.exit(
            "medgen: Windows is not supported: runs lock their folders by POSIX means, and nothing was tested there; "
            "use WSL2 or the Containerfile"
        )
    # Threads that wait for each other by spinning slow a training tenfold when another program uses the cores too.
    # OpenMP reads this when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with terminable():
        try:
            os.umask(umask())
        except MedgenError as error:
            _leave(_fail(str(error), error))
        _leave(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
    except FaultyDataError as error:
        # One line for each, since every bad file is to be found in one pass.
        *others, last = error.faults
        if not _debugging():
            for fault in others:
                with suppress(OSError):
                    typer.echo(f"medgen: {_advised(str(fault))}", err=True)
        return _fail(_advised(str(last)), error, faults=[asdict(fault) for fault in error.faults])
    except MedgenError as error:
        return _fail(_advised(str(error)), error)
    except Terminated as error:
        code = int(str(error.code))
        return _say(f"ended by {signal.Signals(code - 128).name}{go_on(sys.argv[1:])}", code)
    except (KeyboardInterrupt, typer.Abort):
        return _say(f"interrupted{go_on(sys.argv[1:])}", 130)
    except Exception as error:
        reason = _known(error)
        if reason is not None:
            return _fail(reason, error)
        return _fail(
            f"unexpected {type(error).__name__}: {error}; this is a bug, medgen --debug shows where", error, 70
        )
    return code if isinstance(code, int) else 0


def _debugging() -> bool:
    """Whether errors are raised with their traceback: ``--debug``, or ``MEDGEN_DEBUG`` other than 0, false or no."""
    return os.environ.get("MEDGEN_DEBUG", "").strip().lower() not in ("", "0", "false", "no")


def go_on(arguments: Sequence[str]) -> str:
    """How to go on with a command that was ended: with ``--resume`` where it has that, else nothing."""
    words = tuple(word for word in arguments if not word.startswith("-"))
    resumable = any(words[: len(command)] == command for command in _RESUMABLE)
    return "; pass --resume to go on" if resumable else ""


def _known(error: Exception) -> str | None:
    """What to say about an error that is no bug: a usage error, or a machine that has no more to give."""
    if hasattr(error, "format_message"):
        # Usage errors of the parser, which typer vendors or takes from click depending on its version.
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        return f"{error.format_message().rstrip('.')}{hint}"
    if out_of_memory(error):
        return "out of memory; use fewer workers, a smaller training.batch_size or a coarser preprocess.spacing"
    if isinstance(error, OSError) and error.errno is not None:
        return str(unwritable(error.filename or "the output of this command", error))
    return None


def _advised(message: str) -> str:
    """Advice as the command at hand takes it: commands about cohorts and scans have options, runs have settings."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")][:2]
    return (
        as_options(message)
        if words[:1] in (["data"], ["card"], ["explore"]) or words == ["anomaly", "score"]
        else message
    )


def _fail(message: str, error: BaseException, code: int = 2, faults: Sequence[dict[str, str]] = ()) -> int:
    _say(message, code, faults, quiet=_debugging())
    if _debugging():
        raise error
    return code


def _say(message: str, code: int, faults: Sequence[dict[str, str]] = (), quiet: bool = False) -> int:
    """Say why a command did not end well: on stderr, and with ``--json`` as the document on stdout."""
    # The terminal may be the very file that cannot be written.
    with suppress(OSError):
        if not quiet:
            typer.echo("medgen: " + visible(" ".join(message.split())), err=True)
        if wants_json(sys.argv[1:]):
            error = {"message": " ".join(message.split()), **({"faults": faults} if faults else {})}
            with stdout_apart() as write:
                write(document({"error": error}, code))
    return code


def _leave(code: int) -> NoReturn:
    """Exit; what is still to be printed and cannot be is an error like any other."""
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _fail(str(unwritable("the output of this command", error)), error)
        # The interpreter would try again and fail without a word of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
