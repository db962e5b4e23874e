"""The kind ``blur``: sharpness lost."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, blend


@implant_kind(order=7)
def blur(site: Site) -> Image:
    """Local loss of sharpness: a Gaussian over the foreground only (normalised convolution).

    Contrast: c; sigma of the Gaussian is c/3 radii of the region.

    Source: medgen's own; normalised convolution is Knutsson and Westin's, CVPR 1993.
    """
    sigma = site.contrast * site.region.radius_mm / 3 / np.array(site.region.spacing)
    margin = np.ceil(3 * sigma).astype(int)
    outer = tuple(
        slice(max(0, part.start - int(m)), min(n, part.stop + int(m)))
        for part, m, n in zip(site.region.box, margin, site.image.shape, strict=True)
    )
    inner = tuple(
        slice(part.start - wide.start, part.stop - wide.start)
        for part, wide in zip(site.region.box, outer, strict=True)
    )
    inside = site.foreground[outer].astype(np.float32)
    values = ndimage.gaussian_filter(inside * site.image[outer], sigma, mode="nearest", truncate=3)
    weight = ndimage.gaussian_filter(inside, sigma, mode="nearest", truncate=3)
    return blend(site, (values / np.maximum(weight, 1e-6))[inner], inside[inner])
