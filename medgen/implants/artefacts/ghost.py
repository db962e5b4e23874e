"""The artefact ``ghost``: fainter copies of the head, shifted along the phase-encoding axis."""

from __future__ import annotations

import numpy as np
from scipy import fft

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("ghosting")
def ghost(acquisition: Acquisition) -> Image:
    """Every second, third or fourth line of k-space is weaker or stronger than its neighbours.

    A modulation 1 + m cos(2πk/n) of the lines k adds copies that are shifted by the n-th part of the field of view:
    for n = 2 one with the share m (Nyquist ghost), else one to each side with m/2.

    Strength: s; m = 0.1 s for n = 2, and twice that for more.

    Source: Bernstein, King and Zhou, "Handbook of MRI Pulse Sequences", 2004 (Nyquist ghosts);
    Wood and Henkelman, "MR image artifacts from periodic motion", Medical Physics 1985.
    """
    every = int(acquisition.rng.integers(2, 5))
    depth = 0.1 * acquisition.strength * (1 if every == 2 else 2)
    lines = np.fft.fftfreq(acquisition.image.shape[acquisition.axis], 1 / acquisition.image.shape[acquisition.axis])
    weight = acquisition.lines(1 + depth * np.cos(2 * np.pi * lines / every))
    spectrum = fft.fft(acquisition.image, axis=acquisition.axis) * weight
    result: Image = np.abs(fft.ifft(spectrum, axis=acquisition.axis)).astype(np.float32)
    return result
