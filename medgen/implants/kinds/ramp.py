"""The kind ``ramp``: a slope of intensity."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add


@implant_kind(order=18, validation=True)
def ramp(site: Site) -> Image:
    """A linear change across the region in a random direction.

    Contrast: c; the change goes from −c to c robust standard deviations of the foreground.

    Source: medgen's own, for the choice of channels: no test uses it.
    """
    direction = site.rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    arm = (site.region.voxels() - site.region.centre[:, None, None, None]) * np.array(site.region.spacing)[
        :, None, None, None
    ]
    slope = np.clip(np.tensordot(direction, arm, axes=1) / site.region.radius_mm, -1, 1)
    return add(site, site.contrast * site.sd * site.region.weight * slope)
