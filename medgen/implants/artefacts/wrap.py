"""The artefact ``wrap``: a field of view smaller than the head, which folds over at its far side."""

from __future__ import annotations

import numpy as np

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("wrap-around")
def wrap(acquisition: Acquisition) -> Image:
    """Too few lines of k-space along one axis: what lies outside of the field of view comes in at its other side.

    Inside the smaller field of view of L voxels the image is the sum of all its copies that are shifted by multiples of
    L; outside there is nothing. The field of view is about the middle of the foreground, within 2 % of its extent.

    Strength: s; the field of view is shorter than the foreground by 0.1 s of its extent.

    Source: Bernstein, King and Zhou, "Handbook of MRI Pulse Sequences", 2004 (aliasing).
    """
    image, axis = acquisition.image, acquisition.axis
    rows = np.flatnonzero(acquisition.foreground.any(axis=tuple(own for own in range(3) if own != axis)))
    first, extent = int(rows[0]), int(rows[-1] - rows[0] + 1)
    length = max(1, round(extent * max(1 - 0.1 * acquisition.strength, 0.1)))
    middle = first + extent / 2 + 0.02 * extent * acquisition.rng.uniform(-1, 1)
    start = int(np.clip(round(middle - length / 2), 0, image.shape[axis] - length))
    lines = np.moveaxis(image, axis, 0)
    folded = np.zeros((length, *lines.shape[1:]), dtype=np.float32)
    np.add.at(folded, (np.arange(len(lines)) - start) % length, lines)
    result = np.full_like(lines, np.nan)
    result[start : start + length] = folded
    return np.moveaxis(result, 0, axis)
