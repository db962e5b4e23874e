"""The kind ``sink``: tissue pulled in."""

from __future__ import annotations

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, radial


@implant_kind(order=3)
def sink(site: Site) -> Image:
    """Tissue pulled towards the centre: sampled at rho^(1/(1+c)). The surface stays.

    Contrast: c, which sets the exponent of the radial map.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge
    (Zimmerer et al., IEEE TMI 2022), "sink deformation".
    """
    return radial(site, 1 / (1 + site.contrast))
