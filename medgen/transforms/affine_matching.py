"""Two images at one voxel size: how much they share under an affine, and how to improve it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen import affines
from medgen.errors import DataError
from medgen.metrics.robust import robust_spread
from medgen.volume import Grid, Volume

Freedom = Literal["rigid", "similarity", "affine"]

_BINS = 32
# Tukey's biweight ignores residuals beyond so many standard deviations (95 % efficient for Gaussian noise).
_TUKEY = 4.685


@dataclass(frozen=True, eq=False)
class Pair:
    """A scan and a template on axis-aligned RAS+ grids of cubic voxels, intensities in [0, 1].

    Attributes:
        moving: The scan, 0 outside its field of view.
        seen: The scan's field of view in that grid, (i, j, k).
        fixed: The template.
        mask: Where they are compared, (i, j, k) on the template's grid.
        core: The part of it that is the organ itself.
        places: For the masks of this pair, the indices of their voxels and the template's intensities there.
    """

    moving: Volume
    seen: NDArray[np.bool_]
    fixed: Volume
    mask: NDArray[np.bool_]
    core: NDArray[np.bool_]
    places: dict[int, tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, scan: Volume, template: Volume, organ: Volume, size: float, margin_mm: float) -> Pair:
        """Prepare a pair at one voxel size.

        Args:
            scan: From :func:`boxed`, NaN outside its field of view.
            template: Any grid.
            organ: Mask of the template's organ, (1, i, j, k) > 0.5, on any grid.
            size: Voxel size in mm, that of ``scan``.
            margin_mm: ``mask`` is the organ dilated by so much.

        Raises:
            DataError: If the mask is empty or an image is constant.
        """
        target = boxed(template, size, margin_mm)
        core = organ.with_data(organ.data[:1].astype(np.float32)).resample(target.grid).data[0] > 0.5
        if not core.any():
            raise DataError("registration: the template's mask is empty; expected the organ it shows")
        return cls(
            moving=scan.with_data(_squash(scan.data[0])),
            seen=np.isfinite(scan.data[0]),
            fixed=target.with_data(_squash(target.data[0])),
            mask=ndimage.distance_transform_edt(~core) * size <= margin_mm,
            core=core,
        )

    def values(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The template's intensities in ``mask``, (n,)."""
        return self._place(mask)[2]

    def _place(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """A mask, the indices of its voxels, (3, n), and the template's intensities there, (n,): found once."""
        if id(mask) not in self.places:
            indices = np.array(np.nonzero(mask), dtype=np.float64)
            # With the mask, so that its number stays its own.
            self.places[id(mask)] = mask, indices, self.fixed.data[0][mask].astype(np.float64)
        return self.places[id(mask)]

    @cached_property
    def _slopes(self) -> list[NDArray[np.float32]]:
        """Derivatives of the scan's intensities along its axes, per mm."""
        size = self.moving.grid.spacing[0]
        return [ndimage.correlate1d(self.moving.data[0], [-0.5 / size, 0, 0.5 / size], axis=a) for a in range(3)]

    def samples(
        self, world: NDArray[np.float64], mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The scan's intensities where ``world`` takes the voxels of ``mask``, and which of them it has seen, (n,)."""
        points = self._points(world, mask)
        return _at(self.moving.data[0], points), self._seen_at(points)

    def _seen_at(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the scan has seen the voxels nearest to points (3, n); no voxel lies beyond its outermost centres."""
        inside = np.ones(points.shape[1], dtype=bool)
        for own, n in zip(points, self.seen.shape, strict=True):
            inside &= (own >= 0) & (own <= n - 1)
        if self._all_seen:
            return inside
        nearest = np.floor(points[:, inside] + 0.5).astype(np.intp)
        inside[inside] = self.seen[tuple(nearest)]
        return inside

    @cached_property
    def _all_seen(self) -> bool:
        return bool(self.seen.all())

    def information(self, world: NDArray[np.float64]) -> float:
        """Normalised mutual information in the mask under ``world``, (H(f) + H(m)) / H(f, m), in [1, 2].

        What is not seen takes no part, but a position that sees little must not win by that: the value is lowered by
        the root of the share that is seen, and 0 where that is below 0.3.
        """
        points = self._points(world, self.mask)
        seen = self._seen_at(points)
        share = seen.mean()
        if share < 0.3:
            return 0.0
        values = _at(self.moving.data[0], points[:, seen])
        return _normalised_information(values, self.values(self.mask)[seen]) * float(np.sqrt(share))

    def improve(self, world: NDArray[np.float64], freedom: Freedom, iterations: int = 30) -> NDArray[np.float64]:
        """Follow the images' gradients to the nearest best match: robust Gauss-Newton steps, damped as by Levenberg.

        The scan's intensity under the transform, m(W x), is explained by a quadratic in the template's, g(f(x)), so
        another scanner's scale and curve do not matter. g is fitted together with the step (variable projection).
        Residuals are weighted by Tukey's biweight at 1.4826 MAD: lesions, scalp and what else has no counterpart lose
        their say. Twelve parameters and the right curvature make this converge in about ten steps to a small fraction
        of a voxel, where gradient descent on mutual information needs hundreds. The step is W exp(Σ aₙ Gₙ), so a
        rigid transform stays rigid.

        Args:
            world: Start, 4 × 4, template world → scan world.
            freedom: Six, seven or twelve degrees.
            iterations: At most so many steps.

        Returns:
            4 × 4; the start itself if nothing near is better.
        """
        points = self.fixed.grid.to_world(self._place(self.mask)[1].T)
        centre = points.mean(axis=0)
        radius = float(np.sqrt(((points - centre) ** 2).sum(axis=1).mean()))
        # In units of the organ's radius around its centre, all generators move voxels by about as much.
        unit = np.diag([radius, radius, radius, 1.0])
        unit[:3, 3] = centre
        local = np.c_[(points - centre) / radius, np.ones(len(points))]
        generators = _generators(freedom)
        flow = np.stack([(local @ generator.T)[:, :3] for generator in generators], axis=1)
        curve = np.vander(self.values(self.mask), 3)
        size, slopes = self.moving.grid.spacing[0], self._slopes
        damping = 1e-3
        for _ in range(iterations):
            values, seen = self.samples(world, self.mask)
            residual, weight, scale = _explain(values, seen, curve)
            here = self._points(world, self.mask)
            slope = np.stack([_at(image, here) for image in slopes], axis=1)
            jacobian = np.einsum("na,ab,npb->np", slope, (world @ unit)[:3, :3], flow, optimize=True)
            matrix, vector = _normal_equations(jacobian, residual, weight, curve)
            before = _cost(residual, seen, scale)
            for _ in range(6):
                ridge = damping * np.diag(np.diag(matrix)) + 1e-9 * np.trace(matrix) * np.eye(len(matrix))
                step = np.linalg.solve(ridge + matrix, vector) if np.trace(matrix) > 0 else np.zeros(len(vector))
                change = affines.exponential(np.tensordot(step, generators, axes=1))
                proposal = affines.product(world, unit, change, affines.inverse(unit))
                values, seen = self.samples(proposal, self.mask)
                if seen.mean() >= 0.3 and _cost(_explain(values, seen, curve)[0], seen, scale) < before:
                    break
                damping *= 6
            else:
                return world
            damping = max(damping / 5, 1e-6)
            world = proposal
            if np.abs(step).max() * radius < min(0.02, 0.005 * size):  # mm
                break
        return world

    def _points(self, world: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        matrix = affines.product(affines.inverse(self.moving.grid.affine), world, self.fixed.grid.affine)
        return matrix[:3, :3] @ self._place(mask)[1] + matrix[:3, 3:]


def reduced(volume: Volume, size: float) -> Volume:
    """The first channel averaged over whole blocks of at most half of ``size``; what is left over at the end is cut."""
    blocks = np.maximum((size / 2 / np.array(volume.grid.spacing)).astype(int), 1)
    blocks = np.minimum(blocks, volume.grid.shape)
    kept = np.array(volume.grid.shape) // blocks
    i, j, k = (kept * blocks).tolist()
    data = volume.data[0, :i, :j, :k].astype(np.float32, copy=False)
    for axis, (block, count) in enumerate(zip(blocks.tolist(), kept.tolist(), strict=True)):
        shape = (*data.shape[:axis], count, block, *data.shape[axis + 1 :])
        data = data.reshape(shape).mean(axis=axis + 1) if block > 1 else data
    affine = volume.grid.affine @ np.diag([*blocks, 1.0])
    affine[:3, 3] = volume.grid.to_world((blocks - 1) / 2)
    return Volume(data[None], Grid((data.shape[0], data.shape[1], data.shape[2]), affine))


def boxed(volume: Volume, size: float, margin: float) -> Volume:
    """The first channel on an axis-aligned RAS+ grid of cubic voxels around the field of view; NaN outside of it."""
    grid = volume.grid
    corners = np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in grid.shape])))
    points = grid.to_world(corners)
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    shape = np.ceil((high - low) / size - 1e-6).astype(int)
    if shape.min() < 4:  # too little to tell a transform from
        extent = " x ".join(f"{side:.0f}" for side in high - low)
        raise DataError(
            f"registration: the field of view of {extent} mm is too thin; expected at least {4 * size:.0f} mm"
        )
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = (low + high) / 2 - size * (shape - 1) / 2
    box = Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
    return volume.with_data(volume.data[:1]).resample(box, fill=float("nan"))


def _squash(data: NDArray[Any]) -> NDArray[np.float32]:
    """Intensities to [0, 1] between robust limits, so that a few bright voxels do not fill the histogram; NaN to 0."""
    values = data[np.isfinite(data)]
    if values.size == 0 or values.min() == values.max():
        raise DataError("registration: the image is constant; expected an image with contrast")
    low = float(np.percentile(values, 0.5))
    bright = values[values > low]
    high = float(np.percentile(bright, 99))
    return np.clip((np.nan_to_num(data, nan=low) - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)


def _generators(freedom: Freedom) -> NDArray[np.float64]:
    """Basis of the Lie algebra: 3 shifts and 3 turns; one scale; 2 stretches and 3 shears; (n, 4, 4)."""
    basis = np.zeros((12, 4, 4))
    for axis in range(3):
        basis[axis, axis, 3] = 1
        basis[6, axis, axis] = 1
    for index, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        basis[3 + index, a, b], basis[3 + index, b, a] = -1, 1
        basis[9 + index, a, b], basis[9 + index, b, a] = 1, 1
    basis[7, 0, 0], basis[7, 1, 1] = 1, -1
    basis[8, 1, 1], basis[8, 2, 2] = 1, -1
    return basis[: {"rigid": 6, "similarity": 7, "affine": 12}[freedom]]


def _explain(
    values: NDArray[np.float64], seen: NDArray[np.bool_], curve: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Residuals of the values after the best curve, their weights, and their robust spread."""
    weight, residual, scale = seen.astype(np.float64), values, 1.0
    for _ in range(2):
        design = curve * weight[:, None]
        factors = np.linalg.lstsq(design.T @ curve + 1e-9 * np.eye(curve.shape[1]), design.T @ values, rcond=None)[0]
        residual = values - curve @ factors
        # Intensities lie in [0, 1]: a thousandth keeps a perfect match from dividing by zero.
        scale = robust_spread(residual[seen], centre=0.0) + 1e-3
        share = residual / (_TUKEY * scale)
        weight = np.where(seen & (np.abs(share) < 1), (1 - share**2) ** 2, 0.0)
    return residual, weight, scale


def _cost(residual: NDArray[np.float64], seen: NDArray[np.bool_], scale: float) -> float:
    """Mean of Tukey's ρ, in [0, 1]."""
    share = np.minimum((residual[seen] / (_TUKEY * scale)) ** 2, 1)
    return float(np.mean(1 - (1 - share) ** 3))


def _normal_equations(
    jacobian: NDArray[np.float64],
    residual: NDArray[np.float64],
    weight: NDArray[np.float64],
    curve: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted least squares for the step, with what the intensity curve could explain taken out of both sides."""
    root = np.sqrt(weight)[:, None]
    basis, _ = np.linalg.qr(curve * root)
    slopes = jacobian * root
    slopes -= basis @ (basis.T @ slopes)
    rest = residual * root[:, 0]
    rest -= basis @ (basis.T @ rest)
    return slopes.T @ slopes, -slopes.T @ rest


def _at(image: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = ndimage.map_coordinates(
        image, points, output=np.float64, order=1, mode="constant", cval=0.0
    )
    return values


def _normalised_information(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """(H(a) + H(b)) / H(a, b) of values in [0, 1] (Studholme et al., Pattern Recognition 1999)."""
    bins = _BINS - 1
    index = (a * bins + 0.5).astype(np.int64) * _BINS + (b * bins + 0.5).astype(np.int64)
    joint = np.bincount(index, minlength=_BINS * _BINS).reshape(_BINS, _BINS) / max(index.size, 1)
    shared = _entropy(joint.ravel())
    return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / shared if shared > 0 else 1.0


def _entropy(p: NDArray[np.float64]) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
