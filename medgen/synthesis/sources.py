"""What generators learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset, guard_unlabelled, join

if TYPE_CHECKING:
    from medgen.segmentation.ensemble import SegmenterEnsemble


@dataclass(frozen=True, eq=False)
class Sources:
    """The scans that generators may learn from.

    Attributes:
        labelled: Training scans with labels.
        unlabelled: Training scans of other subjects, used without labels; None if there are none.
        labels: Label numbers in use, without 0, ascending.
        hashes: SHA-256 of each case's files, by case id, for the provenance record.
        consensus: Those of the unlabelled scans that could be labelled credibly from the labelled ones, with these
            labels and a confidence per voxel (:mod:`medgen.synthesis.cohort.consensus`); None if there are none.
        members: The segmenters that labelled them together, trained on these sources only; None if there are none.
        faces: Cases that may show a face, see :mod:`medgen.data.faces`.

    Raises:
        DataError: If ``labelled`` has no labels, a label occurs in no scan, ``unlabelled`` carries labels, or
            ``consensus`` lacks labels or confidence or holds a case that is not among the unlabelled ones.
        AuditError: If a subject is in both parts.
    """

    labelled: Dataset
    unlabelled: Dataset | None
    labels: tuple[int, ...]
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    consensus: Dataset | None = None
    members: SegmenterEnsemble | None = None
    faces: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.labelled.labels is None or not len(self.labelled):
            raise DataError("synthesis needs training scans with masks, found none; check the masks of the cohort")
        for label in self.labels:
            if not bool((self.labelled.labels == label).any()):
                raise DataError(
                    f"label {label} is in no mask of the {len(self.labelled)} training scans; "
                    "add subjects that have it, or leave it out of the cohort's labels"
                )
        if self.unlabelled is not None:
            guard_unlabelled(self.labelled, self.unlabelled)
        if self.consensus is not None:
            known = set() if self.unlabelled is None else set(self.unlabelled.ids)
            strangers = sorted(set(self.consensus.ids) - known)
            if strangers:
                raise DataError(f"consensus labels for {strangers[0]!r}, which is not an unlabelled training case")
            if self.consensus.labels is None or self.consensus.confidence is None:
                raise DataError("consensus scans need labels and a confidence per voxel")

    @property
    def pairs(self) -> Dataset:
        """Every scan with labels: the labelled ones (confidence 1), then those with consensus labels."""
        return self.labelled if self.consensus is None else join([self.labelled, self.consensus])

    @property
    def images(self) -> Tensor:
        """Every image that is learnt from, (n, c, i, j, k), in the order of :attr:`ids`."""
        if self.unlabelled is None:
            return self.labelled.images
        return torch.cat([self.labelled.images, self.unlabelled.images])

    @property
    def owners(self) -> tuple[str, ...]:
        """Subject of every case, in the order of :attr:`ids`."""
        return (*self.labelled.subjects, *(() if self.unlabelled is None else self.unlabelled.subjects))

    @property
    def subjects(self) -> frozenset[str]:
        """Every subject whose scans are learnt from."""
        return frozenset(self.owners)

    @property
    def ids(self) -> tuple[str, ...]:
        """Every case that is learnt from, labelled ones first."""
        return (*self.labelled.ids, *(() if self.unlabelled is None else self.unlabelled.ids))
