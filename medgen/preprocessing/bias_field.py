"""The smooth shading of MR scans by their coils, divided out by N4 (Tustison et al., IEEE TMI 2010)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Volume

# The field is smooth: it is fitted on voxels of about this size (mm).
_STEP_MM = 4.0
_ITERATIONS = (50, 50, 30)
# Fewest voxels of the shrunk scan's shortest side that a cubic B-spline can be fitted on.
_THINNEST = 4


def n4(scan: Volume) -> tuple[Volume, float, float]:
    """Divide the bias field of every channel out, fitted inside the foreground on voxels of 4 mm.

    Args:
        scan: (c, i, j, k), an MR magnitude: no values below 0.

    Returns:
        The scan, float32, on its grid; and the 1st and 99th percentile of the first channel's field in the foreground,
        in units of its geometric mean there.

    Raises:
        DataError: If a channel has negative values, or the scan is too thin.
    """
    mask = foreground_mask(scan.data)
    channels, spans = zip(*(_corrected(channel, mask, scan.grid.spacing) for channel in scan.data), strict=True)
    return scan.with_data(np.stack(channels)), *spans[0]


def _corrected(
    channel: NDArray[np.generic], mask: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    # A quarter of a second to import, which a run without N4 need not wait for.
    import SimpleITK as sitk

    values = np.asarray(channel, dtype=np.float32)
    if values.min() < 0:
        raise DataError(f"N4: found values down to {values.min():.3g}; expected an MR magnitude; set bias_field=none")
    factors = [max(1, round(_STEP_MM / step)) for step in spacing]
    if min(n // factor for n, factor in zip(values.shape, factors, strict=True)) < _THINNEST:
        factors = [min(factor, max(1, n // _THINNEST)) for n, factor in zip(values.shape, factors, strict=True)]
    if min(values.shape) < _THINNEST:
        raise DataError(
            f"N4: a scan of {values.shape} voxels is too thin; expected at least {_THINNEST} along each axis"
        )
    image, inside = (_image(sitk, array, spacing) for array in (values, mask.astype(np.uint8)))
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetMaximumNumberOfIterations(list(_ITERATIONS))
    filter_.SetNumberOfThreads(1)
    filter_.Execute(sitk.Shrink(image, factors), sitk.Shrink(inside, factors))
    log_field = sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(image)).transpose(2, 1, 0)
    log_field = log_field - log_field[mask].mean()
    low, high = np.exp(np.percentile(log_field[mask], (1, 99))).tolist()
    # Far outside the mask the spline is not held by anything.
    field = np.exp(np.clip(log_field, log_field[mask].min(), log_field[mask].max()))
    return (values / field).astype(np.float32), (float(low), float(high))


def _image(sitk: object, array: NDArray[np.generic], spacing: tuple[float, float, float]) -> object:
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))  # type: ignore[attr-defined]
    image.SetSpacing(spacing)
    return image
