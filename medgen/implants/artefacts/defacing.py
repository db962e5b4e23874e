"""The artefact ``defacing``: the front of the head set to nothing by a program that removes faces."""

from __future__ import annotations

import numpy as np

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("a cut at the front (defacing)", tomogram=True)
def defacing(acquisition: Acquisition) -> Image:
    """All that lies in front of an oblique plane is zeroed; it looks forwards, and 10 to 40 degrees down.

    Strength: s; the plane cuts off 0.04 s of the foreground's voxels.

    Source: the damage described by de Sitter et al., "Facing privacy in neuroimaging: removing facial features degrades
    performance of image analysis methods", European Radiology 2020.
    """
    down, aside = np.deg2rad(acquisition.rng.uniform((10, -8), (40, 8)))
    forwards = np.array([np.sin(aside), np.cos(aside) * np.cos(down), -np.cos(aside) * np.sin(down)])
    depth = acquisition.along(forwards)
    limit = np.quantile(depth[acquisition.foreground], max(1 - 0.04 * acquisition.strength, 0.05))
    result: Image = np.where(depth <= limit, acquisition.image, np.float32(np.nan))
    return result
