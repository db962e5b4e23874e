"""The kind ``shuffle``: texture lost."""

from __future__ import annotations

import numpy as np

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, blend


@implant_kind(order=8)
def shuffle(site: Site) -> Image:
    """Voxels trade places inside blocks of 3 × 3 × 3.

    Contrast: mixing weight α = min(c, 1) of the shuffled voxels.

    Source: Zhou et al., "Models Genesis", MICCAI 2019 (local shuffling).
    """
    voxels = site.region.voxels().astype(int)
    inside = ((site.region.weight > 0) & site.foreground[site.region.box]).ravel()
    grid = tuple(n // 3 + 1 for n in site.image.shape)
    blocks = np.ravel_multi_index(tuple(voxels.reshape(3, -1)[:, inside] // 3), grid)
    values = site.image[site.region.box].ravel().copy()
    old = values[inside]
    # Sorting by (block, random) against (block, position) permutes within each block and keeps its set of values.
    mixed = np.empty_like(old)
    mixed[np.argsort(blocks, kind="stable")] = old[np.lexsort((site.rng.random(old.size), blocks))]
    values[inside] = mixed
    full = np.full(site.region.weight.shape, min(site.contrast, 1), dtype=np.float32)
    return blend(site, values.reshape(site.region.weight.shape), full)
