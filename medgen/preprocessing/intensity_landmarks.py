"""One scale for the intensities of MR scans, by the landmarks of their histograms.

Nyúl and Udupa, "On standardizing the MR image intensity scale", Magnetic Resonance in Medicine 1999; with deciles as in
Nyúl, Udupa and Zhang, IEEE TMI 2000. Percentiles of every training scan's foreground are brought to one scale and
averaged; a scan's own percentiles are then carried to these by a monotone piecewise linear map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Volume

# Percentiles that are landmarks, and where the first and the last of them lie on the scale; 0 stays 0.
PERCENTILES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
LOWEST, HIGHEST = 10.0, 100.0


def check_landmarks(landmarks: Sequence[float]) -> None:
    """Refuse what is no scale.

    Raises:
        ValueError: If there are not as many as percentiles, or they do not rise.
    """
    if len(landmarks) != len(PERCENTILES) or not all(np.diff([0.0, *landmarks]) > 0):
        raise ValueError(f"expected {len(PERCENTILES)} numbers above 0, each above the one before")


def fit_landmarks(scans: Sequence[Volume]) -> tuple[float, ...]:
    """The mean landmarks of training scans.

    Args:
        scans: (c, i, j, k) each; all channels take part alike.

    Returns:
        One number for each of :data:`PERCENTILES`, from 10 to 100.

    Raises:
        DataError: If a scan has no contrast or values below 0 in its foreground.
    """
    rows = []
    for scan in scans:
        inside = foreground_mask(scan.data)
        for channel in scan.data:
            own = _own(channel, inside)
            rows.append(LOWEST + (own - own[0]) * (HIGHEST - LOWEST) / (own[-1] - own[0]))
    return tuple(float(f"{value:.6g}") for value in np.mean(rows, axis=0))


def standardised(scan: Volume, landmarks: Sequence[float]) -> Volume:
    """A scan on the scale of the landmarks, float32; every channel by its own map.

    Below the lowest landmark the map goes to 0 for 0, so that the background stays what it is; above the highest it
    goes on as between the last two.

    Raises:
        DataError: As :func:`fit_landmarks`.
    """
    inside = foreground_mask(scan.data)
    target = np.array([0.0, *landmarks])
    channels = []
    for channel in scan.data:
        nodes = np.array([0.0, *_own(channel, inside)])
        slope = (target[-1] - target[-2]) / (nodes[-1] - nodes[-2])
        beyond = target[-1] + (channel - nodes[-1]) * slope
        channels.append(np.where(channel > nodes[-1], beyond, np.interp(channel, nodes, target)).astype(np.float32))
    return scan.with_data(np.stack(channels))


def _own(channel: NDArray[np.generic], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A channel's percentiles in the foreground, above 0 and strictly rising."""
    values = np.asarray(channel, dtype=np.float64)[inside]
    found = np.percentile(values, PERCENTILES)
    if values.min() < 0:
        raise DataError(
            f"intensity landmarks: found values down to {values.min():.3g}; expected an MR magnitude; set "
            "preprocess.intensity=percentiles"
        )
    if not found[-1] > found[0]:
        raise DataError(f"the foreground has one intensity only ({found[0]:g}); expected an image with contrast")
    # Coarse integers have equal percentiles: a ramp far below one grey level keeps the map monotone.
    ramp = (found[-1] - found[0]) * 1e-6 * np.arange(1, len(found) + 1)
    return np.asarray(np.maximum(np.maximum.accumulate(found), 0) + ramp)
