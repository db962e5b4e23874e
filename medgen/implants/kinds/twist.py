"""The kind ``twist``: tissue turned."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add, moved


@implant_kind(order=15, validation=True)
def twist(site: Site) -> Image:
    """Tissue turned about a random axis, most at the centre; the surface stays.

    Contrast: the turn at the centre in radians.

    Source: medgen's own, for the choice of channels: no test uses it.
    """
    region = site.region
    axis = site.rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    step = np.array(region.spacing)[:, None, None, None]
    arm = (region.voxels() - region.centre[:, None, None, None]) * step
    angle = site.contrast * np.clip(1 - region.rho, 0, 1)
    along = np.tensordot(axis, arm, axes=1) * axis[:, None, None, None]
    across = np.cross(axis, arm, axisb=0, axisc=0)
    turned = along + (arm - along) * np.cos(angle) + across * np.sin(angle)
    value, known = moved(site, region.centre[:, None, None, None] + turned / step)
    return add(site, np.where((known > 0) & (region.weight > 0), value - site.image[region.box], 0))
