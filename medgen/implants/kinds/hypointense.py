"""The kind ``hypointense``: a dark lesion."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add, texture


@implant_kind(order=11)
def hypointense(site: Site) -> Image:
    """A dark, slightly uneven lesion as old infarcts on T1, not below the foreground's 1st percentile.

    Contrast: mean darkening in robust standard deviations of the foreground.

    Source: medgen's own; the dark counterpart of ``hyperintense``.
    """
    darkest = np.float32(np.percentile(site.image[site.foreground], 1))
    here = site.image[site.region.box]
    change = site.contrast * site.sd * site.region.weight * texture(site)
    return add(site, np.maximum(here - change, np.minimum(here, darkest)) - here)
