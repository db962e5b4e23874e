"""A head around a skull-stripped T1 brain: fluid, dura, skull with marrow, scalp, eyes, vessels, face and neck.

It is made hard on purpose. Dura, venous sinuses, pituitary and optic nerves are as bright as cortex and touch it; the
marrow is as bright as white matter, behind an inner table of a voxel or two; and the cord goes on where the mask ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.volume import Grid, Volume

Floats = NDArray[np.float32]

# The box of the MNI brain, mm: places below are given in it and carried to the brain's own box.
_LOW, _HIGH = np.array([-70.0, -104.0, -70.0]), np.array([70.0, 72.0, 80.0])
# Room around the brain: left, right; back, front; below, above (mm).
_ROOM = ((26, 26), (26, 34), (75, 26))


@dataclass(frozen=True, eq=False)
class WholeHead:
    """A simulated head: image (1, i, j, k) float32 and the mask of its brain, uint8, on the same grid."""

    image: Volume
    brain: Volume


def whole_head(stripped: Volume, seed: int, *, turn: tuple[float, float, float] = (0, 0, 0)) -> WholeHead:
    """Put a head around a brain, (1, i, j, k), 0 outside, of cubic voxels; turned by x, y, z angles in degrees."""
    rng = np.random.default_rng(seed)
    brain, mask, step = _padded(stripped)
    white = float(np.percentile(brain[mask], 90))
    places = _Places(mask, step)

    def noise(sigma: float) -> Floats:
        return _field(rng, mask.shape, sigma / step)

    hull = _closed(mask, 12 / step)
    depth = ndimage.distance_transform_edt(~hull).astype(np.float32) * step
    gap = np.clip(1.2 + 1.6 * noise(25), 0, 5)
    dura = gap + rng.uniform(0.8, 1.6)
    inner = dura + np.clip(1.6 + 0.6 * noise(20), 0.8, 3)
    marrow = inner + np.clip(2.5 + 2 * noise(18), 0, 7)
    outer = marrow + np.clip(1.6 + 0.5 * noise(20), 0.8, 3)
    muscle = outer + np.clip(3 * noise(30), 0, 6)
    scalp = muscle + np.clip(5 + 1.5 * noise(35), 2, 9)

    soft = np.clip(0.5 + 0.12 * noise(6), 0.25, 0.75)
    head = np.where(noise(5) > 1.1, 1.1, soft).astype(np.float32)  # fat between muscles
    head[noise(8) > 1.8] = 0.03  # air in sinuses
    lower = places.face() | places.neck()
    body = (depth < scalp) | lower
    outside = ~ndimage.binary_erosion(lower, iterations=round(4 / step))
    layers = (
        (scalp, rng.uniform(1.0, 1.4)),
        (muscle, rng.uniform(0.4, 0.6)),
        (outer, 0.06),
        (marrow, rng.uniform(0.6, 1.0)),
        (inner, 0.06),
        (dura, rng.uniform(0.4, 0.6)),
        (gap, 0.17),
    )
    for until, value in layers:
        # No scalp between the skull's base and what hangs on it.
        where = depth < until
        head[where & outside if until is scalp or until is muscle else where] = value
    for side in (-1, 1):
        eye = (33 * side, 63, -38)
        head[places.ball(eye, 20)] = 1.1
        head[places.tube(eye, (4 * side, 6, -18), 2.5)] = 0.6
        head[places.ball(eye, 12)] = 0.15
        head[places.tube((11 * side, 2, -24), (20 * side, -20, -110), 3)] = 1.4  # carotids
    head[places.ball((0, 3, -32), 7)] = 0.6  # pituitary
    head[places.tube((0, -42, -60), (0, -60, -150), 11)] = 0.15
    head[places.tube((0, -42, -60), (0, -60, -150), 6)] = 0.85
    head[(depth < 6) & places.midline(4)] = rng.uniform(0.35, 0.9)  # sagittal sinus
    head[~body] = 0
    head = ndimage.gaussian_filter(head, 0.5)
    image = np.where(mask, brain, head * white)
    image = image * np.exp(0.12 * noise(50))
    level = rng.uniform(0.02, 0.04) * white
    image = np.hypot(image + level * rng.standard_normal(mask.shape), level * rng.standard_normal(mask.shape))
    return _turned(image.astype(np.float32), mask, step, turn)


class _Places:
    """Shapes given in MNI mm, in the box of a brain."""

    def __init__(self, mask: NDArray[np.bool_], step: float) -> None:
        where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        low, high = np.array([rows[0] for rows in where]), np.array([rows[-1] for rows in where])
        scale = (_HIGH - _LOW) / (high - low)
        self.points = [
            ((np.arange(n) - low[axis]) * scale[axis] + _LOW[axis]).astype(np.float32).reshape(_along(axis))
            for axis, n in enumerate(mask.shape)
        ]

    def ball(self, centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
        return sum((p - c) ** 2 for p, c in zip(self.points, centre, strict=True)) < radius**2

    def tube(
        self, start: tuple[float, float, float], end: tuple[float, float, float], radius: float
    ) -> NDArray[np.bool_]:
        along = np.subtract(end, start)
        offsets = [p - c for p, c in zip(self.points, start, strict=True)]
        share = np.clip(sum(o * a for o, a in zip(offsets, along, strict=True)) / (along @ along), 0, 1)
        return sum((o - share * a) ** 2 for o, a in zip(offsets, along, strict=True)) < radius**2

    def midline(self, half: float) -> NDArray[np.bool_]:
        x, y, z = self.points
        return (np.abs(x) < half) & (z + 0 * y > -10)

    def face(self) -> NDArray[np.bool_]:
        x, y, z = self.points
        return ((x / 68) ** 2 + ((y - 15) / 75) ** 2 + ((z + 75) / 75) ** 2 < 1) & (z < -20)

    def neck(self) -> NDArray[np.bool_]:
        x, y, z = self.points
        return ((x / 58) ** 2 + ((y + 35) / 58) ** 2 < 1) & (z < -55)


def _along(axis: int) -> tuple[int, ...]:
    return tuple(-1 if other == axis else 1 for other in range(3))


def _padded(stripped: Volume) -> tuple[Floats, NDArray[np.bool_], float]:
    """The brain in the box of a head, axes R, A, S."""
    step = float(stripped.grid.spacing[0])
    order = stripped.grid.axes
    data = np.moveaxis(stripped.data[0], range(3), [target for target, _ in order])
    data = np.flip(data, [target for target, flip in order if flip < 0])
    box = ndimage.find_objects((data > 0).astype(np.uint8))[0]
    room = [(int(a / step), int(b / step)) for a, b in _ROOM]
    brain = np.pad(data[box].astype(np.float32), room)
    return brain, ndimage.binary_fill_holes(brain > 0), step


def _closed(mask: NDArray[np.bool_], reach: float) -> NDArray[np.bool_]:
    grown = ndimage.distance_transform_edt(~mask) <= reach
    return ndimage.distance_transform_edt(grown) > reach


def _field(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Floats:
    """Smooth noise of mean 0 and standard deviation 1."""
    step = max(sigma / 2, 1.0)
    coarse = rng.standard_normal([int(n / step) + 4 for n in shape])
    coarse = ndimage.gaussian_filter(coarse, sigma / step, mode="wrap")
    coarse = ((coarse - coarse.mean()) / coarse.std()).astype(np.float32)
    return ndimage.affine_transform(coarse, np.full(3, 1 / step), offset=1.0, output_shape=shape, order=1)


def _turned(image: Floats, mask: NDArray[np.bool_], step: float, turn: tuple[float, float, float]) -> WholeHead:
    from scipy.spatial.transform import Rotation

    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = -step * (np.array(mask.shape) - 1) / 2
    grid = Grid(mask.shape, affine)
    head = WholeHead(Volume(image[None], grid), Volume(mask[None].astype(np.uint8), grid))
    if not any(turn):
        return head
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    turned = grid.moved(world)
    # The turned head on upright axes, as a scanner sees it.
    image = Volume(head.image.data, turned).resample(grid)
    brain = Volume(head.brain.data.astype(np.float32), turned).resample(grid)
    return WholeHead(image, brain.with_data((brain.data > 0.5).astype(np.uint8)))
