"""Which array axis runs along which axis of another frame: one assignment of all three, never axis by axis.

An axis at 45 degrees is as near to one direction as to another. Chosen one by one, two axes of such a scan can be
given the same direction, and a direction is left without an axis; a reflection can come out of it, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

# How much a thick axis draws towards a thick one, against cosines in [0, 1]: enough to decide between directions that
# are about as near, too little to turn a scan to an axis that it is plainly not along.
_THICK_DRAW = 0.25
_THICKEST = 8.0


def assigned(
    directions: ArrayLike,
    frame: ArrayLike | None = None,
    *,
    spacing: Sequence[float] | None = None,
    wanted: Sequence[float] | None = None,
) -> tuple[tuple[int, int], ...]:
    """The permutation and flips that bring three directions nearest to those of a frame, without reflection.

    The largest sum of cosines wins. Where both spacings are given, and both are uneven, directions that are about as
    near are told apart by them: thick slices are kept along the thick axis of the frame.

    Args:
        directions: (3, 3), a unit vector per column.
        frame: (3, 3), likewise; default R, A, S.
        spacing: Distance of voxels along the directions in mm.
        wanted: The same along the axes of the frame.

    Returns:
        For each direction the axis of the frame that it is assigned to, each one once, and 1 or -1: whether it runs
        along it or against it.

    >>> assigned([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    ((1, 1), (0, -1), (2, 1))
    """
    vectors = np.asarray(directions, dtype=np.float64)
    other = np.eye(3) if frame is None else np.asarray(frame, dtype=np.float64)
    cosines = vectors.T @ other
    gain = np.abs(cosines) - _thickness(spacing, wanted)
    handed = float(np.sign(np.linalg.det(vectors)) * np.sign(np.linalg.det(other)))
    best: tuple[float, tuple[tuple[int, int], ...]] | None = None
    for order in itertools.permutations(range(3)):
        flips = [1 if cosines[axis, target] >= 0 else -1 for axis, target in enumerate(order)]
        turned = np.linalg.det(np.eye(3)[list(order)]) * np.prod(flips)
        # A left-handed array is the one that is mirrored to begin with: flipping its axes makes it right again.
        if round(float(turned)) != round(handed):
            continue
        total = float(sum(gain[axis, target] for axis, target in enumerate(order)))
        if best is None or total > best[0] + 1e-12:
            best = total, tuple(zip(order, flips, strict=True))
    if best is None:  # no three directions of space
        raise ValueError(f"expected three directions of space, found {vectors.tolist()}")
    return best[1]


def margin(directions: ArrayLike) -> float:
    """By how much the nearest assignment to R, A, S beats every other, in cosines (0: two are as near)."""
    cosines = np.abs(np.asarray(directions, dtype=np.float64))
    totals = sorted(
        sum(cosines[target, axis] for axis, target in enumerate(order)) for order in itertools.permutations(range(3))
    )
    return float(totals[-1] - totals[-2])


def _thickness(spacing: Sequence[float] | None, wanted: Sequence[float] | None) -> NDArray[np.float64]:
    """What it costs to lay each axis along each axis of the frame, (3, 3), by their relative thickness."""
    if spacing is None or wanted is None:
        return np.zeros((3, 3))
    logs = [np.log(np.clip(np.array(sizes) / min(sizes), 1, _THICKEST)) for sizes in (spacing, wanted)]
    return np.asarray(_THICK_DRAW * np.abs(logs[0][:, None] - logs[1][None, :]))
