"""The kind ``uniform``: one value added."""

from __future__ import annotations

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add


@implant_kind(order=1)
def uniform(site: Site) -> Image:
    """One value, positive or negative, added in the region.

    Contrast: the added value in robust standard deviations of the foreground.

    Source: Tan et al., "Detecting Outliers with Foreign Patch Interpolation", MELBA 2022, made for the MOOD challenge
    (Zimmerer et al., IEEE TMI 2022), "uniform addition".
    """
    sign = site.rng.choice((-1.0, 1.0))
    return add(site, sign * site.contrast * site.sd * site.region.weight)
