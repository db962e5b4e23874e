"""A cohort whose prepared scans lie on disk: what training needs of a data set, without the cohort in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medgen.data.cases import Case, Manifest
from medgen.errors import DataError
from medgen.preprocessing.cache.folder import CacheFolder, recipe_key, scan_key
from medgen.preprocessing.cache.scan_file import ScanFile, open_scan, stacked, write_scan
from medgen.preprocessing.dataset import Batch, Dataset, Failure, prepared_case
from medgen.preprocessing.prepared import Template
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Progress
from medgen.seeds import numpy_rng
from medgen.system.files import sha256_json
from medgen.system.processes import thread_pool
from medgen.transforms.affine_registration import register_affine
from medgen.transforms.devices import sent
from medgen.transforms.kept_registrations import Register

# Memory for the scans that a model is fitted to before its first step, as float32.
_FITTED = 1 << 29
FEWEST = 16

Maps = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True, eq=False)
class CachedDataset:
    """Prepared cases on disk, in the order of ``ids``; batches are read when they are drawn, on a thread ahead of time.

    Batches are those of a :class:`~medgen.preprocessing.dataset.Dataset` whose images were rounded to float16.

    Attributes:
        ids: Case ids, unique.
        subjects: Subject of each case.
        files: The prepared scan of each case.

    Raises:
        DataError: If there is no case, lengths do not agree, an id occurs twice, or scans differ in shape.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    files: tuple[ScanFile, ...]
    _reader: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="scans"), repr=False
    )
    _coming: dict[tuple[int, ...], Future[Maps]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.files or not len(self.ids) == len(self.subjects) == len(self.files):
            raise DataError(f"expected a file for each of {len(self.ids)} cases, found {len(self.files)}")
        if len(set(self.ids)) != len(self.ids):
            raise DataError("a case id occurs twice in the data set; ids must be unique")
        if len(shapes := {file.shape for file in self.files}) > 1:
            raise DataError(f"cached scans have different channels or voxels: {sorted(shapes)}; expected one shape")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (i, j, k) of every case."""
        return self.files[0].shape[1:]

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return self.files[0].shape[0]

    @property
    def labelled(self) -> bool:
        """Whether every case has a label map."""
        return all(file.labelled for file in self.files)

    @property
    def highest_label(self) -> int:
        """The highest label number of all cases; 0 where not every case has a label map."""
        return max(file.highest for file in self.files) if self.labelled else 0

    def digest(self) -> str:
        """SHA-256 of ids, subjects and of what every file held when it was opened."""
        return sha256_json([self.ids, self.subjects, [file.sha256 for file in self.files]])

    def subset(self, ids: Sequence[str]) -> CachedDataset:
        """The named cases, in the order given; nothing is read.

        Raises:
            DataError: If an id is not in the data set, or none is named.
        """
        position = {name: index for index, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in position]
        if missing:
            raise DataError(f"case {missing[0]!r} is not in the data set of {len(self)} cases")
        rows = [position[name] for name in ids]
        return CachedDataset(tuple(ids), self._of(self.subjects, rows), tuple(self.files[row] for row in rows))

    def batch(self, indices: Sequence[int], progress: float = 0.0, device: torch.device | None = None) -> Batch:
        """As :meth:`medgen.preprocessing.dataset.Dataset.batch`; sent to the device as float16 and bytes.

        Raises:
            DataError: If a file is gone.
        """
        rows, where = tuple(indices), device or torch.device("cpu")
        coming = self._coming.pop(rows, None)
        images, foregrounds, labels = self._read(rows, where) if coming is None else coming.result()
        return Batch(
            sent(images, where).float(),
            sent(foregrounds, where).float(),
            None if labels is None else sent(labels, where).long(),
            progress,
        )

    def expect(self, batches: Sequence[Sequence[int]], device: torch.device | None = None) -> None:
        """Begin to read these batches, which are drawn next, on another thread; what was expected before is dropped."""
        self._coming.clear()
        where = device or torch.device("cpu")
        for indices in batches:
            rows = tuple(indices)
            self._coming[rows] = self._reader.submit(self._read, rows, where)

    def load(self, indices: Sequence[int]) -> Dataset:
        """Some cases in memory.

        Raises:
            DataError: If a file is gone.
        """
        files = [self.files[index] for index in indices]
        images, foregrounds, labels = stacked(files)
        wide, shown = images.float(), foregrounds.bool()
        return Dataset(
            self._of(self.ids, indices),
            self._of(self.subjects, indices),
            wide,
            shown,
            labels if self.labelled else None,
            tuple(
                file.prepared(image.numpy(), mask[0].numpy())
                for file, image, mask in zip(files, wide, shown, strict=True)
            ),
        )

    def sample(self, limit: int = _FITTED) -> Dataset:
        """What a model is fitted to before and after its steps: all cases, or as many drawn ones as the limit holds.

        Args:
            limit: Bytes of their images as float32; sixteen cases are taken in any case.
        """
        each = 4 * self.channels * self.shape[0] * self.shape[1] * self.shape[2]
        count = min(len(self), max(limit // each, FEWEST))
        rows = range(len(self)) if count == len(self) else numpy_rng(0, "sample").permutation(len(self))[:count]
        return self.load(sorted(int(row) for row in rows))

    def _read(self, rows: Sequence[int], device: torch.device) -> Maps:
        images, foregrounds, labels = stacked([self.files[row] for row in rows])
        labels = labels if self.labelled else None
        if device.type != "cuda":
            return images, foregrounds, labels
        # Page-locked here, on the reading thread, so that the step does not wait for the copy to the device.
        return images.pin_memory(), foregrounds.pin_memory(), None if labels is None else labels.pin_memory()

    @staticmethod
    def _of(names: tuple[str, ...], rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(names[row] for row in rows)


def cached_dataset(
    manifest: Manifest,
    recipe: Preprocess,
    cache: CacheFolder,
    template: Template | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    register: Register = register_affine,
) -> tuple[CachedDataset, list[Failure]]:
    """Prepare every case of a cohort that the cache does not have yet; at most ``workers`` scans are in memory.

    A file that is damaged, or was made from other bytes or by another recipe, is made anew.

    Args:
        manifest: The cases.
        recipe: How scans are prepared.
        cache: Where prepared scans are kept.
        template: Cohort template, needed when the recipe registers to one.
        workers: Threads.
        progress: Called with (cases done, cases in all) after each case.
        register: What registers to the template.

    Returns:
        The data set in the manifest's order, and the cases that could not be prepared.

    Raises:
        DataError: If no case could be prepared, scans differ in channels, or the cache cannot take them.
    """
    cases, key = list(manifest), recipe_key(recipe, template)
    done: list[ScanFile | Failure] = []
    with thread_pool(workers) as pool:
        for result in pool.map(lambda case: _kept(case, recipe, template, register, cache, key), cases):
            done.append(result)
            if progress is not None:
                progress(len(done), len(cases))
    failures = [result for result in done if isinstance(result, Failure)]
    good = [(case, result) for case, result in zip(cases, done, strict=True) if isinstance(result, ScanFile)]
    if not good:
        reason = f"; the first reason: {failures[0].case}: {failures[0].message}" if failures else ""
        raise DataError(f"{manifest.name}: none of {len(cases)} cases could be prepared{reason}")
    ids, subjects = tuple(case.id for case, _ in good), tuple(case.subject for case, _ in good)
    return CachedDataset(ids, subjects, tuple(file for _, file in good)), failures


def _kept(
    case: Case, recipe: Preprocess, template: Template | None, register: Register, cache: CacheFolder, recipe_part: str
) -> ScanFile | Failure:
    try:
        key = scan_key(case, recipe_part)
    except DataError as error:
        return Failure(case.id, str(error))
    path = cache.path(key)
    if (found := open_scan(path, key)) is None:
        made = prepared_case(case, recipe, template, register)
        if isinstance(made, Failure):
            return made
        prepared, labels = made
        cache.make_room(2 * prepared.image.size + 2 * prepared.foreground.size)
        write_scan(path, prepared, labels, key)
        if (found := open_scan(path, key)) is None:
            raise DataError(
                f"{path}: what was written cannot be read back; check the disk, or use another cache folder"
            )
    cache.use(path)
    return found
