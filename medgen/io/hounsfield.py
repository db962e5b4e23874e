"""Computed tomography: values in Hounsfield units, which are absolute, and what is no measurement among them.

Outside of the circle that a scanner reconstructs, and around scans that were turned or resampled, there is padding:
-1024, -2000, -3024, whatever a program likes. Nothing is less dense than air, so all of it is set to air, and no rule
may look at the darkest value of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.volume import Volume

AIR = -1000.0
# Everything denser than lung; and what is as empty as air, below the lungs' own values.
TISSUE, EMPTY = -500.0, -950.0
# Denser than any tissue: contrast, metal.
_DENSEST = 4000.0
# Fat and lung are on no other scale: at least this share of the voxels between air and water, and of soft tissue.
_LIGHT, _SOFT = 0.005, 0.01


def is_hounsfield(channel: NDArray[Any]) -> bool:
    """Whether the values of an image, (i, j, k), are Hounsfield units of a body with air around or in it.

    Looked at are shares of voxels in fixed ranges, so padding changes nothing. MR images have no values below zero;
    those that were padded with -1024 by a resampling have none between that and zero.
    """
    values = np.asarray(channel)
    step = max(1, round((values.size / 200_000) ** (1 / 3)))
    sample = values[::step, ::step, ::step].astype(np.float32)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0 or sample.min() > EMPTY:
        return False
    light = np.mean((sample > EMPTY) & (sample < -30))
    soft = np.mean((sample > -30) & (sample < 250))
    return bool(light >= _LIGHT and soft >= _SOFT and np.percentile(sample, 99) <= _DENSEST)


def measured(volume: Volume) -> Volume:
    """The scan with what is less dense than air set to air, in channels of Hounsfield units; others as they are."""
    channels = list(volume.data)
    cut = [without_padding(channel) for channel in channels]
    if all(new is old for new, old in zip(cut, channels, strict=True)):
        return volume
    return volume.with_data(np.stack(cut))


def without_padding(channel: NDArray[Any]) -> NDArray[Any]:
    """One channel, (i, j, k), likewise; the array itself where nothing is to be changed."""
    if not is_hounsfield(channel) or np.nanmin(channel) >= AIR:
        return channel
    return np.asarray(np.maximum(channel, channel.dtype.type(AIR)))
