"""A cohort on the model grid, and what generators may learn from of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from medgen.data.cases import Manifest
from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset, Failure, join
from medgen.preprocessing.recipe import Preprocess, Template
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.sources import Sources


@dataclass(frozen=True, eq=False)
class PreparedCohort:
    """The cohort of a run on labelled scans, on the model grid.

    Attributes:
        preprocess: The recipe that brought the scans there.
        template: What they were registered to; None where the recipe registers none.
        data: Prepared scans of every part that has any, by its name.
        labels: Label numbers in use, without 0, ascending.
        manifest: The cohort as the run sees it, masks read with the numbers in use.
        failures: Scans that could not be prepared.
    """

    preprocess: Preprocess
    template: Template | None
    data: Mapping[str, Dataset]
    labels: tuple[int, ...]
    manifest: Manifest
    failures: tuple[Failure, ...]

    def sources(self, parts: CohortSplit) -> Sources:
        """What generators may learn from, of these parts."""
        ids = {part: {*dataset.ids} for part, dataset in self.data.items()}
        labelled = self.data["labelled"].subset([case.id for case in parts.labelled if case.id in ids["labelled"]])
        unlabelled = [
            self.data[part].subset([case.id for case in parts.unlabelled if case.id in ids[part]])
            for part in ("labelled", "unlabelled")
            if part in self.data
        ]
        self._check_labels(labelled)
        others = [replace(dataset, labels=None) for dataset in unlabelled if len(dataset)]
        hashes = {case.id: dict(case.sha256) for case in self.manifest}
        used = {*labelled.ids, *(name for dataset in others for name in dataset.ids)}
        return Sources(
            labelled, join(others) if others else None, self.labels, hashes, faces=frozenset(used & self.faces)
        )

    def _check_labels(self, labelled: Dataset) -> None:
        """Refuse labels that the scans' own masks have and that are gone on the model grid.

        Raises:
            DataError: Naming the label, its largest volume in a scan, and that of a voxel.
        """
        if labelled.labels is None:
            return
        lost = [label for label in self.labels if not bool((labelled.labels == label).any())]
        if not lost:
            return
        largest, voxel = 0.0, math.prod(self.preprocess.spacing)
        for case in self.manifest.subset(labelled.ids):
            if (mask := case.read_mask()) is not None:
                largest = max(largest, float((mask.data == lost[0]).sum()) * mask.grid.voxel_volume)
        if largest:
            spacing = " x ".join(f"{step:.3g}" for step in self.preprocess.spacing)
            raise DataError(
                f"label {lost[0]} ({self.label_names[lost[0]]}): has at most {largest:.3g} mm³ in a scan, and vanishes "
                f"on the model grid of {spacing} mm, whose voxels have {voxel:.3g} mm³; expected a grid that shows it; "
                "set a finer preprocess.spacing or a larger max_side, or leave it out of the cohort's labels"
            )

    @property
    def faces(self) -> frozenset[str]:
        """Cases whose scans may show a face."""
        scans = [pair for dataset in self.data.values() for pair in zip(dataset.ids, dataset.prepared, strict=False)]
        return frozenset(name for name, prepared in scans if prepared.may_show_face)

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the labels in use, by their numbers."""
        return {label: self.manifest.labels.get(label, f"label {label}") for label in self.labels}
