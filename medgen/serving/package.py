"""Writes the folder that ``mlflow models serve`` takes."""

from __future__ import annotations

import warnings
from pathlib import Path

from medgen import __version__
from medgen.errors import DataError
from medgen.runs.store.imported import import_mlflow
from medgen.system.new_folder import new_folder

CODE = Path(__file__).parent / "served_model.py"


def package(model: Path, out: Path, *, scans: Path, heatmaps: Path) -> Path:
    """Write an MLflow model of a detector: the artifact, the code that serves it, and the two folders it may use.

    Args:
        model: Artifact folder of an anomaly run.
        out: New folder.
        scans: The folder that scans are read from; the server reads nothing else.
        heatmaps: The folder that heatmaps are written to.

    Raises:
        DataError: If the folder exists or cannot be written, or there is no folder of scans.
    """
    if not scans.is_dir():
        raise DataError(f"{scans}: no such folder; expected the folder that scans are read from")
    import_mlflow("")
    with new_folder(out) as temporary, warnings.catch_warnings():
        # MLflow warns of its own classes, and that answers hold more kinds of values than a signature can say.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            temporary / "model",
            python_model=str(CODE),
            artifacts={"model": str(model.resolve())},
            model_config={"scans": scans.resolve().as_posix(), "heatmaps": heatmaps.resolve().as_posix()},
            pip_requirements=[f"medgen=={__version__}"],
        )
        for item in (temporary / "model").iterdir():
            item.rename(temporary / item.name)
        (temporary / "model").rmdir()
    return out
