"""The kind ``shift``: tissue from elsewhere in the scan."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, blend, moved


@implant_kind(order=5)
def shift(site: Site) -> Image:
    """The region shows the tissue c radii away in a random direction.

    Contrast: c, the length of the shift in radii of the region.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge
    (Zimmerer et al., IEEE TMI 2022), "uniform shift".
    """
    direction = site.rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    offset = site.contrast * site.region.radius_mm * direction / np.array(site.region.spacing)
    there = [moved(site, site.region.voxels() + sign * offset[:, None, None, None]) for sign in (1, -1)]
    # Of the two opposite directions, the one with more tissue in it.
    value, known = max(there, key=lambda pair: float((pair[1] * site.region.weight).sum()))
    return blend(site, value, known)
