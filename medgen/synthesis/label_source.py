"""Where the labels of a synthetic scan come from: the first half of a pair."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from medgen.synthesis.backend import FitContext
from medgen.synthesis.part import Part
from medgen.synthesis.sources import Sources


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map to paint on, and whose it is.

    Attributes:
        labels: Label numbers, (i, j, k) uint8.
        parents: Ids of the training cases whose anatomy it is; empty if it was drawn from a model only.
        view: Where a scan of it shows anything, (i, j, k) bool: the parent's, or a guess where there is no parent; None
            where nothing is known of it.
        inferred: Whether the labels were inferred for the parent by consensus, not drawn by a person.
        image: The parent's image, taken to where the labels are, (c, i, j, k) float32; None where none is.
        facts: Plain data for the provenance record.
    """

    labels: NDArray[np.uint8]
    parents: tuple[str, ...] = ()
    view: NDArray[np.bool_] | None = None
    inferred: bool = False
    image: NDArray[np.float32] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class LabelSource(Part):
    """A fitted source of label maps. Subclasses are final, one per file in ``medgen/synthesis/label_sources``.

    Attributes:
        derived: Whether its anatomies are those of patients: scans painted on them cannot be anonymous.
        moves: Whether its anatomies come with an image, which the painter ``parent`` needs.
    """

    role: ClassVar[str] = "labels"
    derived: ClassVar[bool]
    moves: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, sources: Sources, config: Any, context: FitContext) -> Self:
        """Learn from the sources by the settings of its ``Config``."""

    @abstractmethod
    def draw(self, seed: int) -> Anatomy:
        """The anatomy of this seed; equal seeds give equal anatomies."""
