"""What the commands share: options, loading of configurations, progress, printed results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medgen.data.layouts.detect import CohortConfig

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from medgen.errors import ConfigError

if TYPE_CHECKING:
    from medgen.config import Config
    from medgen.runs.folder import RunSummary

C = TypeVar("C", bound="Config")

HELP = {"help_option_names": ["-h", "--help"]}


def group(name: str, text: str, example: str) -> typer.Typer:
    """A group of commands with its example."""
    return typer.Typer(
        name=name, help=text, no_args_is_help=True, context_settings=HELP, rich_markup_mode=None, epilog=example
    )


ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped one such as 'simulated'.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the file, such as out=D.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda[:N].")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random stream.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, max=256, help="Threads that read and prepare scans.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same configuration.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run in the same folder first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan with a memory and time estimate, then stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress bars.")]

# How a cohort, or a scan, is found and read; one text for every command.
CohortOptions = {
    "layout": typer.Option("--layout", help="auto, csv, folder, nnunet, msd, bids or dicom."),
    "images": typer.Option("--images", help="Glob of the image files, such as '*/*_t1.nii'; once per channel."),
    "masks": typer.Option("--masks", help="Mask of an image, such as '{id}_labels.nii.gz' or '*/*_seg.nii'."),
    "leave_out": typer.Option("--leave-out", help="Glob of files that are no scans, such as '*_brain.nii.gz'."),
    "subjects": typer.Option("--subjects", help="List of subjects beside the data, or a pattern: '{subject}_V*'."),
    "labels": typer.Option("--labels", help="Names of label numbers, such as '{1: lesion}'."),
    "root": typer.Option("--root", help="Further folder that links inside the cohort may lead to."),
    "fill": typer.Option("--fill", help="Value for voxels that are NaN or infinite; without it they are refused."),
    "unscaled": typer.Option("--unscaled", help="Values are as stored where a NIfTI header's scale is 0 or NaN."),
    "resample_masks": typer.Option("--resample-masks", help="Bring masks on another grid to that of their image."),
    "empty_masks": typer.Option("--empty-masks", help="A mask without a labelled voxel says that there is nothing."),
    "slices": typer.Option("--slices", min=1, help="How many slices every DICOM series should have."),
}


def finish(summary: RunSummary) -> NoReturn:
    """Print the lines of a run and exit with its code."""
    from medgen.faults import visible

    for line in summary.lines:
        # A summary line may be a table of several lines; names with escape sequences are shown, not obeyed.
        typer.echo("\n".join(map(visible, line.split("\n"))))
    raise typer.Exit(summary.exit_code)


def plan(lines: Iterable[str]) -> NoReturn:
    """Print the lines of a plan and exit."""
    for line in lines:
        typer.echo(line)
    raise typer.Exit


@dataclass(frozen=True)
class Given:
    """What a command was told, before its configuration class is imported, which may take seconds.

    Attributes:
        source: The configuration file.
        values: Its keys with the overrides and flags.
    """

    source: Path
    values: Mapping[str, Any]

    def parse(self, cls: type[C]) -> C:
        """The validated configuration."""
        from medgen.config import parse_config

        return parse_config(cls, self.values, str(self.source))


def given(
    group: str,
    config: str,
    overrides: list[str] | None,
    device: str | None,
    seed: int | None,
    workers: int | None,
    *,
    slow: bool = False,
) -> Given:
    """The configuration of a run: file (see :func:`find_config`), overrides, flags.

    With ``slow``, for configuration classes that import torch, data named on the command line must be there.

    Raises:
        ConfigError: If the file is missing or an override is none.
        DataError: If ``data`` names nothing.
    """
    path = find_config(group, config)
    from medgen.config import apply_overrides, read_yaml

    flags = {"device": device, "seed": seed, "workers": workers}
    settings = [*(overrides or []), *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    values = apply_overrides(read_yaml(path), settings)
    named = any(item.partition("=")[0].strip() == "data" for item in settings)
    if slow and named and isinstance(data := values["data"], str):
        from ..preflight import check_data

        check_data(Path(data))
    return Given(path, values)


def find_config(group: str, name: str) -> Path:
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
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for commands without ``--quiet``: shown to people, not to files and pipes."""
    from medgen.runs.progress import bars

    with bars(sys.stderr.isatty()) as tick:
        yield lambda done, total: tick(what, done, total)


def listed(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in text.split(",") if part.strip()]


def echo_json(data: object) -> None:
    """Print plain data as JSON."""
    from medgen.system.files import plain

    typer.echo(json.dumps(plain(data), indent=2, ensure_ascii=False))


def cohort_config(
    layout: str,
    images: list[str] | None,
    masks: str | None,
    leave_out: list[str] | None,
    subjects: str | None,
    labels: str | None,
    root: list[Path] | None,
    fill: float | None,
    unscaled: bool,
    slices: int | None,
    resample_masks: bool = False,
    empty_masks: bool = False,
) -> CohortConfig:
    """The options that say how a cohort is found and read, as a configuration.

    Raises:
        ConfigError: If one of them is wrong.
    """
    from medgen.config import parse_config, plain_yaml
    from medgen.data.layouts.detect import CohortConfig

    names = None if labels is None else plain_yaml(labels, "--labels")
    # One glob is a pattern; several are channels.
    globs = images[0] if images and len(images) == 1 else images or None
    given = {
        "layout": layout,
        "images": globs,
        "masks": masks,
        "leave_out": leave_out or (),
        "roots": tuple(root or ()),
    }
    read = {"labels": names or {}, "subjects": subjects, "fill": fill, "unscaled": unscaled, "slices": slices}
    read |= {"resample_masks": resample_masks, "empty_masks": empty_masks}
    return parse_config(CohortConfig, {**given, **read}, source="command line")
