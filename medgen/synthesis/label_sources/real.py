"""Labels of training scans as they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, final

import numpy as np
import torch

from medgen.config import Config
from medgen.errors import DataError
from medgen.seeds import numpy_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import Anatomy, LabelSource
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, all_cared_for
from medgen.synthesis.variation import chances
from medgen.training.cost import Estimate

# Choosing a label map and copying it.
_SECONDS = 1e-3


class RealConfig(Config):
    """Settings of labels as they are: none."""


@final
class RealLabels(LabelSource):
    """Label maps of the training scans, those with rare labels more often."""

    name: ClassVar[str] = "real"
    derived: ClassVar[bool] = True
    Config: ClassVar[type[Config]] = RealConfig
    turn: ClassVar[int] = 20

    def prepare(self) -> None:
        """The scans, and how often each is drawn."""
        self._ids: list[str] = list(self.stored.meta["ids"])
        self._inferred = frozenset(self.stored.meta["inferred_labels"])
        self._chances = chances(torch.from_numpy(np.array(self.stored.arrays["labels"])))

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability:
        """For every cohort that has a label left to it."""
        if all_cared_for(outline, cared_for):
            return Suitability(False, "other backends care for every label")
        return Suitability(True, f"labels are those of {outline.labelled} labelled scans")

    @classmethod
    def fit(cls, sources: Sources, config: RealConfig, context: FitContext) -> RealLabels:
        """Keep the label maps of all scans that have any, and where each scan shows anything."""
        pairs = sources.pairs
        if pairs.labels is None:
            raise DataError("synthesis needs training scans with masks")
        arrays = {"labels": pairs.labels.numpy(), "views": pairs.foregrounds.numpy()}
        meta = {
            "ids": list(pairs.ids),
            "inferred_labels": [] if sources.consensus is None else list(sources.consensus.ids),
            "contains_patient_scans": True,
        }
        return cls(cls.record(arrays, meta, {}), device=context.device)

    @classmethod
    def estimate(cls, config: RealConfig, outline: Outline, device: str, name: str) -> Estimate:
        """Nothing is learnt."""
        return Estimate(0.0, 2.0 * outline.voxels * (outline.labelled + outline.unlabelled), (), _SECONDS)

    def draw(self, seed: int) -> Anatomy:
        """One of the label maps."""
        row = int(numpy_rng(seed, "real", "choice").choice(len(self._ids), p=self._chances))
        parent = self._ids[row]
        return Anatomy(
            labels=np.array(self.stored.arrays["labels"][row, 0]),
            parents=(parent,),
            view=np.array(self.stored.arrays["views"][row, 0]) > 0,
            inferred=parent in self._inferred,
            facts={"labels": "real"},
        )
