"""The kind ``foreign``: tissue of another scan, mixed in."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, blend, matched


@implant_kind(order=9, foreign=True)
def foreign(site: Site) -> Image:
    """Linear interpolation with the same place of another scan, (1 − α) x + α y.

    Contrast: mixing weight α = min(c, 1) of the other scan.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, eq. 1.
    """
    value, known = matched(site)
    return blend(site, value, known * np.float32(min(site.contrast, 1)))
