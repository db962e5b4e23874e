"""The artefact ``metal``: a void with a bright rim in MR, streaks in computed tomography."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image

# Attenuation of water (per mm, 70 keV), and of metal in Hounsfield units above air.
_WATER, _METAL = 0.019, 20_000
# Photons of a ray through air, and what each squared line integral loses to the hardening of the beam.
_PHOTONS, _HARDENING = 1e5, 0.03


@artefact_kind("metal", tomogram=True)
def metal(acquisition: Acquisition) -> Image:
    """A metal ball near the surface of the foreground.

    In MR it has the field of a dipole outside of it, ΔB ∝ (a/r)³ (3 cos²θ − 1). The signal is displaced along the
    readout axis in proportion (and piles up where displacements converge), and vanishes where the field is so steep
    that spins within a voxel dephase. In a tomogram the ball hardens the beam, in proportion to the square of the line
    integral, and few photons are left to count behind it: the error of each axial slice's sinogram is back-projected
    into dark bands and streaks.

    Strength: s; the ball has a radius of 1.5 + 1.5 s mm; its field displaces by 20 mm at its poles.

    Source: Schenck, "The role of magnetic susceptibility in magnetic resonance imaging", Medical Physics 1996;
    Brooks and Di Chiro, "Beam hardening in X-ray reconstructive tomography", Physics in Medicine and Biology 1976;
    De Man et al., "Metal streak artifacts in X-ray computed tomography: a simulation study", IEEE TNS 1999.
    """
    centre = _place(acquisition)
    radius = 1.5 + 1.5 * acquisition.strength
    return _streaks(acquisition, centre, radius) if acquisition.hounsfield else _void(acquisition, centre, radius)


def _place(acquisition: Acquisition) -> NDArray[np.float64]:
    """A voxel of the foreground three to eight tenths of the way from its middle to its surface, towards anywhere."""
    voxels = np.argwhere(acquisition.foreground)
    if not len(voxels):
        raise DataError("the foreground is empty; there is no place for metal")
    middle, step = voxels.mean(axis=0), np.array(acquisition.spacing)
    direction = acquisition.rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    away = (voxels - middle) * step
    along = away @ direction
    across = np.linalg.norm(away - along[:, None] * direction, axis=1)
    near = across <= 1.5 * step.max()
    reach = along[near].max(initial=0.0) * acquisition.rng.uniform(0.5, 0.8)
    return np.asarray(np.rint(middle + reach * direction / step))


def _void(acquisition: Acquisition, centre: NDArray[np.float64], radius: float) -> Image:
    image, axis, step = acquisition.image, acquisition.axis, np.array(acquisition.spacing)
    arm = [
        (np.arange(n) - c).reshape([-1 if own == place else 1 for own in range(3)]) * size
        for place, (n, c, size) in enumerate(zip(image.shape, centre, step, strict=True))
    ]
    # The main field of a scanner runs from the feet to the head.
    field_axis = int(np.argmax(np.abs(acquisition.directions[2])))
    distance = np.maximum(np.sqrt(sum(own**2 for own in arm)), radius)
    field = (radius / distance) ** 3 * (3 * (arm[field_axis] / distance) ** 2 - 1)
    shift = 10 * field / step[axis]
    # Fewer spins are in phase the more the field changes across a voxel of the scan.
    steep = np.sqrt(sum(own**2 for own in np.gradient(field, *step)))
    signal = image * np.exp(-((steep / 0.2) ** 2)) * (distance > radius)
    return pushed(signal.astype(np.float32), shift.astype(np.float32), axis)


def pushed(signal: Image, shift: NDArray[np.float32], axis: int) -> Image:
    """The signal of each voxel moved by ``shift`` voxels along an axis, shared between the two voxels it lands among.

    None is lost but beyond the ends: where much lands on one voxel, it is bright.
    """
    lines = np.moveaxis(signal, axis, -1)
    n = lines.shape[-1]
    target = np.arange(n) + np.moveaxis(shift, axis, -1)
    low = np.floor(target).astype(np.int64)
    share = (target - low).astype(np.float32)
    row = np.arange(lines.size // n).reshape(*lines.shape[:-1], 1) * n
    result = np.zeros(lines.size, dtype=np.float64)
    for place, weight in ((low, 1 - share), (low + 1, share)):
        inside = (place >= 0) & (place < n)
        result += np.bincount((row + place)[inside], weights=(lines * weight)[inside], minlength=lines.size)
    return np.ascontiguousarray(np.moveaxis(result.reshape(lines.shape).astype(np.float32), -1, axis))


def _streaks(acquisition: Acquisition, centre: NDArray[np.float64], radius: float) -> Image:
    # A second to import, which only tomograms need.
    from skimage.transform import iradon, radon

    upward = int(np.argmax(np.abs(acquisition.directions[2])))
    step = np.array(acquisition.spacing)
    slices = np.moveaxis(acquisition.image.copy(), upward, 0)
    height, c = step[upward], np.delete(centre, upward)
    (rows, columns), size = slices.shape[1:], np.delete(step, upward)
    away = np.hypot(
        (np.arange(rows)[:, None] - c[0]) * size[0], (np.arange(columns)[None, :] - c[1]) * size[1]
    )  # fmt: skip
    side = int(np.ceil(np.hypot(rows, columns)))
    pad = [
        ((side - rows) // 2, side - rows - (side - rows) // 2),
        ((side - columns) // 2, side - columns - (side - columns) // 2),
    ]
    angles = np.linspace(0, 180, max(int(np.pi / 2 * side), 18), endpoint=False)
    # Attenuation in units of a voxel's width; Hounsfield units count from air here, and water is 1000.
    per_unit = _WATER * float(size.mean()) / 1000
    rows_of, columns_of = slice(pad[0][0], pad[0][0] + rows), slice(pad[1][0], pad[1][0] + columns)
    for number in range(len(slices)):
        above = (number - centre[upward]) * height
        if abs(above) >= radius:
            continue
        inside = away <= np.sqrt(radius**2 - above**2)
        without = radon(np.pad(slices[number].astype(np.float64) * per_unit, pad), angles, circle=False)
        slices[number][inside] = _METAL
        rays = radon(np.pad(slices[number].astype(np.float64) * per_unit, pad), angles, circle=False)
        behind = rays > without + 1e-3
        counts = np.maximum(acquisition.noise.poisson(_PHOTONS * np.exp(-rays)), 1)
        wrong = np.where(behind, -np.log(counts / _PHOTONS) - rays, 0) - _HARDENING * (rays**2 - without**2)
        error = iradon(wrong, angles, circle=False, output_size=side)
        slices[number] += (error[rows_of, columns_of] / per_unit).astype(np.float32)
    return np.maximum(np.moveaxis(slices, 0, upward), 0)
