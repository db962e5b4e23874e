"""Options that commands share, said once: a command takes a group of them as one parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from . import completion
from .answer import JSON, Answer, carried_out

if TYPE_CHECKING:
    from medgen.data.layouts.cohort_config import CohortConfig
    from medgen.runs.cases.map_cases import Spread

LAYOUTS = ("auto", "csv", "folder", "nnunet", "msd", "bids", "dicom")
DEVICES = ("auto", "cpu", "cuda")
# As the files of medgen/runs/cases/executors, known before a package is imported.
EXECUTORS = ("local", "slurm", "dask")


def _device(name: str | None) -> str | None:
    """Refuse what is no device at once; whether it is there is asked later, of torch."""
    from medgen.runs.device_names import check_device_name

    return None if name is None else check_device_name(name)


Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu or cuda[:N].", callback=_device, autocompletion=completion.among(DEVICES)),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random stream.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, max=256, help="Threads that read and prepare scans.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same configuration.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run in the same folder first.")]
AsJson = Annotated[bool, typer.Option(JSON, help="Print one JSON document on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress bars.")]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def command(app: typer.Typer, name: str, example: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register a function as a command. Every command takes ``--json``; what it returns is said in one place.

    A parameter whose type is a dataclass becomes one argument or option for each of its fields, so that commands share
    groups of them.

    Args:
        app: The group of commands, or the program.
        name: What people type.
        example: A whole command line, shown below the help.
    """

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        hints = get_type_hints(function, include_extras=True)
        hints.pop("return")
        groups = {key: kind for key, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}
        own = inspect.signature(function).parameters.values()
        parameters = [item.replace(annotation=hints[item.name]) for item in own if item.name not in groups]
        # A command's own options come first in its help.
        parameters += [item for kind in groups.values() for item in _parameters(kind)]
        parameters.append(inspect.Parameter("as_json", _KEYWORD, default=False, annotation=AsJson))
        parameters = [item.replace(kind=_KEYWORD) for item in parameters]

        @functools.wraps(function)
        def run(as_json: bool, **values: Any) -> None:
            given = {
                key: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
                for key, kind in groups.items()
            }
            carried_out(functools.partial(function, **values, **given), as_json)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, epilog=f"Example: {example}")(run)
        return function

    return register


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    """The fields of a group as parameters of a function."""
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        found.append(inspect.Parameter(field.name, _KEYWORD, default=default, annotation=hints[field.name]))
    return found


@dataclass(frozen=True)
class RunOptions:
    """What every command that runs a configuration takes."""

    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="YAML file, or the name of a shipped one; an unknown name lists them.",
            autocompletion=completion.configs,
        ),
    ]
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that override the file, such as out=D.",
            autocompletion=completion.settings,
        ),
    ] = None
    device: Device = None
    seed: Seed = None
    workers: Workers = None
    resume: Resume = False
    overwrite: Overwrite = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan with a memory and time estimate, then stop.")
    ] = False
    quiet: Quiet = False


@dataclass(frozen=True)
class FindOptions:
    """How the images of a cohort are found."""

    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help=f"{', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}.",
            autocompletion=completion.among(LAYOUTS),
        ),
    ] = "auto"
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Glob of the image files, such as '*/*_t1.nii'; once per channel."),
    ] = None
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="Glob of files that are no scans, such as '*_brain.nii.gz'.")
    ] = None
    subjects: Annotated[
        str | None,
        typer.Option("--subjects", help="List of subjects beside the data, or a pattern: '{subject}_V*'."),
    ] = None

    def cohort(self) -> CohortConfig:
        """These options as a configuration.

        Raises:
            ConfigError: If one of them is wrong.
        """
        from medgen.config import parse_config, plain_yaml
        from medgen.data.layouts.cohort_config import CohortConfig

        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given |= {"leave_out": self.leave_out or (), "roots": tuple(given.pop("root", None) or ())}
        # One glob is a pattern; several are channels.
        given["images"] = self.images[0] if self.images and len(self.images) == 1 else self.images or None
        labels = given.pop("labels", None)
        given["labels"] = {} if labels is None else plain_yaml(labels, "--labels") or {}
        return parse_config(CohortConfig, given, source="command line")


@dataclass(frozen=True)
class FindWithMasks(FindOptions):
    """How the images and the masks of a cohort are found."""

    masks: Annotated[
        str | None,
        typer.Option("--masks", help="Mask of an image, such as '{id}_labels.nii.gz' or '*/*_seg.nii'."),
    ] = None


@dataclass(frozen=True)
class ReadOptions:
    """How scans are read, those of a cohort and single ones."""

    fill: Annotated[
        float | None,
        typer.Option("--fill", help="Value for voxels that are NaN or infinite; without it they are refused."),
    ] = None
    unscaled: Annotated[
        bool, typer.Option("--unscaled", help="Values are as stored where a NIfTI header's scale is 0 or NaN.")
    ] = False
    slices: Annotated[
        int | None, typer.Option("--slices", min=1, help="How many slices every DICOM series should have.")
    ] = None


@dataclass(frozen=True)
class ImageOptions(ReadOptions, FindOptions):
    """How the images of a cohort are found and read."""

    labels: Annotated[str | None, typer.Option("--labels", help="Names of label numbers, such as '{1: lesion}'.")] = (
        None
    )
    resample_channels: Annotated[
        bool, typer.Option("--resample-channels", help="Bring channels on another grid to that of the first.")
    ] = False
    root: Annotated[
        list[Path] | None, typer.Option("--root", help="Further folder that links inside the cohort may lead to.")
    ] = None


@dataclass(frozen=True)
class CohortOptions(ImageOptions, FindWithMasks):
    """How the images and the masks of a cohort are found and read."""

    resample_masks: Annotated[
        bool, typer.Option("--resample-masks", help="Bring masks on another grid to that of their image.")
    ] = False
    empty_masks: Annotated[
        bool,
        typer.Option("--empty-masks", help="A mask without a labelled voxel says that there is nothing."),
    ] = False


@dataclass(frozen=True)
class SpreadOptions:
    """Where cases are worked on, and in how many parts."""

    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            help="Spread the cases: local (processes, --workers of them), slurm (arrays), dask; default: this process.",
            autocompletion=completion.among(EXECUTORS),
        ),
    ] = None
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="In how many parts the cases are spread; default: chosen.")
    ] = None
    resources: Annotated[
        Path | None, typer.Option("--resources", help="YAML with minutes, memory_gb, cpus, partition ... of each job.")
    ] = None

    def spread(self, workers: int | None) -> Spread | None:
        """Where to work; None where nothing was said: in this process.

        Raises:
            ConfigError: If there is no such executor, it cannot be used here, or options are given that do nothing.
        """
        from medgen.errors import ConfigError

        from ..preflight import check_choice

        if self.executor is not None:
            check_choice("--executor", self.executor, EXECUTORS)
        if self.resources is not None and self.executor in (None, "local"):
            raise ConfigError("--resources: what jobs of a cluster get; expected --executor slurm or dask with it")
        if self.executor is None and self.shards is None:
            return None
        from medgen.runs.cases.map_cases import Spread
        from medgen.runs.cases.resources import read_resources

        spread = Spread(self.executor or EXECUTORS[0], workers or 2, self.shards, read_resources(self.resources))
        spread.made()
        return spread


@dataclass(frozen=True)
class SpreadInFolder(SpreadOptions):
    """The same for commands without an output folder of their own to keep finished shards in."""

    shards_in: Annotated[
        Path | None,
        typer.Option(
            "--shards-in", help="Folder for the shards, reached by all workers: done ones are not done again."
        ),
    ] = None

    def spread(self, workers: int | None) -> Spread | None:
        """See the base.

        Raises:
            ConfigError: As there, or if workers may be on other machines and no folder is named.
        """
        from medgen.errors import ConfigError

        found = super().spread(workers)
        if found is None:
            if self.shards_in is not None:
                raise ConfigError("--shards-in: folder for shards; expected --executor or --shards with it")
            return None
        from medgen.runs.cases.map_cases import check_place

        check_place(self.shards_in, found)
        return found
