"""Affine registration of a scan to a template: in NumPy, deterministic, to a fraction of a millimetre."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.transforms.affine_matching import Pair, boxed, reduced
from medgen.volume import Volume

# Registration is done on coarse copies: an affine has 12 parameters, and 4 mm voxels determine them to well under 1 mm.
_COARSE, _FINE = 8.0, 4.0
# All lengths here are those of an organ of this size or more; of smaller ones (a mouse's brain has 16 mm) they are as
# many times smaller.
_ORGAN_MM = 100.0
# Coarse voxels along the thinnest side: with fewer there is too little to tell a transform from.
_FEWEST = 4


@dataclass(frozen=True, eq=False)
class AffineResult:
    """Where the fixed image lies in the moving image's world, and how well it fits there.

    Attributes:
        world: 4 × 4 float64, fixed world → moving world, both RAS+ mm. Its determinant is positive: no reflection.
        similarity: Pearson correlation of the two images inside the fixed mask, 8 mm off its edge, in [-1, 1].
        mutual_information: Normalised mutual information (H(f) + H(m)) / H(f, m) inside the mask, in [1, 2].
        overlap: Share of the fixed mask that lies inside the moving image's field of view, in [0, 1].
    """

    world: NDArray[np.float64]
    similarity: float
    mutual_information: float
    overlap: float

    @property
    def determinant(self) -> float:
        """Volume of the moved fixed image over its own volume."""
        return float(np.linalg.det(self.world[:3, :3]))

    @property
    def stretch(self) -> tuple[float, float]:
        """Smallest and largest stretch along any direction (singular values)."""
        values = np.linalg.svd(self.world[:3, :3], compute_uv=False)
        return float(values[-1]), float(values[0])

    def problem(self, min_similarity: float = 0.4, min_overlap: float = 0.6) -> str | None:
        """Why this result cannot be believed, as a clause for an error message; None when it can.

        Anatomy of one kind differs by at most a factor of about two in volume and 1.6 in any direction; outside of
        that an affine has found something else.
        """
        if not 0.5 <= self.determinant <= 2.0:
            return f"its volume would be {self.determinant:.2f} times the template's (0.5 to 2 expected)"
        low, high = self.stretch
        if low < 0.6 or high > 1.6:
            return f"it would be stretched {low:.2f} to {high:.2f} times (0.6 to 1.6 expected)"
        if self.overlap < min_overlap:
            return f"only {self.overlap:.0%} of the template lies in its field of view ({min_overlap:.0%} expected)"
        if self.similarity < min_similarity:
            return (
                f"its correlation with the template is {self.similarity:.2f} (at least {min_similarity:.2f} expected)"
            )
        return None

    def plausible(self, min_similarity: float = 0.4, min_overlap: float = 0.6) -> bool:
        """Whether :meth:`problem` finds nothing."""
        return self.problem(min_similarity, min_overlap) is None


def thinnest(organ_mm: float) -> float:
    """Least field of view, in mm along its thinnest side, in which an organ of this length can be registered."""
    return _FEWEST * _COARSE * min(1.0, organ_mm / _ORGAN_MM)


def register_affine(
    moving: Volume,
    fixed: Volume,
    fixed_mask: Volume | None = None,
    *,
    start: NDArray[np.float64] | None = None,
    margin_mm: float = 8.0,
) -> AffineResult:
    """Find the affine that carries ``fixed`` onto ``moving``, without reflection and without random numbers.

    Lengths below are those for organs of 100 mm and more, and shrink with smaller ones.

    1. A grid of starts (centres of mass, of the field of view and below the head's top, shifted and rotated) is
       ranked by normalised mutual information at 8 mm.
    2. The best three are improved as rigid and then as similarity transforms
       (:meth:`medgen.transforms.affine_matching.Pair.improve`); the one with the most information goes on.
    3. Affine at 8 mm, then at 4 mm; there also without the margin, if that fits the organ clearly better.

    Oblique and sheared grids are no special case: both images are first resampled to axis-aligned grids in RAS+ mm.

    Args:
        moving: The scan; its first channel is used.
        fixed: The template; its first channel is used.
        fixed_mask: The organ, (1, i, j, k) > 0.5 on any grid; default: where ``fixed`` is above zero.
        start: 4 × 4 fixed world → moving world; when given, it is the only start.
        margin_mm: The mask is dilated by so much, so that the edge of the brain is seen: a whole head then fits a
            skull-stripped template by the dark rim of fluid and bone.

    Returns:
        The transform with its quality; judge it with :meth:`AffineResult.problem`.

    Raises:
        DataError: If an image is constant or too thin, or the mask is empty.
    """
    mask = fixed.with_data((fixed.data[:1] > 0).astype(np.float32)) if fixed_mask is None else fixed_mask
    part = min(1.0, (_length(mask) or _ORGAN_MM) / _ORGAN_MM)
    size, margin_mm = _FINE * part, margin_mm * part
    # Coarse from fine: blurring a scan of 50 million voxels twice would take longer than registering it.
    scan = boxed(reduced(moving, size), size, 0.0)
    fine = Pair.of(scan, fixed, mask, size, margin_mm)
    coarse = Pair.of(boxed(scan, _COARSE * part, 0.0), fixed, mask, _COARSE * part, margin_mm)
    starts = _starts(coarse, keep=3, part=part) if start is None else [np.asarray(start, dtype=np.float64)]
    if start is None:
        starts = [coarse.improve(coarse.improve(world, "rigid"), "similarity") for world in starts]
    rough = coarse.improve(max(starts, key=coarse.information), "affine")
    best = fine.improve(rough, "affine")
    deep = _deep(fine)
    # The rim helps where both images show the same rim. Bright scalp close to the brain draws it outwards instead: the
    # organ by itself then fits much better, and is believed.
    alone = Pair.of(scan, fixed, mask, size, 0.0).improve(rough, "affine")
    if _likeness(fine, alone, deep) > _likeness(fine, best, deep) + 0.02:
        best = alone
    return _judged(fine, best)


def register_inside(moving: Volume, fixed: Volume, fixed_mask: Volume) -> AffineResult:
    """Find a stripped organ in a scan that shows much more, such as a brain in a head, by its inside alone.

    Nothing outside the mask is compared, so scalp and skull cannot draw the organ outwards. Without its outline 8 mm
    voxels do not tell its size: there only the pose is found (from starts as in :func:`register_affine`), and scale and
    shear at 4 mm.

    Args:
        moving: The scan; its first channel is used.
        fixed: The template, of about the organ's size; its first channel is used.
        fixed_mask: The organ, (1, i, j, k) > 0.5.

    Returns:
        As :func:`register_affine`.

    Raises:
        DataError: If an image is constant or too thin, or the mask is empty.
    """
    part = min(1.0, (_length(fixed_mask) or _ORGAN_MM) / _ORGAN_MM)
    scan = boxed(reduced(moving, _FINE * part), _FINE * part, 0.0)
    coarse = Pair.of(boxed(scan, _COARSE * part, 0.0), fixed, fixed_mask, _COARSE * part, 0.0)
    fine = Pair.of(scan, fixed, fixed_mask, _FINE * part, 0.0)
    poses = sorted(
        (coarse.improve(world, "rigid") for world in _starts(coarse, keep=6, part=part)), key=coarse.information
    )
    sized = [fine.improve(pose, "similarity") for pose in poses[-2:]]
    best = fine.improve(max(sized, key=fine.information), "affine")
    return _judged(fine, best)


def _judged(pair: Pair, world: NDArray[np.float64]) -> AffineResult:
    return AffineResult(
        world=world,
        similarity=_likeness(pair, world, _deep(pair)),
        mutual_information=pair.information(world),
        overlap=float(pair.samples(world, pair.core)[1].mean()),
    )


def _deep(pair: Pair) -> NDArray[np.bool_]:
    """The organ's inside: its edge against black alone correlates at 0.7 with the organ upside down."""
    depth = ndimage.distance_transform_edt(pair.core)
    return np.asarray(depth > 2 if (depth > 2).sum() >= 100 else pair.core)


def _length(mask: Volume) -> float:
    """Largest extent of what a mask, (1, i, j, k) > 0.5, holds, along its grid's axes in mm; 0 if that is nothing."""
    extents = [0.0]
    for axis, step in enumerate(mask.grid.spacing):
        others = tuple(other for other in range(3) if other != axis)
        rows = np.flatnonzero((mask.data[0] > 0.5).any(axis=others))
        extents.append(step * float(rows[-1] - rows[0] + 1) if rows.size else 0.0)
    return max(extents)


def _starts(pair: Pair, keep: int, part: float) -> list[NDArray[np.float64]]:
    """The ``keep`` best starts that differ from each other, by normalised mutual information.

    Args:
        pair: Coarse images.
        keep: How many.
        part: All lengths are so much of those for large organs.
    """
    fixed_weight = np.where(pair.mask, pair.fixed.data[0], 0)
    centre = pair.fixed.grid.to_world(ndimage.center_of_mass(fixed_weight))
    mass = pair.moving.grid.to_world(ndimage.center_of_mass(pair.moving.data[0] + 1e-6))
    anchors = [mass, pair.moving.grid.center, _below_top(pair, centre)]
    ranked = _rank(pair, centre, anchors, [np.eye(3)], _lattice(24.0 * part))
    seeds = [world[:3, :3] @ centre + world[:3, 3] for _, world in ranked[:3]]
    turns = [_rotation(axis, angle) for axis in range(3) for angle in (-20.0, 20.0)]
    ranked += _rank(pair, centre, seeds, [np.eye(3), *turns], _lattice(10.0 * part))
    chosen: list[NDArray[np.float64]] = []
    for _, world in sorted(ranked, key=lambda item: -item[0]):
        target = world[:3, :3] @ centre + world[:3, 3]
        if all(
            np.linalg.norm(target - (other[:3, :3] @ centre + other[:3, 3])) > 12 * part
            or np.abs(world[:3, :3] - other[:3, :3]).max() > 0.2
            for other in chosen
        ):
            chosen.append(world)
        if len(chosen) == keep:
            break
    return chosen


def _below_top(pair: Pair, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the fixed centre lies when the tops are at one height: finds the brain in a head with a neck."""
    bright = pair.moving.data[0] > 0.1
    rows = np.nonzero(bright.sum(axis=(0, 1)) >= 4)[0]
    top = pair.moving.grid.to_world([0, 0, rows.max() if rows.size else bright.shape[2] - 1])[2]
    tall = np.nonzero(pair.core.any(axis=(0, 1)))[0].max()
    height = pair.fixed.grid.to_world([0, 0, tall])[2] - centre[2]
    upper = bright & (pair.moving.grid.to_world(_indices(bright.shape))[..., 2] > top - 2 * height)
    anchor = pair.moving.grid.to_world(ndimage.center_of_mass(upper)) if upper.any() else pair.moving.grid.center
    return np.array([anchor[0], anchor[1], top - height])


def _indices(shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.moveaxis(np.indices(shape), 0, -1)


def _lattice(step: float) -> list[NDArray[np.float64]]:
    return [np.array(offset) * step for offset in itertools.product((-1.0, 0.0, 1.0), repeat=3)]


def _rank(
    pair: Pair,
    centre: NDArray[np.float64],
    anchors: Iterable[NDArray[np.float64]],
    turns: Iterable[NDArray[np.float64]],
    offsets: Iterable[NDArray[np.float64]],
) -> list[tuple[float, NDArray[np.float64]]]:
    ranked = []
    for anchor, turn, offset in itertools.product(anchors, list(turns), list(offsets)):
        world = np.eye(4)
        world[:3, :3] = turn
        world[:3, 3] = anchor + offset - turn @ centre
        ranked.append((pair.information(world), world))
    return sorted(ranked, key=lambda item: -item[0])


def _rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    a, b = [i for i in range(3) if i != axis]
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = -s, s
    return matrix


def _likeness(pair: Pair, world: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Pearson correlation in the part of ``mask`` that the scan has seen."""
    values, seen = pair.samples(world, mask)
    a, b = values[seen], pair.values(mask)[seen]
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
