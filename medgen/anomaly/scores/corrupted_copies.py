"""Corrupted copies of the training scans, made once for all folds and for all scores that learn from them.

What is pasted comes from the scan itself (shifted and mirrored where another scan is called for), so that a copy
belongs to its scan alone and every fold that has the scan may use it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.corruptions import corrupt
from medgen.anomaly.scores.descriptors import Surroundings, flat_descriptors
from medgen.anomaly.scores.settings.corruptions import DEFAULT
from medgen.seeds import derive, numpy_rng

# Most corrupted copies of a training scan, and about how many are enough in all: a hundred weights are known by then.
_COPIES, _ENOUGH = 8, 160
# Regions per copy, their radii in voxels, and voxels kept per copy.
_REGIONS, _RADII = 6, (1.5, 7.0)
_CHANGED, _HEALTHY = 1500, 2500
# Side of a patch in voxels, patches of a copy, and about how many are kept in all (1.6 MB each per image channel).
SIDE, _PATCHES, _PATCHES_IN_ALL = 32, 3, 480
# Beginning of the names under which a scan's memo keeps its copies.
_KEY = "corrupted"


@dataclass(frozen=True, eq=False)
class Patch:
    """A cube of a corrupted copy, of side :data:`SIDE` or of the whole grid where that is smaller.

    Attributes:
        place: Where it lies in the grid.
        values: (c · d, p, q, r) float16, descriptors of the corrupted scan, 0 outside the foreground.
        changed: (p, q, r) boolean, voxels that changed visibly.
    """

    place: tuple[slice, ...]
    values: NDArray[np.float16]
    changed: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CorruptedCopy:
    """What is kept of one corrupted copy of a scan.

    Attributes:
        values: (c · d, m) float16, descriptors of m voxels.
        voxels: (m,), their indices into the foreground.
        changed: (m,) boolean, whether they changed visibly.
        patches: Cubes, two in three of them around changed voxels; none where nobody asked for any.
    """

    values: NDArray[np.float16]
    voxels: NDArray[np.intp]
    changed: NDArray[np.bool_]
    patches: tuple[Patch, ...]


def corrupted_copies(inputs: Inputs, *, patches: bool = False) -> list[list[CorruptedCopy]]:
    """The corrupted copies of every scan, from the memo where they are known.

    Args:
        inputs: Training scans; the setting ``corruptions`` says of which kinds.
        patches: Whether patches are needed.
    """
    kinds = tuple(inputs.settings.get("corruptions", DEFAULT))
    copies = max(1, min(_COPIES, _ENOUGH // len(inputs)))
    each = max(1, min(_PATCHES, _PATCHES_IN_ALL // (copies * len(inputs)))) if patches else 0
    result = []
    for scan, mask, memo in zip(inputs.voxels, inputs.mask, inputs.memo, strict=True):
        key = f"{_KEY} {copies} {kinds}"
        if key not in memo or len(memo[key][0].patches) < each:
            seed = int.from_bytes(hashlib.sha256(scan.tobytes()).digest()[:6], "big")
            around = Surroundings(mask)
            seeds = [derive(seed, "corruption", copy) for copy in range(copies)]
            memo[key] = [_copy(scan, mask, around, kinds, each, own) for own in seeds]
        result.append(memo[key])
    return result


def forget_copies(memo: dict[str, Any]) -> None:
    """Take the corrupted copies out of a scan's memo: they are for learning, and large."""
    for key in [key for key in memo if key.startswith(_KEY)]:
        del memo[key]


def _copy(
    scan: NDArray[np.float32],
    mask: NDArray[np.bool_],
    around: Surroundings,
    kinds: tuple[str, ...],
    patches: int,
    seed: int,
) -> CorruptedCopy:
    rng = numpy_rng(seed, "voxels")
    # Never by zero: tissue that equals its mirror image would be a sign of corruption that no lesion bears.
    shift = rng.choice([-3, -2, 2, 3], size=3)
    other = np.roll(scan[:, ::-1], shift, axis=(1, 2, 3))
    images = torch.from_numpy(np.stack([scan, other]))
    foregrounds = torch.from_numpy(np.stack([mask, np.zeros_like(mask)])[:, None].astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed, truth = corrupt(images, foregrounds, kinds, _RADII, _REGIONS)
    where = truth[0, 0].numpy() > 0
    marked = where[mask]
    chosen = [rng.permutation(np.flatnonzero(marked))[:_CHANGED], rng.permutation(np.flatnonzero(~marked))[:_HEALTHY]]
    rows = np.concatenate(chosen)
    if not patches:
        return CorruptedCopy(flat_descriptors(changed[0].numpy(), mask, rows, around), rows, marked[rows], ())
    values = flat_descriptors(changed[0].numpy(), mask, around=around)
    return CorruptedCopy(values[:, rows], rows, marked[rows], _patches(values, mask, where, patches, seed))


def _patches(
    values: NDArray[np.float16], mask: NDArray[np.bool_], where: NDArray[np.bool_], number: int, seed: int
) -> tuple[Patch, ...]:
    rng = numpy_rng(seed, "patches")
    dense = np.zeros((len(values), *mask.shape), dtype=np.float16)
    dense[:, mask] = values
    inside, changed = np.argwhere(mask), np.argwhere(where)
    found = []
    for turn in range(number):
        # Two in three hold changed tissue, somewhere: it must not be known by lying in the middle.
        among = changed if len(changed) and turn % 3 < 2 else inside
        centre = among[rng.integers(len(among))] + rng.integers(-SIDE // 4, SIDE // 4 + 1, size=3)
        corner = [int(np.clip(at - SIDE // 2, 0, max(0, n - SIDE))) for at, n in zip(centre, mask.shape, strict=True)]
        place = tuple(slice(low, min(low + SIDE, n)) for low, n in zip(corner, mask.shape, strict=True))
        found.append(Patch(place, dense[(slice(None), *place)].copy(), where[place].copy()))
    return tuple(found)
