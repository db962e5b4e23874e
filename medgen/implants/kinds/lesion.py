"""The kind ``lesion``: a lesion of real form."""

from __future__ import annotations

from medgen.implants.kind import implant_kind
from medgen.implants.kinds.hyperintense import hyperintense
from medgen.implants.kinds.hypointense import hypointense
from medgen.implants.site import Image, Site


@implant_kind(order=14, shape=True)
def lesion(site: Site) -> Image:
    """A dark or bright lesion, at random, in the form of a real lesion mask.

    Contrast: as that of ``hypointense`` or ``hyperintense``.

    Source: medgen's own; the forms are those of the masks that are given.
    """
    return (hypointense if site.rng.random() < 0.5 else hyperintense)(site)
