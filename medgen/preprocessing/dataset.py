"""A cohort in memory, prepared on the model grid, and the batches that training draws from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.errors import AuditError, DataError, MedgenError
from medgen.preprocessing.prepared import PreparedScan
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Progress
from medgen.system.processes import thread_pool
from medgen.transforms.affine_registration import register_affine
from medgen.transforms.devices import sent
from medgen.volume import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medgen.data.cases import Case, Manifest
    from medgen.preprocessing.recipe import PreparedScan, Preprocess, Template
    from medgen.transforms.kept_registrations import Register


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees; all tensors on one device.

    Attributes:
        image: Model intensities, (b, c, i, j, k) float32.
        foreground: 1 where there is anatomy, else 0, (b, 1, i, j, k) float32.
        labels: Label numbers with 0 as background, (b, 1, i, j, k) int64, or None for an unlabelled cohort.
        progress: How much of the training is done, in [0, 1]; schedules read it.
        confidence: How far each voxel's label can be trusted, in [0, 1], (b, 1, i, j, k) float32; None means fully.
    """

    image: Tensor
    foreground: Tensor
    labels: Tensor | None = None
    progress: float = 0.0
    confidence: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        where = torch.device(device)
        labels = None if self.labels is None else sent(self.labels, where)
        confidence = None if self.confidence is None else sent(self.confidence, where)
        image, foreground = sent(self.image, where), sent(self.foreground, where)
        return replace(self, image=image, foreground=foreground, labels=labels, confidence=confidence)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared cases, stacked; the order of ``ids`` is the order of the first axis everywhere.

    >>> images = torch.rand(3, 1, 8, 8, 8)
    >>> dataset = Dataset(("ann-1", "ann-2", "bob-1"), ("ann", "ann", "bob"), images, images > 0.1)
    >>> len(dataset), dataset.channels, dataset.shape
    (3, 1, (8, 8, 8))
    >>> dataset.subset(["bob-1", "ann-1"]).subjects
    ('bob', 'ann')
    >>> dataset.batch([0, 2]).image.shape
    torch.Size([2, 1, 8, 8, 8])

    Attributes:
        ids: Case ids, unique.
        subjects: Subject of each case.
        images: Model intensities, (n, c, i, j, k) float32.
        foregrounds: Anatomy masks, (n, 1, i, j, k) bool.
        labels: Label numbers, (n, 1, i, j, k) uint8, or None if any case has no mask.
        prepared: Per case the grids and the intensity map that lead back to the scan; may be empty for made-up data.
        confidence: How far each voxel's label can be trusted, in 255ths, (n, 1, i, j, k) uint8; None means fully.

    Raises:
        DataError: If the lengths or shapes do not agree, or an id occurs twice.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    images: Tensor
    foregrounds: Tensor
    labels: Tensor | None = None
    prepared: tuple[PreparedScan, ...] = ()
    confidence: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if len(set(self.ids)) != n:
            raise DataError("a case id occurs twice in the data set; ids must be unique")
        if self.images.ndim != 5 or len(self.images) != n or len(self.subjects) != n:
            raise DataError(f"expected {n} images of shape (c, i, j, k), found a tensor of {tuple(self.images.shape)}")
        expected = (n, 1, *self.images.shape[2:])
        maps = (("foregrounds", self.foregrounds), ("labels", self.labels), ("confidence", self.confidence))
        for name, tensor in maps:
            if tensor is not None and tuple(tensor.shape) != expected:
                raise DataError(f"expected {name} of shape {expected}, found {tuple(tensor.shape)}")
        if self.prepared and len(self.prepared) != n:
            raise DataError(f"expected {n} prepared scans, found {len(self.prepared)}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (i, j, k) of every case."""
        i, j, k = self.images.shape[2:]
        return i, j, k

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return int(self.images.shape[1])

    @property
    def highest_label(self) -> int:
        """The highest label number of all cases; 0 without label maps."""
        return 0 if self.labels is None else int(self.labels.max())

    def subset(self, ids: Sequence[str]) -> Dataset:
        """The named cases, in the order given (tensors are copied).

        Raises:
            DataError: If an id is not in the data set.
        """
        position = {name: index for index, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in position]
        if missing:
            raise DataError(f"case {missing[0]!r} is not in the data set of {len(self)} cases")
        rows = [position[name] for name in ids]
        return Dataset(
            ids=tuple(ids),
            subjects=tuple(self.subjects[row] for row in rows),
            images=self.images[rows],
            foregrounds=self.foregrounds[rows],
            labels=None if self.labels is None else self.labels[rows],
            prepared=tuple(self.prepared[row] for row in rows) if self.prepared else (),
            confidence=None if self.confidence is None else self.confidence[rows],
        )

    def of_channels(self, rows: Sequence[int]) -> Dataset:
        """The same cases with some of their image channels, in the order given."""
        images = self.images[:, list(rows)]
        prepared = tuple(
            replace(item, image=image.numpy(), scale=tuple(item.scale[row] for row in rows))
            for item, image in zip(self.prepared, images, strict=bool(self.prepared))
        )
        return replace(self, images=images, prepared=prepared)

    def batch(self, indices: Sequence[int], progress: float = 0.0, device: torch.device | None = None) -> Batch:
        """The cases at ``indices`` as a :class:`Batch` on a device, by default that of the data set.

        Masks are sent as bytes and widened there. Nobody waits for the copy: the next batch is on its way while the
        device computes.
        """
        rows = sent(torch.tensor(list(indices), dtype=torch.long), self.images.device)
        where = device or self.images.device

        def cases(maps: Tensor) -> Tensor:
            return sent(maps[rows], where)

        labels = None if self.labels is None else cases(self.labels).long()
        confidence = None if self.confidence is None else cases(self.confidence).float() / 255
        return Batch(cases(self.images), cases(self.foregrounds).float(), labels, progress, confidence)


def guard_unlabelled(labelled: Dataset, unlabelled: Dataset) -> None:
    """Raise AuditError for a subject with labelled and unlabelled scans, DataError if the unlabelled carry labels."""
    if unlabelled.labels is not None:
        raise DataError("unlabelled scans must not carry masks: labels that count as unknown could leak")
    if both := set(labelled.subjects) & set(unlabelled.subjects):
        raise AuditError(f"subject {min(both)!r} is both labelled and unlabelled; split by subject")


def join(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets as one, in order.

    Labels are kept if every part has them; so is confidence if any part has it, the others' being full.

    Raises:
        DataError: If there is no part, shapes differ, or an id occurs twice.
    """
    if not parts:
        raise DataError("nothing to join")
    if len({tuple(part.images.shape[1:]) for part in parts}) > 1:
        raise DataError("data sets of different shapes cannot be joined; prepare them with one recipe")
    labels = [part.labels for part in parts if part.labels is not None]
    full = [torch.full_like(part.foregrounds, 255, dtype=torch.uint8) for part in parts]
    trusted = [whole if part.confidence is None else part.confidence for part, whole in zip(parts, full, strict=True)]
    return Dataset(
        ids=tuple(name for part in parts for name in part.ids),
        subjects=tuple(name for part in parts for name in part.subjects),
        images=torch.cat([part.images for part in parts]),
        foregrounds=torch.cat([part.foregrounds for part in parts]),
        labels=torch.cat(labels) if len(labels) == len(parts) else None,
        prepared=tuple(item for part in parts for item in part.prepared) if all(p.prepared for p in parts) else (),
        confidence=torch.cat(trusted) if any(part.confidence is not None for part in parts) else None,
    )


class Failure(NamedTuple):
    """A case that could not be prepared, and the one-line reason."""

    case: str
    message: str


def prepare_dataset(
    manifest: Manifest,
    preprocess: Preprocess,
    template: Template | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    register: Register = register_affine,
) -> tuple[Dataset, list[Failure]]:
    """Read and preprocess every case of a cohort.

    A case that cannot be read or prepared is left out and reported, so that one bad file does not end a run.

    Args:
        manifest: The cases.
        preprocess: The recipe.
        template: Cohort template, needed when the recipe registers to one.
        workers: Threads; reading and resampling release the interpreter lock.
        progress: Called with (cases done, cases in all) after each case.
        register: What registers to the template; :class:`medgen.transforms.kept_registrations.KeptRegistrations`
            remembers.

    Returns:
        The data set in the manifest's order, and the failures. Labels are present if every prepared case has a mask.

    Raises:
        DataError: If no case could be prepared, or a label number is above 255.
    """
    cases = list(manifest)
    done: list[tuple[PreparedScan, NDArray[np.uint8] | None] | Failure] = []
    with thread_pool(workers) as pool:
        for result in pool.map(lambda case: prepared_case(case, preprocess, template, register), cases):
            done.append(result)
            if progress is not None:
                progress(len(done), len(cases))
    failures = [result for result in done if isinstance(result, Failure)]
    good = [(case, result) for case, result in zip(cases, done, strict=True) if not isinstance(result, Failure)]
    if not good:
        reason = f"; the first reason: {failures[0].case}: {failures[0].message}" if failures else ""
        raise DataError(f"{manifest.name}: none of {len(cases)} cases could be prepared{reason}")
    counts = {result[0].image.shape[0] for _, result in good}
    if len(counts) > 1:
        raise DataError(f"{manifest.name}: cases have different numbers of channels: {sorted(counts)}; expected one")
    images = torch.from_numpy(np.stack([prepared.image for _, (prepared, _) in good]).astype(np.float32, copy=False))
    masks = [mask for _, (_, mask) in good if mask is not None]
    # The records keep views of the stacked images: one copy of the cohort in memory, not two.
    prepared = tuple(replace(item, image=images[row].numpy()) for row, (_, (item, _)) in enumerate(good))
    return Dataset(
        ids=tuple(case.id for case, _ in good),
        subjects=tuple(case.subject for case, _ in good),
        images=images,
        foregrounds=torch.from_numpy(np.stack([item.foreground for item in prepared]))[:, None],
        labels=torch.from_numpy(np.stack(masks))[:, None] if len(masks) == len(good) else None,
        prepared=prepared,
    ), failures


def prepared_case(
    case: Case, preprocess: Preprocess, template: Template | None, register: Register
) -> tuple[PreparedScan, NDArray[np.uint8] | None] | Failure:
    """Read and prepare one case: the scan and its label map (i, j, k), or why that cannot be done."""
    from medgen.data.faces import may_show_face
    from medgen.preprocessing.recipe import prepare_labels

    try:
        scan = case.read_image()
        # Seen here, since the model grid may cut the head off, or be another size.
        prepared = preprocess.apply(scan, template, register)
        # The cleaned scan is for pictures of one scan; a cohort of them would not fit in memory.
        prepared = replace(
            prepared,
            may_show_face=may_show_face(prepared.cleaned or scan),
            cleaned=None,
            attributes=dict(case.attributes),
        )
        mask = case.read_mask(scan)
        labels = None if mask is None else prepare_labels(mask, prepared)
    except MedgenError as error:
        return Failure(case.id, str(error))
    if labels is None:
        return prepared, None
    if labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
        return Failure(case.id, f"label numbers run up to {labels.max()}; expected 0 to 255")
    return prepared, labels.astype(np.uint8)


def prepared_record(dataset: Dataset, row: int, spacing: Sequence[float]) -> PreparedScan:
    """How a scan of a data set goes back to its own grid; made-up data has none but the model grid.

    Args:
        dataset: Prepared scans.
        row: Which of them.
        spacing: Voxel size of the model grid in mm.
    """
    if dataset.prepared:
        return dataset.prepared[row]
    grid = Grid(dataset.shape, np.diag([*spacing, 1.0]))
    image = dataset.images[row].cpu().numpy()
    return PreparedScan(
        image, dataset.foregrounds[row, 0].cpu().numpy() > 0, grid, grid, ((0.0, 1.0),) * dataset.channels
    )
