"""The artefact ``motion``: parts of k-space that saw the head in other poses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from medgen.implants.artefact import Acquisition, artefact_kind
from medgen.implants.site import Image


@artefact_kind("motion")
def motion(acquisition: Acquisition) -> Image:
    """K-space is put together from differently posed copies of the head, line by line along the phase-encoding axis.

    The head moves three to six times, more often near the middle of the acquisition. The lines of k-space between two
    movements come from the head in its pose of that time; the centre of k-space, which decides what is seen where, is
    acquired in the original pose. Edges get ripples along the phase-encoding axis.

    Strength: s; every rotation is drawn from ±2.5 s degrees about each axis, every shift from ±2.5 s mm along it.

    Source: Shaw et al., "MRI k-space motion artefact augmentation: model robustness and task-specific
    uncertainty", MIDL 2019.
    """
    image, axis, rng = acquisition.image, acquisition.axis, acquisition.rng
    lines = image.shape[axis]
    # Lines in the order of their acquisition, from one end of k-space to the other.
    order = np.fft.fftshift(np.arange(lines))
    # Movements far from the centre of k-space, where there is hardly any signal, nobody sees.
    away = rng.uniform(0.15, 0.95, int(rng.integers(3, 7))) ** 2 / 2
    pieces = np.sort(0.5 + away * rng.choice((-1, 1), away.size))
    piece = np.searchsorted(pieces, (np.arange(lines) + 0.5) / lines)
    centre = int(piece[lines // 2])
    spectrum = fft.fft(image, axis=axis)
    for number in range(len(pieces) + 1):
        turn, shift = (2.5 * acquisition.strength * rng.uniform(-1, 1, 3) for _ in range(2))
        own = order[piece == number]
        if number == centre or not own.size:
            continue
        moved = fft.fft(_posed(acquisition, np.deg2rad(turn), shift), axis=axis)
        lines_of: list[Any] = [slice(None)] * 3
        lines_of[axis] = own
        spectrum[tuple(lines_of)] = moved[tuple(lines_of)]
    result: Image = np.abs(fft.ifft(spectrum, axis=axis)).astype(np.float32)
    return result


def _posed(acquisition: Acquisition, turn: NDArray[np.float64], shift: NDArray[np.float64]) -> Image:
    """The head turned about the centre of its foreground by angles about i, j, k, and shifted in mm."""
    x, y, z = turn
    rotation = (
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        @ np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        @ np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    )
    step = np.array(acquisition.spacing)
    matrix = np.diag(1 / step) @ rotation @ np.diag(step)
    centre = np.array(ndimage.center_of_mass(acquisition.foreground))
    offset = centre - matrix @ centre + shift / step
    result: Image = ndimage.affine_transform(acquisition.image, matrix, offset, order=1, mode="nearest")
    return result
