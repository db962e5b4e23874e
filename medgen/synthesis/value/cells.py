"""One cell of a value study (arm, number of subjects, seed): what it trains on, how it is tested, several at once."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import medgen
from medgen.errors import DataError
from medgen.metrics.segmentation import dice, hd95, nsd
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.runs.cases.executors import USUAL
from medgen.runs.cases.manifest import Item
from medgen.runs.cases.map_cases import Spread, map_cases
from medgen.seeds import derive
from medgen.segmentation.ordinary import Recipe, Setting, recipe
from medgen.segmentation.segmenter import train_segmenter
from medgen.synthesis.filtering.pool import SyntheticSet
from medgen.synthesis.value.arms import Arm
from medgen.synthesis.value.tables import TEST, VALIDATION, Row
from medgen.system.files import sha256_json
from medgen.system.processes import torch_threads
from medgen.training.trainer import device_of
from medgen.training.transfer.start import Start
from medgen.volume import Volume

if TYPE_CHECKING:
    from medgen.synthesis.value.config import ValueConfig


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

    @cached_property
    def sha256(self) -> str:
        """Digest of scans, native masks and grids, and recipe."""
        masks = [[_digest(mask.data), mask.grid.affine] for mask in self.masks]
        return sha256_json([_content(self.data), masks, self.preprocess.model_dump(mode="json")])


@dataclass(frozen=True, eq=False)
class Material:
    """What the arms of one number of subjects train on.

    Attributes:
        subjects: Number of real labelled subjects.
        real: Their scans.
        pools: Accepted scans by backend name; ``""`` holds all. None where nothing was accepted.
        unlabelled: Scans of further subjects, without labels, for the ordinary arms that learn from them.
    """

    subjects: int
    real: Dataset
    pools: Mapping[str, SyntheticSet | None]
    unlabelled: Dataset | None = None

    @cached_property
    def sha256(self) -> dict[str, str | None]:
        """Digest of the real scans (``real``), the unlabelled ones (``unlabelled``), and of each pool (``+<name>``)."""
        digests: dict[str, str | None] = {"real": _content(self.real), "unlabelled": None}
        if self.unlabelled is not None:
            digests["unlabelled"] = _content(self.unlabelled)
        for name, pool in self.pools.items():
            digests[f"+{name}"] = None if pool is None else _digest(pool.images) + _digest(pool.labels)
        return digests


# When something began and ended, in ms since 1970.
Span = tuple[int, int]


@dataclass(frozen=True)
class Cell:
    """One training of the study: an arm and a repetition.

    Attributes:
        arm: Name of the arm.
        seed: Number of the repetition, from 0.
    """

    arm: str
    seed: int


@dataclass(frozen=True, eq=False)
class Study:
    """The cells of one number of subjects, and all that they need.

    Attributes:
        config: Settings.
        material: Training scans.
        test: Test scans.
        validation: Validation scans, or None.
        labels: Label numbers, without 0.
        seed: Seed of the run, from which every random stream is derived.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        start: What every segmenter takes from a trained one; None for nothing.
        memo: Shared work of ordinary arms, see :class:`medgen.segmentation.ordinary.Setting`.
    """

    config: ValueConfig
    material: Material
    test: TestSet
    validation: TestSet | None
    labels: tuple[int, ...]
    seed: int
    device: str
    start: Start | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    def name(self, cell: Cell) -> str:
        """Names a cell within a run; usable as a file name."""
        return f"{cell.arm}-n{self.material.subjects}-seed{cell.seed}"

    def fingerprint(self, cell: Cell) -> str:
        """Digest of all that a cell's rows depend on, apart from the device: a kept cell with another is run again."""
        settings = self.config.model_dump(mode="json")
        relevant = {key: settings[key] for key in ("segmenter", "augment", "p_synthetic", "tolerance_mm", "threads")}
        source = Arm.parse(cell.arm).source
        digests = self.material.sha256
        used = [digests["real"], digests["unlabelled"], None if source is None else digests[f"+{source}"]]
        held_out = [self.test.sha256, None if self.validation is None else self.validation.sha256]
        versions = [medgen.__version__, str(torch.__version__)]
        started = [] if self.start is None else [self.start.fingerprint()]
        # The versions stand for the code, the settings of the ordinary arms included.
        return sha256_json([relevant, used, held_out, self.labels, cell.arm, cell.seed, self.seed, *versions, *started])

    def run_timed(self, cell: Cell) -> tuple[list[Row], Span]:
        """Train and test one cell; its rows, and when it began and ended."""
        began = time.time_ns()
        rows = self.run(cell)
        return rows, (began // 1_000_000, time.time_ns() // 1_000_000)

    def run(self, cell: Cell) -> list[Row]:
        """Train and test one cell."""
        arm = Arm.parse(cell.arm)
        material, config = self.material, self.config
        pool = None if arm.source is None else material.pools[arm.source]
        seed = derive(self.seed, "value", cell.seed)
        start = time.perf_counter()
        with torch_threads(config.threads):
            # Generated scans alone take the place of the real ones.
            alone = pool if arm.ordinary is None else None
            segmenter = train_segmenter(
                material.real if alone is None else alone,
                config.segmenter,
                seed,
                labels=self.labels,
                recipe=Recipe(config.augment) if arm.ordinary is None else self.recipe(arm.ordinary),
                synthetic=pool if alone is None else None,
                p_synthetic=config.p_synthetic,
                start=self.start,
                device=self.device,
            )
            seconds = round(time.perf_counter() - start, 2)
            common = {"arm": arm.name, "subjects": material.subjects, "seed": cell.seed}
            extra = {"synthetic_scans": 0 if pool is None else len(pool.images), "seconds": seconds}
            rows = []
            for part, held_out in ((VALIDATION, self.validation), (TEST, self.test)):
                if held_out is not None:
                    found = evaluate(segmenter, held_out, self.labels, config.tolerance_mm)
                    rows += [{**common, "part": part, **row, **extra} for row in found]
        return rows

    def recipe(self, ordinary: str) -> Recipe:
        """How an ordinary arm trains; its teachers and registrations are shared by all repetitions, as generators are.

        What it computes is kept in ``memo``.
        """
        material, config = self.material, self.config
        setting = Setting(
            real=material.real,
            unlabelled=material.unlabelled,
            labels=self.labels,
            segmenter=config.segmenter,
            augment=config.augment,
            start=self.start,
            seed=derive(self.seed, "ordinary"),
            device=self.device,
            memo=self.memo,
        )
        with torch_threads(config.threads):
            return recipe(ordinary, setting)


def run_cells(
    study: Study, cells: Sequence[Cell], spread: Spread, folder: Path | None = None
) -> Iterator[tuple[Cell, tuple[list[Row], Span]]]:
    """Run cells, several at once, and yield each with its rows and its times when it is finished.

    Args:
        study: What the cells have in common.
        cells: The cells.
        spread: Where they are run; each is a shard. Processes of this machine do not share a GPU.
        folder: For the shards, reached by all workers; None: a temporary one of this machine.

    Raises:
        TrainingError: If a worker process dies, several times for one cell.
        ConfigError: If the executor cannot be used.
    """
    workers = min(spread.workers, len(cells))
    if spread.executor == USUAL and (workers < 2 or device_of(study.device).type != "cpu"):
        for cell in cells:
            yield cell, study.run_timed(cell)
        return
    # Once for all, before each process has a copy of its own.
    for ordinary in dict.fromkeys(Arm.parse(cell.arm).ordinary for cell in cells):
        if ordinary is not None:
            study.recipe(ordinary)
    by_name = {study.name(cell): cell for cell in cells}
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medgen-")))
        items = (Item(name, cell, {"all": study.fingerprint(cell)}) for name, cell in by_name.items())
        found = map_cases(
            _RunCell(study),
            items,
            count=len(cells),
            folder=place,
            settings={"work": "value study"},
            spread=replace(spread, workers=workers, shards=len(cells)),
            ordered=False,
        )
        for name, data in found:
            yield by_name[name], (data["rows"], (data["span"][0], data["span"][1]))
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _RunCell:
    study: Study

    def __call__(self, cell: Cell, place: Path) -> dict[str, Any]:
        rows, span = self.study.run_timed(cell)
        return {"rows": rows, "span": span}


def evaluate(segmenter: Guess, test: TestSet, labels: Sequence[int], tolerance_mm: float) -> list[Row]:
    """Dice, HD95 and NSD per held-out case and label, measured on each scan's own grid against its own mask."""
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


class Guess(Protocol):
    """What gives probabilities of classes on the model grid; a segmenter is one."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Label number of each class, 0 first."""
        ...

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """(n, c, i, j, k) → (n, classes, i, j, k)."""
        ...


def predict_native(segmenter: Guess, test: TestSet, index: int) -> NDArray[np.int64]:
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


def _content(data: Dataset) -> str:
    labels = None if data.labels is None else _digest(data.labels)
    confidence = None if data.confidence is None else _digest(data.confidence)
    tensors = [_digest(data.images), _digest(data.foregrounds), labels, confidence]
    return sha256_json([data.ids, data.subjects, *tensors])


def _digest(array: torch.Tensor | NDArray[Any]) -> str:
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    digest = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
