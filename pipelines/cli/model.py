"""Commands about registered models: which there are, two beside each other, and which one is the champion."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .answer import Answer
from .carry_out import group
from .options import command

if TYPE_CHECKING:
    from medgen.runs.keys import Key

model_app = group(
    "model",
    "Models in MLflow's registry: compare two, make one the champion, write one to be served.",
    "Example: medgen model compare medgen-anomaly-brains@champion runs/brains",
)
_CALLED = "Folder of a run, or NAME/NUMBER or NAME@ALIAS of a registered model."
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="MLflow store: a mlflow.db or an address. Default: MLFLOW_TRACKING_URI, that of the run, runs/mlflow.db.",
    ),
]


@command(model_app, "compare", "medgen model compare medgen-anomaly-brains/1 medgen-anomaly-brains/2")
def model_compare(
    first: Annotated[str, typer.Argument(metavar="FIRST", help=_CALLED)],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The same, of the other.")],
    store: Store = None,
) -> Answer:
    """Compare two models on the numbers of their runs; refuses those that were not tested on the same scans."""
    from medgen.runs.model_registry import Registry
    from medgen.runs.store.registry import compare, comparison_lines

    registry = Registry.of((first, second), store)
    one, other = registry.version(first), registry.version(second)
    rows = compare(one, other, _keys())
    lines = (f"{one} -> {other}", *comparison_lines(rows), "intervals that do not overlap decide")
    return Answer({"first": str(one), "second": str(other), "numbers": [asdict(row) for row in rows]}, lines)


@command(model_app, "promote", "medgen model promote runs/brains")
def model_promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_CALLED)],
    although: Annotated[
        str, typer.Option("--although", help="Reason to promote one that is worse or cannot be compared; it is kept.")
    ] = "",
    store: Store = None,
) -> Answer:
    """Make a model the champion of its name, with the numbers that speak for it in its description."""
    from medgen.runs.model_registry import Registry
    from medgen.runs.store.registry import promote

    registry = Registry.of((model,), store)
    version = registry.version(model)
    lines = promote(registry.client, version, _keys(), although)
    return Answer({"champion": str(version), "lines": lines}, tuple(lines))


@command(model_app, "package", "medgen model package runs/brains --out served --scans scans --heatmaps heat")
def model_package(
    run: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of an anomaly run, or its model/ folder.")],
    out: Annotated[Path, typer.Option("--out", help="New folder, which mlflow models serve takes.")],
    scans: Annotated[Path, typer.Option("--scans", help="Folder that the server may read scans from.")],
    heatmaps: Annotated[Path, typer.Option("--heatmaps", help="Folder that it writes heatmaps to.")],
) -> Answer:
    """Write an anomaly model as an MLflow model that can be served: path of a scan in, score and heatmap path out."""
    from ..preflight import check_model, check_new

    model = run / "model" if (run / "model").is_dir() else run
    check_model(model)
    check_new(out, (model, scans))
    from medgen.anomaly.artifact import from_artifact
    from medgen.models.artifact import TrainedModel
    from medgen.serving.package import package

    # Refused here, not by a server that does not start.
    from_artifact(TrainedModel.load(model), model)
    package(model, out, scans=scans, heatmaps=heatmaps)
    line = f"mlflow models serve -m {out} --env-manager local -h 127.0.0.1 -p 5001"
    return Answer({"folder": out, "serve": line}, (f"{out}: an MLflow model", f"serve it: {line}"))


def _keys() -> list[Key]:
    """What the numbers of runs that make models mean."""
    from .. import train
    from ..anomaly.stages import pipeline
    from ..anomaly.stages.adapt import PIPELINE as ADAPT
    from ..augment.stages import AUGMENT

    return [key for own in (pipeline(), ADAPT, AUGMENT, train.PIPELINE) for key in own.summary_keys()]
