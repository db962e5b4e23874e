"""The artefact ``bias``: brightness that changes slowly across the scan."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("a bias field")
def bias(acquisition: Acquisition) -> Image:
    """The signal times the exponential of a random smooth polynomial: the sensitivity of a coil.

    The polynomial has Legendre terms up to the third order over the foreground's box, the steeper the smaller.

    Strength: s; the field's logarithm has a standard deviation of 0.13 s over the foreground, about a factor of
    exp(0.5 s) between its bright and its dark end.

    Source: Van Leemput et al., "Automated model-based bias field correction of MR images of the brain", IEEE TMI 1999;
    as an augmentation in Sudre et al., "Longitudinal segmentation of age-related white matter hyperintensities", 2017.
    """
    box = [np.flatnonzero(acquisition.foreground.any(axis=tuple({0, 1, 2} - {own}))) for own in range(3)]
    axes = [
        2 * (np.arange(n) - (own[0] + own[-1]) / 2) / max(own[-1] - own[0], 1)
        for own, n in zip(box, acquisition.image.shape, strict=True)
    ]
    # The same polynomial goes on outside of the box, where it must not explode.
    axes = [np.clip(own, -1.2, 1.2) for own in axes]
    orders = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4))
    weights = acquisition.rng.standard_normal((4, 4, 4)) * ((orders > 0) & (orders <= 3)) / np.maximum(orders, 1)
    field: NDArray[np.float64] = legendre.leggrid3d(axes[0], axes[1], axes[2], weights)
    inside = field[acquisition.foreground]
    field = (field - inside.mean()) / max(float(inside.std()), 1e-6)
    result: Image = (acquisition.image * np.exp(0.13 * acquisition.strength * field)).astype(np.float32)
    return result
