"""The kind ``multifocal``: several small lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.implants.kind import implant_kind
from medgen.implants.kinds.lesion import lesion
from medgen.implants.regions import Region, merge, place, random_blob
from medgen.implants.site import Image, Site


def several_regions(
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    radius_mm: float,
    spacing: tuple[float, float, float],
    shape: NDArray[Any] | None,
    where: NDArray[np.bool_] | None,
) -> Region:
    """Three to six blobs, each at a random place and 0.35 to 0.6 times as large; for the rest see ``one_region``."""
    del shape
    radii = radius_mm * rng.uniform(0.35, 0.6, size=rng.integers(3, 7))
    return merge([place(random_blob(rng, r, spacing), foreground, rng, radius_mm, spacing, where) for r in radii])


@implant_kind(order=13, region=several_regions)
def multifocal(site: Site) -> Image:
    """Three to six small blobs at random places, all dark or all bright.

    Contrast: as that of ``hypointense`` or ``hyperintense``.

    Source: medgen's own, after diseases with many small lesions.
    """
    return lesion(site)
