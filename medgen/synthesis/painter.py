"""Who makes the image of a synthetic scan for given labels: the second half of a pair."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.synthesis.backend import FitContext
from medgen.synthesis.label_source import Anatomy, Scan
from medgen.synthesis.part import Part
from medgen.synthesis.sources import Sources


@dataclass(frozen=True, eq=False)
class Painted:
    """An image, and the labels that hold for it.

    Attributes:
        image: Model intensities, (c, i, j, k) float32, finite and nowhere below 0.
        labels: Label numbers, (i, j, k) uint8: those that were painted on, so that they are right by construction.
        facts: Plain data for the provenance record.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Painter(Part):
    """A fitted painter. Subclasses are final, one per file in ``medgen/synthesis/painters``.

    Attributes:
        starts_from: Which image it changes; a painter that starts from none makes a pair with every label source.
    """

    role: ClassVar[str] = "painter"
    starts_from: ClassVar[Scan] = Scan.NONE

    @classmethod
    @abstractmethod
    def fit(cls, sources: Sources, config: Any, context: FitContext) -> Self:
        """Learn from the sources by the settings of its ``Config``."""

    @classmethod
    def labels_seed(cls, seed: int) -> int:
        """Seed of the anatomy of the sample ``seed``; its random streams may have no name that the painter uses."""
        return seed

    @abstractmethod
    def paint(self, anatomy: Anatomy, seed: int) -> Painted:
        """The image of this seed for an anatomy; equal seeds and anatomies give equal images."""


def indices(labels: NDArray[np.uint8], numbers: Sequence[int]) -> Tensor:
    """Label numbers (i, j, k) as networks want them: 1, 2, ... in the order of ``numbers``, (1, 1, i, j, k) int64.

    >>> indices(np.array([[[0, 4, 2]]], np.uint8), (2, 4)).flatten().tolist()
    [0, 2, 1]
    """
    table = np.zeros(256, dtype=np.int64)
    table[list(numbers)] = np.arange(1, len(numbers) + 1)
    return torch.from_numpy(table[labels])[None, None]
