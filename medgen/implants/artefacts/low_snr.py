"""The artefact ``low_snr``: far more noise than in the other scans."""

from __future__ import annotations

import numpy as np

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("low signal to noise", tomogram=True)
def low_snr(acquisition: Acquisition) -> Image:
    """Independent noise in every voxel: of the magnitude of a complex signal (Rician), in a tomogram Gaussian.

    Strength: s; the noise of the real and of the imaginary part has a standard deviation of 0.06 s times the median
    signal of the foreground; in a tomogram 15 s Hounsfield units.

    Source: Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", MRM 1995, eq. 1.
    """
    image, noise = acquisition.image, acquisition.noise
    if acquisition.hounsfield:
        tomogram: Image = image + np.float32(15 * acquisition.strength) * noise.standard_normal(image.shape, np.float32)
        return np.maximum(tomogram, 0)
    sd = np.float32(0.06 * acquisition.strength * acquisition.level)
    real = image + sd * noise.standard_normal(image.shape, dtype=np.float32)
    result: Image = np.hypot(real, sd * noise.standard_normal(image.shape, dtype=np.float32))
    return result
