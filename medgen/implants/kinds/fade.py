"""The kind ``fade``: contrast lost."""

from __future__ import annotations

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add


@implant_kind(order=17, validation=True)
def fade(site: Site) -> Image:
    """Contrast lost: deviations from the region's mean divided by 1 + c.

    Contrast: c.

    Source: medgen's own, for the choice of channels: no test uses it.
    """
    inside = (site.region.weight > 0) & site.foreground[site.region.box]
    here = site.image[site.region.box]
    mean = float(here[inside].mean()) if inside.any() else 0.0
    return add(site, site.region.weight * inside * (mean - here) * (1 - 1 / (1 + site.contrast)))
