"""A synthetic scan as a DICOM series of its own, with a segmentation of its labels: there is no patient and no study.

A synthetic scan lies on the grid of its generator, not where any parent's scanner put him, so it has a frame of
reference of its own, and no identifier of a real series is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medgen.errors import GeometryError
from medgen.volume import Volume

# How much two axes of a grid may lean to each other (cosine): a series has right angles only.
_LEAN = 1e-4


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A synthetic scan with its labels, and what DICOM objects say of it.

    Attributes:
        name: Such as ``"syn-0001"``; part of the patient's name and number, which both say SYNTHETIC.
        images: The scan, (1, i, j, k), a volume for each channel.
        channels: What the channels are called; "" for one that has no name.
        labels: Labels, (1, i, j, k), integers; 0 is background.
        label_names: Label → name, for each that gets a segment.
        modality: ``"MR"``, ``"CT"`` or ``"OT"``, which is for all else.
        backend: What made it.
        generator: SHA-256 of that.
        stamp: ``share`` or ``internal use only``.
        version: Of medgen.

    Raises:
        GeometryError: If the labels are on another grid than the images, or axes of the grid are at no right angles.
    """

    name: str
    images: Sequence[Volume]
    channels: Sequence[str]
    labels: Volume
    label_names: Mapping[int, str]
    modality: str
    backend: str
    generator: str
    stamp: str
    version: str

    def __post_init__(self) -> None:
        for image in self.images:
            if not image.grid.same_as(self.labels.grid):
                raise GeometryError(f"{self.name}: expected images on the grid of the labels, found another")
        axes = self.labels.grid.affine[:3, :3] / np.linalg.norm(self.labels.grid.affine[:3, :3], axis=0)
        if np.abs(axes.T @ axes - np.eye(3)).max() > _LEAN:
            raise GeometryError(f"{self.name}: expected axes at right angles, found a sheared grid; resample the scan")


def modality_of(text: str) -> str:
    """The DICOM modality of a free-text modality; ``OT`` (other) where it names neither MR nor CT.

    >>> modality_of("MR T1-weighted (simulated)"), modality_of("CT"), modality_of("unknown")
    ('MR', 'CT', 'OT')
    """
    words = text.lower().replace("-", " ").replace("(", " ").replace(")", " ").replace(",", " ").split()
    if any(word in ("mr", "mri", "flair", "swi", "dwi") or word[:2] in ("t1", "t2", "pd") for word in words):
        return "MR"
    return "CT" if "ct" in words else "OT"
