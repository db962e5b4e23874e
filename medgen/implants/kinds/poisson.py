"""The kind ``poisson``: tissue of another scan without an edge."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from medgen.implants.kind import implant_kind
from medgen.implants.site import Image, Site, add, matched


@implant_kind(order=10, foreign=True)
def poisson(site: Site) -> Image:
    """Seamless patch: gradients mixed with another scan's, the image as boundary.

    Solves the discrete Poisson equation Δf = div((1 − α)∇x + α∇y) in the region with f = x around it, for the
    difference f − x, so that α = 0 is exact.

    Contrast: mixing weight α = min(c, 1) of the other scan's gradients.

    Source: Tan et al., "Detecting Outliers with Poisson Image Interpolation" (PII), MICCAI 2021.
    """
    value, known = matched(site)
    here = site.image[site.region.box]
    difference = np.where(known > 0, value - here, 0) * min(site.contrast, 1)
    # A free layer around: the box may end at the region's surface.
    inside = np.pad((site.region.weight > 0) & (known > 0), 1)
    wanted = np.pad(difference, 1, mode="edge").astype(np.float64)
    usable = np.pad(known > 0, 1, mode="edge")
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    rows, columns, entries = [], [], []
    right = np.zeros(int(inside.sum()))
    for axis in range(3):
        for direction in (-1, 1):
            neighbour = np.roll(number, -direction, axis)[inside]
            both = usable & np.roll(usable, -direction, axis)
            right += np.where(both, wanted - np.roll(wanted, -direction, axis), 0)[inside]
            linked = neighbour >= 0
            rows.append(number[inside][linked])
            columns.append(neighbour[linked])
            entries.append(np.full(int(linked.sum()), -1.0))
    system = sparse.csr_matrix(
        (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=(right.size, right.size)
    ) + 6 * sparse.eye(right.size, format="csr")
    solution, _ = linalg.cg(system, right, rtol=1e-5, maxiter=2000)
    change = np.zeros(inside.shape, dtype=np.float32)
    change[inside] = solution
    return add(site, change[1:-1, 1:-1, 1:-1])
