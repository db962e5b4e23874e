"""Which detector of a run scores scans: that for all channels, or one for scans that lack some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgen.errors import DataError
from medgen.models.artifact import TrainedModel
from medgen.training.trainer import device_of

from ..given_scans import GivenScan, missing_channels
from .stages.without import FOLDER, folder_of


def for_channels(model: Path, scans: Sequence[GivenScan], device: str) -> tuple[Path, TrainedModel]:
    """The artifact for the channels that the scans have, and its folder: of a run's ``model/``, or one beside it.

    Raises:
        DataError: If the run has no detector for scans that lack these channels.
    """
    artifact = TrainedModel.load(model, device_of(device))
    names = tuple(artifact.meta.get("channels") or ())
    missing = missing_channels(scans, names)
    if not missing:
        return model, artifact
    folder = folder_of(model.resolve().parent, missing)
    if folder.is_dir():
        return folder, TrainedModel.load(folder, device_of(device))
    others = [TrainedModel.load(path, device_of(device)) for path in sorted(folder.parent.glob("*/"))]
    able = [", ".join(other.meta.get("missing") or ()) for other in others]
    raise DataError(
        f"{scans[0].called.name}: lacks {', '.join(missing)}; expected {', '.join(names)}"
        + "".join(f", or these without {text}" for text in able)
        + f"; give the missing ones, or repeat the run with --resume and without=[[{','.join(missing)}]], and keep its "
        f"folder {FOLDER}/ beside model/"
    )


def without_words(missing: Sequence[str], left: Sequence[str]) -> str:
    """What it means that channels are missing."""
    return (
        f"The scans have no {' and no '.join(missing)}: they were scored by a detector that was trained and calibrated "
        f"on the same healthy scans with {' and '.join(left)} alone."
    )
