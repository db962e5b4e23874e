"""Where the labels of a synthetic scan come from: the first half of a pair."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from medgen.synthesis.backend import FitContext
from medgen.synthesis.part import Part
from medgen.synthesis.sources import Sources


class Scan(StrEnum):
    """Which image comes with an anatomy; painters that start from one ask for it. In words for messages."""

    NONE = "no image"
    MOVED = "an image that comes with the labels and shows them"
    HOST = "a scan that something was added to"


@dataclass(frozen=True, eq=False)
class Added:
    """Something that was added to the labels of a scan, and where the image has to follow.

    Attributes:
        window: The part of the grid around it, slices along i, j and k.
        labels: Label numbers in the window with this addition and those before it, (p, q, r) uint8.
        new: Its voxels in the window, (p, q, r) bool.
        weight: How far a painter's image replaces the scan's in the window, (p, q, r) float32: 1 in the addition, 0
            where the scan stays.
        looks: Standard normal numbers from which its looks follow, float64.
    """

    window: tuple[slice, slice, slice]
    labels: NDArray[np.uint8]
    new: NDArray[np.bool_]
    weight: NDArray[np.float32]
    looks: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map to paint on, and whose it is.

    Attributes:
        labels: Label numbers, (i, j, k) uint8.
        parents: Ids of the training cases whose anatomy it is; empty if it was drawn from a model only.
        view: Where a scan of it shows anything, (i, j, k) bool: the parent's, or a guess where there is no parent; None
            where nothing is known of it.
        inferred: Whether the labels were inferred for the parent by consensus, not drawn by a person.
        image: The image that the source :attr:`~LabelSource.brings`, (c, i, j, k) float32; None where none is.
        added: What was added to the parent's labels, in this order.
        made: Label numbers that additions may have.
        facts: Plain data for the provenance record.
    """

    labels: NDArray[np.uint8]
    parents: tuple[str, ...] = ()
    view: NDArray[np.bool_] | None = None
    inferred: bool = False
    image: NDArray[np.float32] | None = None
    added: tuple[Added, ...] = ()
    made: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def region(self) -> NDArray[np.bool_]:
        """Where an image of the parent changes with the additions, (i, j, k) bool."""
        region = np.zeros(self.labels.shape, dtype=bool)
        for item in self.added:
            region[item.window] |= item.weight > 0
        return region


class LabelSource(Part):
    """A fitted source of label maps. Subclasses are final, one per file in ``medgen/synthesis/label_sources``.

    Attributes:
        derived: Whether its anatomies are those of patients: scans painted on them cannot be anonymous.
        brings: Which image comes with its anatomies.
    """

    role: ClassVar[str] = "labels"
    derived: ClassVar[bool]
    brings: ClassVar[Scan] = Scan.NONE

    @classmethod
    @abstractmethod
    def fit(cls, sources: Sources, config: Any, context: FitContext) -> Self:
        """Learn from the sources by the settings of its ``Config``."""

    @abstractmethod
    def draw(self, seed: int) -> Anatomy:
        """The anatomy of this seed; equal seeds give equal anatomies."""
