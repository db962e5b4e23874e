"""Artefacts put into whole scans: what a faulty acquisition would have made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import ConfigError, DataError
from medgen.implants.artefact import Acquisition
from medgen.implants.catalogue import artefacts, check_artefacts
from medgen.io.hounsfield import AIR, is_hounsfield
from medgen.volume import Volume


@dataclass(frozen=True, eq=False)
class Spoilt:
    """A scan with an artefact.

    Attributes:
        image: The scan as the faulty acquisition shows it, on its grid, (c, i, j, k) float32.
        foreground: (i, j, k) boolean, the part of the foreground that it still shows.
        kind: Name of the artefact.
        strength: Its strength, in the unit of the kind.
    """

    image: Volume
    foreground: NDArray[np.bool_]
    kind: str
    strength: float


def spoil(
    scan: Volume,
    foreground: NDArray[Any],
    kind: str,
    rng: np.random.Generator,
    *,
    strength: float = 2.0,
    hounsfield: bool | None = None,
) -> Spoilt:
    """Make an artefact in a scan, in all its channels alike.

    Where everything outside of the foreground has one value the scan was stripped or masked: the artefact then shows
    inside only, and the outside stays as it is, as if the mask had been made of the faulty scan.

    Args:
        scan: (c, i, j, k) in native or model units, finite.
        foreground: (i, j, k) boolean, where the patient is.
        kind: Name in :func:`medgen.implants.catalogue.artefacts`.
        rng: Source of randomness.
        strength: At least 0, which gives the untouched scan; :data:`medgen.implants.artefact.STRENGTHS` names some.
        hounsfield: Whether the scan is in Hounsfield units; None looks at the values of each channel.

    Raises:
        ConfigError: If the kind is unknown, the strength below 0, or the scan in Hounsfield units while no tomogram has
            such an artefact.
        DataError: If the foreground is empty or of another shape, or a value of the scan is not finite.
    """
    check_artefacts([kind])
    about, inside = artefacts()[kind], np.asarray(foreground, dtype=bool)
    original = np.asarray(scan.data, dtype=np.float32)
    if not strength >= 0:
        raise ConfigError(f"expected a strength of at least 0, found {strength:g}")
    if inside.shape != original.shape[1:] or not inside.any():
        raise DataError(
            f"expected a foreground of the scan's shape {original.shape[1:]} with voxels in it, found {inside.shape} "
            f"with {int(inside.sum())}"
        )
    if not np.isfinite(original).all():
        raise DataError("expected a scan with finite voxels only; fill what is missing first")
    if strength == 0:
        return Spoilt(scan.with_data(original.copy()), inside, kind, strength)
    axis, seed = int(rng.integers(3)), int(rng.integers(2**63))
    state = rng.bit_generator.state
    changed, shown = [], inside.copy()
    for number, channel in enumerate(original):
        rng.bit_generator.state = state
        tomogram = is_hounsfield(channel) if hounsfield is None else hounsfield
        if tomogram and not about.tomogram:
            able = ", ".join(own.name for own in artefacts().values() if own.tomogram)
            raise ConfigError(f"artefact {kind!r} is none of computed tomography; choose one of {able}")
        empty = np.float32(channel.min())
        nothing = np.float32(min(AIR, float(empty))) if tomogram else empty
        noise = np.random.default_rng([seed, number])
        grid = scan.grid
        signal = channel - nothing
        faulty = about(Acquisition(signal, inside, axis, strength, rng, noise, grid.spacing, grid.directions, tomogram))
        lost = np.isnan(faulty)
        shown &= ~lost
        faulty = np.where(lost, empty, faulty + nothing).astype(np.float32)
        outside = channel[~inside]
        masked = outside.size > 0 and bool((outside == outside[0]).all())
        changed.append(np.where(inside, faulty, channel) if masked else faulty)
    return Spoilt(scan.with_data(np.stack(changed)), shown, kind, strength)
