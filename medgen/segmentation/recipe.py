"""How a segmenter is trained apart from its network: augmentation, batch transforms, further scans, consistency.

A recipe is plain data; :func:`medgen.segmentation.segmenter.train_segmenter` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from medgen.errors import TrainingError
from medgen.transforms.augmentation import AugmentConfig


class LabelledImages(Protocol):
    """What a segmenter learns from; :class:`medgen.preprocessing.dataset.Dataset` is one.

    An attribute ``confidence``, (n, 1, i, j, k) uint8 in 255ths or None, is heeded where there is one.
    """

    @property
    def images(self) -> Tensor:
        """(n, c, i, j, k) float32."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """(n, 1, i, j, k) label numbers, 0 is background."""
        ...


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Scans with their labels, all tensors on one device.

    Attributes:
        image: (b, c, i, j, k) float32.
        target: (b, 1, i, j, k) integers, or shares of each class (b, classes, i, j, k) floating point that sum to 1.
        weight: How far each voxel's label is trusted, (b, 1, i, j, k) float32 in [0, 1]; None means fully.
        ids: Case id of each scan, to name it when something is wrong; empty where nobody knows.
    """

    image: Tensor
    target: Tensor
    weight: Tensor | None = None
    ids: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> LabelledBatch:
        """The same batch on another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return replace(self, image=self.image.to(device), target=self.target.to(device), weight=weight)

    def at(self, chosen: Tensor) -> LabelledBatch:
        """The elements where ``chosen`` (b,) bool is true."""
        weight = None if self.weight is None else self.weight[chosen]
        ids = tuple(name for name, taken in zip(self.ids, chosen.tolist(), strict=False) if taken)
        return LabelledBatch(self.image[chosen], self.target[chosen], weight, ids)

    def replaced(self, chosen: Tensor, other: LabelledBatch) -> LabelledBatch:
        """The batch with the elements where ``chosen`` (b,) bool is true taken from ``other``, in order."""
        if not bool(chosen.any()):
            return self
        image, target, weight = self.image.clone(), self.target.clone(), self.weight
        image[chosen], target[chosen] = other.image.to(image), other.target.to(target)
        if weight is not None or other.weight is not None:
            weight = torch.ones_like(image[:, :1]) if weight is None else weight.clone()
            weight[chosen] = 1.0 if other.weight is None else other.weight.to(weight)
        ids = list(self.ids)
        for number, row in enumerate(chosen.nonzero()[:, 0].tolist() if ids else ()):
            ids[row] = other.ids[number] if other.ids else "a further scan"
        return replace(self, image=image, target=target, weight=weight, ids=tuple(ids))


class BatchTransform(Protocol):
    """A random change of a batch, with targets as class indices (b, 1, i, j, k) coming in."""

    def __call__(self, batch: LabelledBatch, generator: torch.Generator) -> LabelledBatch:
        """A new batch of the same size on the same device; every draw comes from ``generator``."""
        ...


class ScanSource(Protocol):
    """Makes labelled scans while a segmenter trains, with label numbers as targets."""

    def draw(self, count: int, generator: torch.Generator) -> LabelledBatch:
        """``count`` scans (count, c, i, j, k) on any device; draws come from ``generator``, which is on the CPU."""
        ...


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """A fixed set of labelled scans as a :class:`ScanSource`.

    Attributes:
        images: (n, c, i, j, k) float32.
        labels: (n, 1, i, j, k) label numbers.
        confidence: (n, 1, i, j, k) uint8 in 255ths, or None.
        ids: Case id of each scan, for messages; may be empty.
    """

    images: Tensor
    labels: Tensor
    confidence: Tensor | None = None
    ids: tuple[str, ...] = ()

    def draw(self, count: int, generator: torch.Generator) -> LabelledBatch:
        """Scans drawn with replacement."""
        rows = torch.randint(len(self.images), (count,), generator=generator)
        weight = None if self.confidence is None else self.confidence[rows].float() / 255
        ids = tuple(self.ids[row] for row in rows.tolist()) if self.ids else ()
        return LabelledBatch(self.images[rows], self.labels[rows], weight, ids)


@dataclass(frozen=True, eq=False)
class Extra:
    """Further labelled scans in the batches.

    Attributes:
        source: Where they come from.
        probability: That an element of a batch is replaced by one.
        annealed: Whether the probability falls linearly to 0 over the last quarter of the steps.
    """

    source: ScanSource
    probability: float = 0.5
    annealed: bool = True


@dataclass(frozen=True, eq=False)
class Consistency:
    """Mean teacher: on scans without labels, student and teacher shall agree.

    Tarvainen and Valpola, NeurIPS 2017; numbers after Yu et al., "Uncertainty-aware self-ensembling model for
    semi-supervised 3D left atrium segmentation", MICCAI 2019.

    Attributes:
        images: Scans without labels, (n, c, i, j, k) float32.
        weight: Factor of the mean squared difference of the probabilities, once the ramp-up is over.
        decay: Decay per step of the moving average of the student's weights that the teacher is, below 1.
        ramp: Share of the steps over which the weight rises as exp(−5 (1 − t)²).
        noise: Standard deviation of the Gaussian noise that each of the two sees, in standard deviations of the scan.
        ids: Case id of each scan, for messages; may be empty.
    """

    images: Tensor
    weight: float = 0.1
    decay: float = 0.99
    ramp: float = 0.4
    noise: float = 0.1
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Recipe:
    """One way of training a segmenter.

    Attributes:
        augmentation: Applied to every scan of a batch first; None for none.
        transforms: Applied to the batch afterwards, in order.
        extra: Further labelled scans; they are augmented like real ones.
        consistency: What is learnt from scans without labels beside the batches.
        facts: Plain numbers for a record, such as how many scans were pseudo-labelled.

    Raises:
        TrainingError: If a probability is not in [0, 1].
    """

    augmentation: AugmentConfig | None = None
    transforms: tuple[BatchTransform, ...] = ()
    extra: Extra | None = None
    consistency: Consistency | None = None
    facts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.extra is not None and not 0 <= self.extra.probability <= 1:
            raise TrainingError(f"expected a probability of further scans in [0, 1], found {self.extra.probability}")
