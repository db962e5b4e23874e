"""The artefact ``spike``: one point of k-space is far too bright, and stripes cross the image."""

from __future__ import annotations

import numpy as np

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("herringbone (a spike in k-space)")
def spike(acquisition: Acquisition) -> Image:
    """An electrical discharge during the acquisition adds a constant to one point of k-space: a complex plane wave.

    Its wavelength is drawn log-uniformly from 6 to 25 mm, but at least three voxels, and its direction at random.

    Strength: s; the wave has an amplitude of 0.07 s times the median signal of the foreground.

    Source: Graves and Mitchell, "Body MRI artifacts in clinical practice: a physicist's and radiologist's perspective",
    JMRI 2013.
    """
    image, rng = acquisition.image, acquisition.rng
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    wavelength = max(float(np.exp(rng.uniform(np.log(6), np.log(25)))), 3 * max(acquisition.spacing))
    extent = np.array(image.shape) * np.array(acquisition.spacing)
    # A point of k-space is a whole number of periods along each axis of the field of view.
    periods = np.rint(direction / wavelength * extent)
    if not periods.any():
        periods[int(np.argmax(np.abs(direction)))] = 1
    turns = sum(
        (count * np.arange(n) / n).reshape([-1 if axis == own else 1 for own in range(3)])
        for axis, (count, n) in enumerate(zip(periods, image.shape, strict=True))
    )
    wave = np.exp(2j * np.pi * (turns + rng.uniform()))
    result: Image = np.abs(image + 0.07 * acquisition.strength * acquisition.level * wave).astype(np.float32)
    return result
