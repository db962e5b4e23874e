"""Which lesions there are to learn from: settings that a label source and a painter of lesions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from medgen.config import Config
from medgen.errors import DataError
from medgen.synthesis.cohort.label_facts import LabelFacts, label_facts
from medgen.synthesis.estimates import Outline
from medgen.synthesis.lesions.forms import Labels, Lesion, Shape, centred, crop_for, crop_shape, find_lesions
from medgen.synthesis.sources import Sources


class FocalConfig(Config):
    """Settings of everything that deals with focal lesions.

    Attributes:
        lesion_labels: Labels that are focal disease; null finds them (:mod:`medgen.synthesis.cohort.label_facts`), and
            refuses where none looks focal.
        smallest: Voxels below which a connected component is no lesion.
        context: Voxels around a lesion that its crop shows.
        largest_crop: Longest side of the crop in voxels; larger lesions are not learnt from.
        margin: Voxels around a lesion in which drawn intensities pass into those of the scan.
    """

    lesion_labels: tuple[Annotated[int, Field(ge=1, le=255)], ...] | None = None
    smallest: int = Field(default=4, ge=1)
    context: int = Field(default=6, ge=2)
    largest_crop: int = Field(default=64, ge=16)
    margin: int = Field(default=2, ge=0, le=8)

    @field_validator("lesion_labels")
    @classmethod
    def _some(cls, labels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if labels is not None and (not labels or len(set(labels)) != len(labels)):
            raise ValueError("expected different label numbers, or null to guess")
        return labels


@dataclass(frozen=True, eq=False)
class Focal:
    """The lesions of a cohort.

    Attributes:
        labels: Lesion label numbers; the n-th has index n + 1.
        crop: Shape of the networks' crops.
        found: All lesions of the labelled scans.
        kept: Those that fit into a crop.
        forms: These in the middle of a crop, (m, *crop) indices.
    """

    labels: tuple[int, ...]
    crop: Shape
    found: tuple[Lesion, ...]
    kept: tuple[Lesion, ...]
    forms: Labels


def focal_lesions(sources: Sources, config: FocalConfig) -> Focal:
    """Find the lesions of the labelled scans.

    Raises:
        DataError: If a label is not in use, none looks like a lesion, there is no lesion, or none fits a crop.
    """
    data = sources.labelled
    labels = config.lesion_labels or _focal(label_facts(data, sources.labels))
    strange = sorted(set(labels) - set(sources.labels))
    if strange:
        raise DataError(
            f"lesion.lesion_labels: label {strange[0]} is not in use; expected some of "
            f"{', '.join(map(str, sources.labels))}"
        )
    found = find_lesions(data, labels, config.smallest)
    if not found:
        raise DataError(
            f"no lesion of at least {config.smallest} voxels is in the {len(data)} labelled training scans; "
            "lower lesion.smallest, or use a finer preprocess.spacing"
        )
    crop = crop_shape(found, config.context, data.shape, config.largest_crop)
    cut = [(lesion, centred(lesion.labels, crop)) for lesion in found]
    kept = [(lesion, form) for lesion, form in cut if form is not None]
    if not kept:
        raise DataError(
            f"every lesion is larger than a crop of {' x '.join(map(str, crop))} voxels; raise lesion.largest_crop, "
            "or use the backend deform for labels of this size"
        )
    return Focal(
        labels=tuple(int(label) for label in labels),
        crop=crop,
        found=tuple(found),
        kept=tuple(lesion for lesion, _ in kept),
        forms=np.stack([form for _, form in kept]),
    )


def expected_lesions(config: FocalConfig, outline: Outline) -> tuple[Shape, int, list[LabelFacts]]:
    """Crop, number of lesion labels, and the facts of these, before any training.

    The crop is as large as the label statistics say, the largest one without them.

    Raises:
        DataError: If no label is named and there are statistics, by which none looks like a lesion.
    """
    wanted = config.lesion_labels or (_focal(outline.facts) if outline.facts else outline.labels)
    facts = [item for item in outline.facts if item.label in wanted]
    largest = (config.largest_crop,) * 3
    extent = tuple(max(item.extent[axis] for item in facts) for axis in range(3)) if facts else largest
    crop = crop_for(extent, config.context, outline.shape, config.largest_crop)
    return crop, len(wanted), facts


def _focal(facts: Sequence[LabelFacts]) -> tuple[int, ...]:
    """Labels that look like focal disease."""
    found = tuple(item.label for item in facts if item.focal)
    if not found:
        numbers = [str(item.label) for item in facts]
        shown = ", ".join(numbers[:4]) + (" and more" if len(numbers) > 4 else "")
        raise DataError(
            f"lesion.lesion_labels: expected a label that looks like focal disease, found organs only (labels "
            f"{shown}); name the lesions, such as lesion_labels: [1], or use deform or a pair with shape for organs"
        )
    return found
