"""The parent's own image, moved with its labels: nothing is painted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, final

import torch
from numpy.typing import NDArray

from medgen.config import Config
from medgen.errors import DataError
from medgen.segmentation.ensemble import SegmenterEnsemble
from medgen.synthesis.backend import FitContext
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import Anatomy, Scan
from medgen.synthesis.painter import Painted, Painter
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability
from medgen.training.cost import Estimate


class ParentConfig(Config):
    """Settings of the parent's image: none."""


@final
class ParentPainter(Painter):
    """The image that comes with the labels; where those were inferred, they are asked for again."""

    name: ClassVar[str] = "parent"
    starts_from: ClassVar[Scan] = Scan.MOVED
    Config: ClassVar[type[Config]] = ParentConfig
    turn: ClassVar[int] = 20

    def prepare(self) -> None:
        """The segmenters of the consensus, if some labels are theirs."""
        arrays, about, device = self.stored.arrays, self.stored.meta.get("members"), str(self.device)
        self._members = None if about is None else SegmenterEnsemble.from_arrays(arrays, about, device)

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability:
        """Always."""
        return Suitability(True, "")

    @classmethod
    def fit(cls, sources: Sources, config: ParentConfig, context: FitContext) -> ParentPainter:
        """Keep the segmenters of the consensus, if some labels are theirs."""
        arrays: dict[str, NDArray[Any]] = {}
        meta: dict[str, Any] = {}
        if sources.consensus is not None and sources.members is not None:
            arrays, about = sources.members.to_arrays()
            meta = {"members": about}
        return cls(cls.record(arrays, meta, {}), device=context.device)

    @classmethod
    def estimate(cls, config: ParentConfig, outline: Outline, device: str, name: str) -> Estimate:
        """Nothing is learnt, and the image is there already."""
        return Estimate(0.0, 0.0)

    @torch.no_grad()
    def paint(self, anatomy: Anatomy, seed: int) -> Painted:
        """The image of the anatomy.

        Raises:
            DataError: If it has none.
        """
        if anatomy.image is None:
            raise DataError("the painter 'parent' needs labels that come with an image, such as those of 'deform'")
        if self._members is None or not anatomy.inferred:
            return Painted(anatomy.image, anatomy.labels)
        # Inferred labels are no truth that has to move with the image: asking again about the new image is
        # better than moving an answer about the old one.
        labels = self._members.vote(torch.from_numpy(anatomy.image)[None])[0]
        return Painted(anatomy.image, labels[0, 0].numpy(), {"labels": "inferred"})
