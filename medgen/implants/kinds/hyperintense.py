"""The kind ``hyperintense``: a bright lesion."""

from __future__ import annotations

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add, texture


@implant_kind(order=12)
def hyperintense(site: Site) -> Image:
    """A bright, slightly uneven lesion.

    Contrast: mean brightening in robust standard deviations of the foreground.

    Source: Meissen et al., MIDL 2022, for FLAIR.
    """
    return add(site, site.contrast * site.sd * site.region.weight * texture(site))
