"""The kind ``source``: tissue pushed out."""

from __future__ import annotations

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, radial


@implant_kind(order=4)
def source(site: Site) -> Image:
    """Tissue pushed away from the centre: sampled at rho^(1+c). The surface stays.

    Contrast: c, which sets the exponent of the radial map.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge
    (Zimmerer et al., IEEE TMI 2022), "source deformation".
    """
    return radial(site, 1 + site.contrast)
