"""A sign that a scan shows a face: a head with its skin, in air. It warns before sharing, and proves nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import DataError
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Volume

# Litres of tissue that a head with skin, skull and neck has and a brain alone has not (adult brains: 0.9 to 1.8).
_HEAD = (2.1, 9.0)
_STEP_MM = 3.0
NOTE = "may show a face: it has the size of a whole head with skin (not skull-stripped); deface it before sharing"


# Heads are narrower than this from ear to ear; and no head is cut at both of its ends, as slabs through a trunk are.
_WIDEST_MM, _CUT = 210.0, 0.5
_THICK = 1.5


def may_show_face(image: Volume) -> bool:
    """Whether the tissue of a scan, (c, i, j, k), has the size of a whole head, standing in air.

    A defaced head still counts; a crop inside the head, a slab that is cut at both ends, what is wider than a head and
    a scan without contrast do not.
    """
    stride = [max(1, round(_STEP_MM / size)) for size in image.grid.spacing]
    data = image.data[:, :: stride[0], :: stride[1], :: stride[2]]
    try:
        mask = foreground_mask(data)
    except DataError:
        return False
    # The surface lies between the outermost voxels with tissue and those inside of them: on coarse grids the former
    # alone would make a brain half as large again.
    inner = ndimage.binary_erosion(mask, border_value=1)
    step = np.array(image.grid.spacing) * stride
    litres = float(mask.sum() + inner.sum()) / 2 * image.grid.voxel_volume * float(np.prod(stride)) / 1e6
    if mask.mean() >= 0.8 or not _HEAD[0] < litres < _HEAD[1]:
        return False
    targets = [target for target, _ in image.grid.axes]
    across, upward = targets.index(0), targets.index(2)
    rows = np.flatnonzero(_areas(mask, across))
    if (rows[-1] - rows[0] + 1) * step[across] > _WIDEST_MM:
        return False
    thick = int(np.argmax(image.grid.spacing))
    stacked = {upward} | ({thick} if max(image.grid.spacing) > _THICK * min(image.grid.spacing) else set())
    return not any(_cut(_areas(mask, axis)) for axis in stacked)


def _areas(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    """Voxels of each plane across an axis."""
    return np.asarray(mask.sum(axis=tuple(other for other in range(3) if other != axis)), dtype=np.int64)


def _cut(areas: NDArray[np.int64]) -> bool:
    """Whether both ends of a stack of planes show much of what its largest shows."""
    return bool(min(areas[0], areas[-1]) > _CUT * areas.max())
