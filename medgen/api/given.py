"""What a caller may hand over as a scan: a path, an image, an array with its affine, or one of these a contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medgen import io
from medgen.errors import DataError
from medgen.io.channels import stacked
from medgen.io.grids import spacing_fault
from medgen.io.nifti import check_finite, from_nibabel
from medgen.volume import Grid, Volume

EXPECTED = "a path, a nibabel image, an array with affine=..., or a dictionary of these by contrast"


def volume_of(scan: Any, affine: ArrayLike | None, contrasts: Sequence[str]) -> Volume:
    """A scan as a volume, (c, i, j, k).

    Args:
        scan: See :data:`EXPECTED`. Arrays are (i, j, k), or (c, i, j, k) where the model has several contrasts.
        affine: From voxels to RAS+ mm, (4, 4), for an array; None otherwise.
        contrasts: What the model expects, in order; empty for one.

    Raises:
        DataError: If it is none of these, an affine is missing or too much, contrasts are missing or unknown, or voxels
            have sizes that cannot be mm.
    """
    found = _volume_of(scan, affine, contrasts)
    if (fault := spacing_fault(Path(_name(scan)), found.grid)) is not None:
        raise fault
    return found


def _volume_of(scan: Any, affine: ArrayLike | None, contrasts: Sequence[str]) -> Volume:
    if not isinstance(scan, Mapping):
        found = _single(scan, affine, several=len(contrasts) > 1)
        if len(found.data) != max(len(contrasts), 1):
            named = f": {', '.join(contrasts)}; give a dictionary with an image for each" if contrasts else ""
            raise DataError(
                f"{_name(scan)}: found {len(found.data)} contrast(s), expected {max(len(contrasts), 1)}{named}"
            )
        return found
    if not scan or set(scan) != set(contrasts):
        raise DataError(
            f"scan: found contrasts {', '.join(map(str, scan)) or 'none'}, expected {', '.join(contrasts) or 'one'}; "
            "give each of them once"
        )
    parts = [(Path(str(name)), _single(scan[name], affine, several=False)) for name in contrasts]
    return stacked(parts, "scan", move=True)


def _single(scan: Any, affine: ArrayLike | None, *, several: bool) -> Volume:
    if isinstance(scan, np.ndarray):
        return _array(scan, affine)
    if affine is not None:
        raise DataError(f"{_name(scan)}: affine is for arrays only, other scans have their own; leave it out")
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, str | PathLike):
        return io.read(Path(scan), multichannel=several)
    if hasattr(scan, "dataobj") and hasattr(scan, "affine"):
        return from_nibabel(scan)
    raise DataError(f"scan: found {type(scan).__name__}, expected {EXPECTED}")


def _array(scan: NDArray[Any], affine: ArrayLike | None) -> Volume:
    if affine is None:
        raise DataError("array: found no affine, expected affine=(4, 4) from voxels to RAS+ mm; sides depend on it")
    if scan.ndim not in (3, 4):
        raise DataError(f"array: found {scan.ndim} axes, expected (i, j, k) or (c, i, j, k); give one scan")
    if np.ma.isMaskedArray(scan):
        raise DataError("array: found a masked array, expected a value for every voxel; fill it first")
    if scan.dtype.kind not in "biuf":
        raise DataError(f"array: found {scan.dtype} values, expected real numbers; convert it first")
    try:
        matrix = np.asarray(affine, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("affine: found no numbers, expected (4, 4) from voxels to RAS+ mm") from None
    data = np.asarray(scan if scan.ndim == 4 else scan[None], dtype=np.float32)
    shape = (int(data.shape[1]), int(data.shape[2]), int(data.shape[3]))
    return Volume(check_finite(Path("array"), data, allow_nan=False), Grid(shape, matrix))


def _name(scan: Any) -> str:
    return str(scan) if isinstance(scan, str | PathLike) else type(scan).__name__
