"""Synthetic scans in a user's own training script: data sets of them, and real ones with some of them mixed in.

``SyntheticDataset`` reads the accepted scans of an augment run, ``LiveDataset`` samples a saved generator, and
``MixedDataset`` hands out one of them in place of a real case with probability ``p_syn``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from medgen import io
from medgen.data.cases import Case
from medgen.data.layouts.detect import load_cohort
from medgen.errors import AuditError, DataError, MedgenError
from medgen.seeds import derive, numpy_rng
from medgen.segmentation.segmenter import synthetic_share
from medgen.synthesis.backend import Backend, Synthetic
from medgen.synthesis.backends import load_backend
from medgen.synthesis.export.layouts import original_labels
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.lineage import SPLITS, RunSplits, read_origin
from medgen.synthesis.privacy.saved_filter import FOLDER, load_filter

Item = dict[str, Any]
Transform = Callable[[Any], Any]


class SyntheticDataset(Dataset[Any]):
    """The synthetic scans of a folder in nnU-Net layout, such as ``synthetic/`` of an augment run.

    Args:
        folder: With ``imagesTr``, ``labelsTr`` and ``dataset.json``.
        transform: Applied to each item: give the preprocessing that your real scans get.
        load: False hands out file names instead of arrays, for pipelines that start with MONAI's ``LoadImaged``.
        splits: ``splits.csv`` of the run that made the scans; the one beside the folder if None and there.

    Items are dictionaries: ``id``; ``image``, float32 (c, i, j, k), about 0 to 1 inside the foreground, or its file
    names; ``label``, int64 (1, i, j, k) with the label numbers of the real masks, or its file name; ``affine``, 4 × 4
    voxel → RAS+ mm (absent for file names).

    Raises:
        DataError: If the folder cannot be read, holds no labelled scan, or ``load`` is False and labels were
            renumbered, so that the files' numbers are not those of the real masks.
    """

    def __init__(
        self,
        folder: str | Path,
        transform: Transform | None = None,
        *,
        load: bool = True,
        splits: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.cases: tuple[Case, ...] = load_cohort(self.folder).labelled().cases
        if not self.cases:
            raise DataError(f"{folder}: holds no labelled scan; expected the synthetic/ folder of an augment run")
        self.origin = _origin(splits, self.folder.parent)
        self.original_labels = original_labels(self.folder)
        self.transform = transform
        self.load = load
        if not load:
            self.record(0)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Any:
        item = self.arrays(index) if self.load else self.record(index)
        return item if self.transform is None else self.transform(item)

    def record(self, index: int) -> Item:
        """Id and file names of a scan: ``image`` (a list if there are several channels) and ``label``.

        Raises:
            DataError: If the labels in the files are not those of the real masks.
        """
        renumbered = {mine: file for mine, file in self.original_labels.items() if mine != file}
        if renumbered:
            first = min(renumbered)
            raise DataError(
                f"{self.folder}: label {renumbered[first]} of the real masks is {first} in the synthetic files; read "
                "them as arrays (load=True, or RandSyntheticd after LoadImaged), which gives the real numbers"
            )
        case = self.cases[index]
        images = [str(path) for path in case.images]
        return {"id": case.id, "image": images[0] if len(images) == 1 else images, "label": str(case.mask)}

    def arrays(self, index: int) -> Item:
        """The arrays of a scan, without the transform; see the class."""
        case = self.cases[index]
        image = case.read_image()
        mask = case.read_mask(image)
        if mask is None:
            raise DataError(f"{case.id}: its mask is gone; restore the folder {self.folder}")
        return _item(case.id, image.data, mask.data, image.grid.affine, self.original_labels)


class LiveDataset(Dataset[Any]):
    """Scans sampled while you train, from a generator that an augment run saved: scan n is always the same.

    Each has passed the filter that the run keeps beside its generators, as the exported scans have.

    Args:
        folder: ``model/<backend>`` of a run.
        transform: Applied to each item, as for :class:`SyntheticDataset`, whose arrays the items have.
        seed: Seed of the samples; equal seeds give equal scans.
        length: Number of different scans.
        filtered: Whether a sample that the run's filter refuses is drawn anew. Checking takes longer than sampling;
            ``rejections.csv`` of the run says what share is refused.
        accept: Says of a sample whether to use it; refused ones are sampled anew.
        attempts: Most samples per scan.
        device: Where generator and filter compute; each process loads its own copy on first use.
        splits: As for :class:`SyntheticDataset`.

    Raises:
        ArtifactError: On first use, if the folder holds no generator, or no filter is beside it.
        DataError: If the voxel size is unknown because the run exported no scan; or if no attempt gives a scan.
    """

    def __init__(
        self,
        folder: str | Path,
        transform: Transform | None = None,
        *,
        seed: int = 0,
        length: int = 100_000,
        filtered: bool = True,
        accept: Callable[[Synthetic], bool] | None = None,
        attempts: int = 10,
        device: str = "cpu",
        splits: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        run = self.folder.resolve().parent.parent
        exported = load_cohort(run / "synthetic")
        self._affine = io.read(exported.cases[0].images[0]).grid.affine
        self.origin = _origin(splits, run)
        self.original_labels = original_labels(run / "synthetic")
        self.transform, self.filtered, self.accept = transform, filtered, accept
        self._seed, self._length, self._attempts, self._device = seed, length, attempts, device
        self._loaded: tuple[Backend, Filter | None] | None = None

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        # A worker loads its own generator and filter: weights are not sent between processes.
        return {**self.__dict__, "_loaded": None}

    def __getitem__(self, index: int) -> Any:
        item = self.arrays(index)
        return item if self.transform is None else self.transform(item)

    def record(self, index: int) -> Item:
        """There is no file of a sampled scan.

        Raises:
            DataError: Always.
        """
        raise DataError(
            f"{self.folder}: scans that are sampled live have no files; put RandSyntheticd after LoadImaged and "
            "EnsureChannelFirstd, without prepare"
        )

    def arrays(self, index: int) -> Item:
        """The arrays of a scan, without the transform; see :class:`SyntheticDataset`."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        backend, filters = self._load()
        reason = "refused by accept"
        for attempt in range(self._attempts):
            try:
                scan = backend.sample(derive(self._seed, "live", index, attempt))
                if filters is not None:
                    verdict = filters.check(scan, derived=backend.derived)
                    if not verdict.accepted:
                        reason = "; ".join(verdict.reasons.values())
                        continue
            except AuditError:
                # A leak is no property of one scan: the training must stop.
                raise
            except MedgenError as error:
                reason = str(error)
                continue
            if self.accept is None or self.accept(scan):
                return _item(f"live-{index:06d}", scan.image, scan.labels[None], self._affine, self.original_labels)
        raise DataError(f"{self.folder}: no usable sample in {self._attempts} attempts ({reason}); use exported scans")

    def _load(self) -> tuple[Backend, Filter | None]:
        if self._loaded is None:
            filters = load_filter(self.folder.parent / FOLDER, self._device).filters if self.filtered else None
            self._loaded = load_backend(self.folder, self._device), filters
        return self._loaded


Source = SyntheticDataset | LiveDataset


class Mixing:
    """How often a synthetic scan takes a real one's place; shared with the workers of a ``DataLoader``.

    Args:
        p_syn: Probability, 0 to 1, until three quarters of the training; then it falls linearly to 0 at its end, so
            that training ends on real scans. Without :meth:`set_progress` it stays.

    Raises:
        DataError: If ``p_syn`` is not a probability.
    """

    def __init__(self, p_syn: float) -> None:
        if not 0 <= p_syn <= 1:
            raise DataError(f"p_syn {p_syn}: expected a probability from 0 to 1")
        self._p_syn = p_syn
        # In shared memory, so that workers that outlive an epoch see what the training script sets.
        self._state = torch.tensor([0.0, 1.0]).share_memory_()

    @property
    def probability(self) -> float:
        """How likely an item is a synthetic scan now, in [0, 1]: 0 outside of training."""
        progress, training = self._state.tolist()
        return self._p_syn * synthetic_share(progress) if training else 0.0

    def set_progress(self, done: float, total: float = 1.0) -> None:
        """Say how far training is: ``set_progress(epoch, epochs)`` at the start of each epoch."""
        self._state[0] = min(max(done / total, 0.0), 1.0)

    def train(self, mode: bool = True) -> None:
        """Mix (True), or hand out real cases only (False)."""
        self._state[1] = float(mode)

    def eval(self) -> None:
        """Hand out real cases only."""
        self.train(False)


class MixedDataset(Mixing, Dataset[Any]):
    """A real training set in which some cases are replaced by synthetic scans.

    Which ones depends on ``seed``, the index, how often the index was asked for and, with workers, on the seed that
    ``torch.manual_seed`` gives the epoch: equal seeds give equal epochs, and no two epochs are alike.

    Args:
        real: Data set or list of your training cases.
        synthetic: :class:`SyntheticDataset` or :class:`LiveDataset`, whose ``transform`` makes its items what ``real``
            gives; or with ``transform`` below.
        p_syn: See :class:`Mixing`.
        seed: Seed of the choice which items are replaced, and by which scans.
        transform: Applied to every item, real or synthetic.
        ids: Case ids or subjects of ``real``, to be checked; taken from ``real.ids``, or from the ids or file names of
            a list of dictionaries, where None.
        validation: Case ids or subjects of your validation and test sets, to be checked.

    Raises:
        AuditError: If ``real`` has a case that was held out in the run that made the synthetic scans, or
            ``validation`` one that its generators learnt from.
        DataError: If ``real`` is empty, or ``validation`` is given and the synthetic scans' run is unknown.
    """

    def __init__(
        self,
        real: Dataset[Any] | Sequence[Any],
        synthetic: Source,
        p_syn: float = 0.5,
        seed: int = 0,
        *,
        transform: Transform | None = None,
        ids: Collection[str] | None = None,
        validation: Collection[str] = (),
    ) -> None:
        super().__init__(p_syn)
        self._real = cast(Sequence[Any], real)
        if not len(self._real) or not len(synthetic):
            raise DataError(f"{len(self._real)} real and {len(synthetic)} synthetic scans; expected some of both")
        check_use(synthetic, ids_of(real) if ids is None else ids, validation)
        self._synthetic, self._seed, self.transform = synthetic, seed, transform
        self._visits: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._real)

    def __getitem__(self, index: int) -> Any:
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(index)
        self._visits[index] = self._visits.get(index, 0) + 1
        rng = numpy_rng(self._seed, "mixed", _epoch_seed(), self._visits[index], index)
        # Both draws always: the scan drawn does not depend on the probability.
        chosen, other = rng.random() < self.probability, int(rng.integers(len(self._synthetic)))
        item = self._synthetic[other] if chosen else self._real[index]
        return item if self.transform is None else self.transform(item)


class MixedStream(Mixing, IterableDataset[Any]):
    """The same for a real data set that is a stream; the arguments are those of :class:`MixedDataset`.

    The choice depends on ``seed``, the position in the stream, the worker and the number of the pass.
    """

    def __init__(
        self,
        real: Iterable[Any],
        synthetic: Source,
        p_syn: float = 0.5,
        seed: int = 0,
        *,
        transform: Transform | None = None,
        ids: Collection[str] = (),
        validation: Collection[str] = (),
    ) -> None:
        super().__init__(p_syn)
        check_use(synthetic, ids, validation)
        self._real, self._synthetic, self._seed, self.transform = real, synthetic, seed, transform
        self._passes = 0

    def __iter__(self) -> Iterator[Any]:
        self._passes += 1
        info = get_worker_info()
        rng = numpy_rng(self._seed, "mixed", _epoch_seed(), -1 if info is None else info.id, self._passes)
        for item in self._real:
            chosen, other = rng.random() < self.probability, int(rng.integers(len(self._synthetic)))
            given = self._synthetic[other] if chosen else item
            yield given if self.transform is None else self.transform(given)


def check_use(synthetic: Source, training: Collection[str], validation: Collection[str]) -> None:
    """Refuse synthetic scans in validation sets, and validation on subjects that they were learnt from.

    Raises:
        AuditError: Naming a case or subject.
        DataError: If there is something to validate on and the run that made the scans is unknown.
    """
    if synthetic.origin is None:
        if validation:
            raise DataError(
                f"{synthetic.folder}: whom the scans were learnt from is unknown, and validation cannot be checked; "
                f"give splits, the {SPLITS} of the augment run that made them"
            )
        return
    synthetic.origin.refuse_training(training)
    synthetic.origin.refuse_validation(validation)


def ids_of(real: Any) -> frozenset[str]:
    """Case ids of a data set with ``ids``, or of a list of dictionaries with ``id`` or file names; else none."""
    own = getattr(real, "ids", None)
    if own is not None:
        return frozenset(str(name) for name in own)
    if not isinstance(real, Sequence):
        return frozenset()
    names: set[str] = set()
    for record in real:
        if not isinstance(record, Mapping):
            return frozenset()
        for value in record.values():
            first = value[0] if isinstance(value, list | tuple) and value else value
            if isinstance(first, str | Path):
                name = io.stem(first)
                # nnU-Net's channel number is no part of the id.
                names |= {name, name[:-5] if name[-5:-4] == "_" and name[-4:].isdigit() else name}
    return frozenset(names)


def _origin(splits: str | Path | None, run: Path) -> RunSplits | None:
    if splits is not None:
        return read_origin(splits)
    return read_origin(run / SPLITS) if (run / SPLITS).is_file() else None


def _item(
    name: str, image: NDArray[Any], labels: NDArray[Any], affine: NDArray[np.float64], original: Mapping[int, int]
) -> Item:
    numbers = labels.astype(np.int64)
    for mine, file in sorted(original.items(), reverse=True):
        # Descending, and never below the own number: no label is renumbered twice.
        if mine != file:
            numbers[numbers == mine] = file
    return {
        "id": name,
        "image": torch.from_numpy(image.astype(np.float32)),
        "label": torch.from_numpy(numbers),
        "affine": torch.from_numpy(affine.copy()),
    }


def _epoch_seed() -> int:
    """What all workers of one epoch share; 0 outside of workers."""
    info = get_worker_info()
    return 0 if info is None else int(info.seed) - int(info.id)
