"""A sign that a scan shows a face: a head with its skin, in air. It warns before sharing, and proves nothing."""

from __future__ import annotations

from medgen.errors import DataError
from medgen.foreground import foreground_mask
from medgen.volume import Volume

# Litres of tissue that a head with skin, skull and neck has and a brain alone has not (adult brains: 0.9 to 1.8).
_HEAD = (2.1, 9.0)
_STEP_MM = 3.0
NOTE = "may show a face: it has the size of a whole head with skin (not skull-stripped); deface it before sharing"


def may_show_face(image: Volume) -> bool:
    """Whether the tissue of a scan, (c, i, j, k), has the volume of a whole head, standing in air.

    A defaced head still counts, a crop inside the head does not, and a trunk of that size counts too. A scan without
    contrast counts as harmless.
    """
    stride = [max(1, round(_STEP_MM / size)) for size in image.grid.spacing]
    data = image.data[:, :: stride[0], :: stride[1], :: stride[2]]
    try:
        mask = foreground_mask(data)
    except DataError:
        return False
    litres = float(mask.sum()) * image.grid.voxel_volume * stride[0] * stride[1] * stride[2] / 1e6
    in_air = mask.mean() < 0.8
    return in_air and _HEAD[0] < litres < _HEAD[1]
