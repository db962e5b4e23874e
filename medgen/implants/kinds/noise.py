"""The kind ``noise``: noise added."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add


@implant_kind(order=2)
def noise(site: Site) -> Image:
    """White Gaussian noise added in the region.

    Contrast: standard deviation of the noise in robust standard deviations of the foreground.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge
    (Zimmerer et al., IEEE TMI 2022), "noise addition".
    """
    values = site.rng.standard_normal(site.region.weight.shape).astype(np.float32)
    return add(site, site.contrast * site.sd * site.region.weight * values)
