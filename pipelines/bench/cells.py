"""What benchmarks of families share: shipped settings, scans that are split by subject, cells that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from medgen.data.cases import split_subjects
from medgen.data.layouts.detect import load_cohort
from medgen.errors import DataError
from medgen.models.catalogue import family_class
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.parts import prepare_parts
from medgen.progress import bars
from medgen.seeds import derive
from medgen.system.files import read_json, sha256_json, write_json
from medgen.transforms.affine_registration import register_affine

from ..sources import check_sources
from ..train_settings import TrainRunConfig

# Share of the subjects that is held out, and how many there are at least.
_TEST, _FEWEST = 0.28, 8


def shipped(family: str) -> Path:
    """The shipped training configuration of a family; need not exist."""
    return Path(str(files("medgen.configs"))) / "train" / f"{family}.yaml"


def kept(out: Path, said: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A cell from its file where the settings are the same, else computed and written."""
    key = sha256_json(said)
    path = out / "cells" / f"{said['method']}-{said['seed']}-{key[:12]}.json"
    if path.is_file():
        # What is no number, such as nats of a family without a likelihood, has no other form in JSON.
        return {name: float("nan") if value is None else value for name, value in read_json(path).items()}
    cell = {"method": said["method"], "seed": said["seed"], "key": key, **compute()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, cell)
    return cell


def read_scans(
    config: TrainRunConfig,
    seed: int,
    progress: bool,
    others: Sequence[TrainRunConfig] = (),
    *,
    with_masks: bool = False,
    stream: str = "reconstruction",
) -> tuple[Dataset, Dataset, tuple[int, ...]]:
    """Training and held-out scans, disjoint by subject, and the labels of the first.

    Args:
        config: The cohort and its preprocessing.
        seed: Of the split.
        progress: Show progress bars.
        others: Configurations of further trainings on these scans, whose sources must not know a held-out one either.
        stream: Names the random stream of the split: benchmarks that have another one hold out other subjects.
        with_masks: Leave out scans without a mask, if enough subjects have one, so that all families see the same.

    Raises:
        DataError: If the cohort has too few subjects.
        AuditError: If a source has learnt from a held-out scan.
    """
    manifest = load_cohort(config.data, config.cohort)
    masked = manifest.subset([case.id for case in manifest if case.mask is not None])
    # A family of labels learns nothing from a scan without a mask.
    needed = "n_labels" in family_class(str(config.model["family"])).Settings.model_fields
    if needed or (with_masks and len(masked.subjects) >= _FEWEST):
        manifest = masked
    if len(manifest.subjects) < _FEWEST:
        masks = " with masks" if needed else ""
        raise DataError(f"{config.data}: {len(manifest.subjects)} subjects{masks}; expected at least {_FEWEST}")
    shares = {"training": 1 - _TEST, "held-out": _TEST}
    parts = split_subjects(manifest, shares, derive(seed, stream, "split"))
    for own in (config, *others):
        check_sources(own, manifest, {"the benchmark": parts["held-out"]}, config.workers)
    with bars(progress) as tick:
        prepared = prepare_parts(
            parts, parts["training"], config.preprocess, workers=config.workers, register=register_affine, tick=tick
        )
    train, test = prepared.data["training"], prepared.data["held-out"]
    labels = () if train.labels is None else tuple(int(value) for value in train.labels.unique() if value)
    return train, test, labels
