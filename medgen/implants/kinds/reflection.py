"""The kind ``reflection``: tissue of the other side."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, blend, moved


@implant_kind(order=6)
def reflection(site: Site) -> Image:
    """The region shows the volume mirrored about the foreground's middle along a random axis.

    Of the three axes in random order the first is taken whose mirror image has tissue in most of the region.

    Contrast: mixing weight α = min(c, 1) of the mirrored image.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge
    (Zimmerer et al., IEEE TMI 2022), "reflection".
    """
    extent = ndimage.find_objects(site.foreground.astype(np.uint8))[0]
    middle = [(part.start + part.stop - 1) / 2 for part in extent]
    best: tuple[Image, Image] | None = None
    for axis in site.rng.permutation(3):
        points = site.region.voxels()
        points[axis] = 2 * middle[axis] - points[axis]
        value, known = moved(site, points)
        if best is None or (known * site.region.weight).sum() > 1.25 * (best[1] * site.region.weight).sum():
            best = value, known
    assert best is not None
    return blend(site, best[0], best[1] * np.float32(min(site.contrast, 1)))
