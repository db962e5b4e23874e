"""Does it help? A study of segmenters with and without synthetic scans, at equal training, on held-out subjects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from medgen.augmentation import AugmentConfig
from medgen.config import Config
from medgen.dataset import Dataset
from medgen.errors import DataError
from medgen.files import read_json, sha256_json, write_json
from medgen.metrics.segmentation import dice, hd95, nsd
from medgen.preprocess import Preprocess
from medgen.seeds import derive
from medgen.segmentation import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.sampling import SyntheticSet
from medgen.volume import Volume

REAL, STANDARD, SYNTHETIC = "real", "standard", "synthetic"
METRICS = ("dice", "hd95_mm", "nsd")


class ValueConfig(Config):
    """Settings of the study.

    Attributes:
        enabled: False leaves the study out of a run.
        subjects: Numbers of real labelled subjects; empty means all labelled subjects of the run. For each number the
            generators are trained anew on these subjects, so each costs a whole training.
        seeds: Repetitions with other initial weights and order.
        arms: ``real`` (no augmentation), ``standard`` (ordinary augmentation), ``standard+synthetic`` (with accepted
            scans of every backend), ``standard+<backend>`` (of one), ``synthetic`` (no real scan at all). The first
            one with synthetic scans decides the run's verdict.
        segmenter: Network and training; equal for all arms.
        augment: The ordinary augmentation.
        p_synthetic: Probability that an element of a batch is a synthetic scan.
        bootstrap: Resamples of the intervals.
        tolerance_mm: Of the normalised surface Dice.
    """

    enabled: bool = True
    subjects: tuple[Annotated[int, Field(ge=2)], ...] = ()
    seeds: Annotated[int, Field(ge=1)] = 3
    arms: tuple[str, ...] = (REAL, STANDARD, "standard+synthetic")
    segmenter: SegmenterConfig = SegmenterConfig()
    augment: AugmentConfig = AugmentConfig()
    p_synthetic: Annotated[float, Field(ge=0, le=1)] = 0.5
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    tolerance_mm: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("subjects", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("arms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expected every arm once")
        for name in value:
            if name not in (REAL, STANDARD, SYNTHETIC) and not name.startswith("standard+"):
                raise ValueError(
                    f"unknown arm {name!r}; known are real, standard, standard+synthetic, standard+<backend>, synthetic"
                )
        if not set(value) & {REAL, STANDARD}:
            raise ValueError("expected at least one ordinary arm (real or standard) to compare with")
        return value


@dataclass(frozen=True)
class Arm:
    """One training condition.

    Attributes:
        name: As in the configuration.
        augmented: With ordinary augmentation.
        source: Backend whose scans are mixed in, ``""`` for all backends, None for none.
        real: Whether real scans are used.
    """

    name: str
    augmented: bool
    source: str | None
    real: bool

    @classmethod
    def parse(cls, name: str) -> Arm:
        """The arm of a name.

        >>> Arm.parse("standard+deform")
        Arm(name='standard+deform', augmented=True, source='deform', real=True)
        """
        if name in (REAL, STANDARD):
            return cls(name, name == STANDARD, None, True)
        source = name.removeprefix("standard+")
        return cls(name, True, "" if source == SYNTHETIC else source, name != SYNTHETIC)


@dataclass(frozen=True, eq=False)
class TestSet:
    """Held-out scans with their masks in native space.

    Attributes:
        data: Prepared scans, used without their labels.
        masks: Native masks, one per case.
        preprocess: The recipe that leads back to native space.
    """

    __test__ = False  # not a test class

    data: Dataset
    masks: tuple[Volume, ...]
    preprocess: Preprocess

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.data) or not len(self.data):
            raise DataError(f"expected a mask for each of {len(self.data)} test scans, found {len(self.masks)}")


@dataclass(frozen=True, eq=False)
class Material:
    """What the arms of one number of subjects train on.

    Attributes:
        subjects: Number of real labelled subjects.
        real: Their scans.
        pools: Accepted scans by backend name; ``""`` holds all. None where nothing was accepted.
    """

    subjects: int
    real: Dataset
    pools: Mapping[str, SyntheticSet | None]


Row = dict[str, Any]


def run_study(
    config: ValueConfig,
    materials: Sequence[Material],
    test: TestSet,
    labels: Sequence[int],
    *,
    seed: int,
    device: str = "auto",
    store: Path | None = None,
    done: Callable[[str, Mapping[str, float]], None] | None = None,
) -> list[Row]:
    """Train and test every cell: arm × number of subjects × seed.

    Args:
        config: Settings.
        materials: One per number of subjects.
        test: Held-out scans, the same for every cell.
        labels: Label numbers, without 0.
        seed: Of the run; a cell's stream depends on its seed number, not on its arm.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        store: Folder in which finished cells are kept, so that an interrupted study goes on where it stopped.
        done: Called with a cell's name and its mean metrics.

    Returns:
        A row per cell, test case and label: arm, subjects, seed, case, subject, label, dice, hd95_mm, nsd,
        synthetic_scans, seconds. Arms whose pool is empty have no rows.

    Raises:
        DataError: If training and test share a subject.
    """
    rows: list[Row] = []
    for material in materials:
        shared = set(material.real.subjects) & set(test.data.subjects)
        if shared:
            raise DataError(f"subject {min(shared)!r} is in training and in the test part of the study")
        for arm in map(Arm.parse, config.arms):
            pool = None if arm.source is None else material.pools.get(arm.source)
            if arm.source is not None and pool is None:
                continue
            for number in range(config.seeds):
                name = f"{arm.name}-n{material.subjects}-seed{number}"
                key = _fingerprint(config, material, pool, test, arm, seed, number)
                cell = _stored(store, name, key)
                if cell is None:
                    cell = _run_cell(config, material, pool, test, labels, arm, seed, number, device)
                    if store is not None:
                        write_json(store / f"{name}.json", {"key": key, "rows": cell})
                rows += cell
                if done is not None:
                    done(name, {metric: float(np.mean([row[metric] for row in cell])) for metric in METRICS})
    return rows


def _run_cell(
    config: ValueConfig,
    material: Material,
    pool: SyntheticSet | None,
    test: TestSet,
    labels: Sequence[int],
    arm: Arm,
    seed: int,
    number: int,
    device: str,
) -> list[Row]:
    start = time.perf_counter()
    only = pool is not None and not arm.real
    segmenter = train_segmenter(
        pool if only and pool is not None else material.real,
        config.segmenter,
        derive(seed, "value", number),
        labels=labels,
        augmentation=config.augment if arm.augmented else None,
        synthetic=None if only else pool,
        p_synthetic=config.p_synthetic,
        device=device,
    )
    seconds = time.perf_counter() - start
    common = {"arm": arm.name, "subjects": material.subjects, "seed": number}
    scans = 0 if pool is None else len(pool.images)
    extra = {"synthetic_scans": scans, "seconds": round(seconds, 2)}
    return [{**common, **row, **extra} for row in evaluate(segmenter, test, labels, config.tolerance_mm)]


def evaluate(segmenter: Segmenter, test: TestSet, labels: Sequence[int], tolerance_mm: float) -> list[Row]:
    """Dice, HD95 and NSD per test case and label, measured on each scan's own grid against its own mask."""
    rows = []
    for index, truth in enumerate(test.masks):
        prediction = predict_native(segmenter, test, index)
        spacing = truth.grid.spacing
        for label in labels:
            arguments = (prediction, truth.data[0], label)
            rows.append(
                {
                    "case": test.data.ids[index],
                    "subject": test.data.subjects[index],
                    "label": int(label),
                    "dice": dice(*arguments),
                    "hd95_mm": hd95(*arguments, spacing),
                    "nsd": nsd(*arguments, spacing, tolerance_mm),
                }
            )
    return rows


def predict_native(segmenter: Segmenter, test: TestSet, index: int) -> NDArray[np.int64]:
    """Label numbers (i, j, k) of one test scan on its native grid.

    Probabilities, not labels, are resampled, and the largest wins: half a voxel of shift would otherwise move every
    boundary. Outside of the model grid there is background.
    """
    probability = segmenter.probabilities(test.data.images[index : index + 1])[0]
    native = test.preprocess.restore(probability.numpy(), test.data.prepared[index], order=1).data
    winner = np.nan_to_num(native, nan=-1.0).argmax(axis=0)
    numbers: NDArray[np.int64] = np.array(segmenter.classes)[winner]
    numbers[np.isnan(native[0])] = 0
    return numbers


def _fingerprint(
    config: ValueConfig,
    material: Material,
    pool: SyntheticSet | None,
    test: TestSet,
    arm: Arm,
    seed: int,
    number: int,
) -> str:
    settings = config.model_dump(mode="json")
    relevant = {name: settings[name] for name in ("segmenter", "augment", "p_synthetic", "tolerance_mm")}
    content = None
    if pool is not None:
        content = [len(pool.images), float(pool.images.double().sum()), int(pool.labels.sum(dtype=torch.int64))]
    return sha256_json([relevant, list(material.real.ids), content, list(test.data.ids), arm.name, seed, number])


def _stored(store: Path | None, name: str, key: str) -> list[Row] | None:
    path = None if store is None else store / f"{name}.json"
    if path is None or not path.is_file():
        return None
    try:
        data = read_json(path)
    except DataError:
        return None
    return data["rows"] if isinstance(data, dict) and data.get("key") == key else None
