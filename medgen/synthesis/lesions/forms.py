"""Focal lesions as separate things: found in label maps, cut out, deformed, and put where lesions occur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medgen.metrics.neighbourhood import TOUCHING, connected_parts
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import numpy_rng
from medgen.transforms.fields import control_shape, expand, exponentiate, warp
from medgen.transforms.foreground import foreground_box

Shape = tuple[int, int, int]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Lesion:
    """One connected lesion of a scan.

    Attributes:
        row: Index of the scan in its data set.
        labels: Indices of the lesion's labels (1 and on) in its bounding box, (p, q, r) uint8, 0 outside of it.
        start: First voxel of the bounding box.
        place: Centroid in the bounding box of the scan's foreground, each axis in [0, 1].
        surrounding: The label around most of it.
    """

    row: int
    labels: Labels
    start: Shape
    place: NDArray[np.float64]
    surrounding: int

    @property
    def voxels(self) -> int:
        """Its volume."""
        return int(np.count_nonzero(self.labels))

    @property
    def centre(self) -> NDArray[np.int_]:
        """Middle voxel of its bounding box."""
        return np.array(self.start) + np.array(self.labels.shape) // 2


def find_lesions(data: Dataset, labels: Sequence[int], smallest: int) -> list[Lesion]:
    """Connected components (26 neighbours) of the union of the lesion labels, in the order of the scans.

    Args:
        data: Labelled scans.
        labels: Lesion label numbers; the n-th becomes index n + 1.
        smallest: Fewest voxels; smaller ones are left out.
    """
    lesions: list[Lesion] = []
    if data.labels is None:
        return lesions
    for row in range(len(data)):
        numbers = data.labels[row, 0].numpy()
        index = lesion_indices(numbers, labels)
        low, high = foreground_box(data.foregrounds[row, 0].numpy())
        parts, _ = connected_parts(index > 0)
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            own = parts[box] == number
            if int(own.sum()) < smallest:
                continue
            start = np.array([side.start for side in box])
            centroid = np.array(ndimage.center_of_mass(own)) + start
            ring = ndimage.binary_dilation(parts == number, structure=TOUCHING) & (index == 0)
            around = np.bincount(numbers[ring]) if ring.any() else np.array([1])
            lesions.append(
                Lesion(
                    row=row,
                    labels=np.where(own, index[box], 0).astype(np.uint8),
                    start=_shape(start),
                    place=(centroid - low) / np.maximum(high - low, 1),
                    surrounding=int(around.argmax()),
                )
            )
    return lesions


def lesion_indices(numbers: Labels, labels: Sequence[int]) -> Labels:
    """Label numbers (i, j, k) as lesion indices: n + 1 for the n-th lesion label, else 0."""
    table = np.zeros(256, dtype=np.uint8)
    table[list(labels)] = np.arange(1, len(labels) + 1)
    result: Labels = table[numbers]
    return result


def crop_shape(lesions: Sequence[Lesion], context: int, shape: Shape, largest: int) -> Shape:
    """Crop that holds nine of ten lesions along every axis, see :func:`crop_for`."""
    extents = np.array([lesion.labels.shape for lesion in lesions])
    return crop_for(np.ceil(np.percentile(extents, 90, axis=0)).astype(int).tolist(), context, shape, largest)


def crop_for(extent: Sequence[int], context: int, shape: Shape, largest: int) -> Shape:
    """Crop for lesions of an extent, with ``context`` voxels on each side: at least 16, at most the grid."""
    # Networks halve the resolution three times at most: multiples of 8 need no padding.
    sizes = [min(max(16, 8 * math.ceil((n + 2 * context) / 8)), largest, s) for n, s in zip(extent, shape, strict=True)]
    return _shape(np.array(sizes))


def window(centre: NDArray[np.int_], crop: Shape, shape: Shape) -> tuple[slice, slice, slice]:
    """A window of the crop's shape around a voxel, moved so that it lies inside the grid."""
    low = np.clip(centre - np.array(crop) // 2, 0, np.array(shape) - np.array(crop))
    i, j, k = (slice(int(a), int(a) + size) for a, size in zip(low, crop, strict=True))
    return i, j, k


def centred(labels: Labels, crop: Shape) -> Labels | None:
    """A lesion's labels in the middle of a crop; None if it does not fit with a voxel to spare."""
    size = np.array(labels.shape)
    if (size > np.array(crop) - 2).any():
        return None
    low = (np.array(crop) - size) // 2
    result = np.zeros(crop, dtype=np.uint8)
    result[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = labels
    return result


def deformed(labels: Labels, strength: float, rng: np.random.Generator) -> Labels:
    """A lesion of about the same size and another form: mirrored, scaled, and warped by a smooth diffeomorphism.

    Args:
        labels: Lesion indices in the middle of a crop, (i, j, k).
        strength: Standard deviation of the velocity at its control points, as a share of the shortest axis.
        rng: Source of randomness.
    """
    crop = _shape(np.array(labels.shape))
    smallest = min(crop)
    for axis in range(3):
        if rng.random() < 0.5:
            labels = np.flip(labels, axis)
    points = control_shape(crop, smallest / 3)
    control = rng.normal(0, strength * smallest, size=(1, 3, *points)).astype(np.float32)
    displacement = exponentiate(expand(torch.from_numpy(control), crop))
    middle = (torch.tensor(crop, dtype=torch.float32) - 1)[:, None, None, None] / 2
    axes = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in crop], indexing="ij"))
    # A pull-back: to grow by s, draw from positions s times nearer to the middle.
    scale = torch.from_numpy(np.exp(rng.uniform(-0.2, 0.2, size=(3, 1, 1, 1))).astype(np.float32))
    displacement = displacement + ((axes - middle) * (1 / scale - 1))[None]
    source = torch.from_numpy(np.ascontiguousarray(labels))[None, None]
    values = [int(value) for value in np.unique(labels) if value]
    shares = torch.cat([warp((source == value).float(), displacement) for value in values], dim=1)
    best, winner = shares.max(dim=1)
    inside = shares.sum(dim=1) > 0.5
    result = torch.where(inside & (best > 0), torch.tensor(values)[winner], 0)[0].numpy().astype(np.uint8)
    return largest_part(result)


def largest_part(labels: Labels) -> Labels:
    """The labels of the largest connected component (26 neighbours)."""
    parts, count = connected_parts(labels > 0)
    if count <= 1:
        return labels
    keep = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    result: Labels = np.where(parts == keep, labels, 0).astype(np.uint8)
    return result


@dataclass(frozen=True, eq=False)
class Places:
    """Where lesions occur: a kernel density over their centroids relative to the foreground.

    Attributes:
        centroids: (n, 3), each axis in [0, 1] of the foreground's bounding box.
        surroundings: Labels that lesions lie in.
    """

    centroids: NDArray[np.float64]
    surroundings: tuple[int, ...]

    @property
    def bandwidth(self) -> NDArray[np.float64]:
        """Standard deviation of the Gaussian kernel per axis: Scott's rule, n^(-1/7) · sd, at least 0.03."""
        n = len(self.centroids)
        spread = self.centroids.std(axis=0, ddof=1) if n > 1 else np.full(3, 0.1)
        result: NDArray[np.float64] = np.maximum(spread * n ** (-1 / 7), 0.03)
        return result

    def draw(self, rng: np.random.Generator, widening: float = 1.0) -> NDArray[np.float64]:
        """A place relative to the foreground's bounding box; the kernel's width is multiplied by ``widening``."""
        centre = self.centroids[int(rng.integers(len(self.centroids)))]
        result: NDArray[np.float64] = rng.normal(centre, widening * self.bandwidth)
        return result

    def put(
        self,
        lesion: Labels,
        host: Labels,
        foreground: NDArray[np.bool_],
        forbidden: NDArray[np.bool_],
        rng: np.random.Generator,
        *,
        inside: float,
        tries: int,
    ) -> Labels | None:
        """Lesion indices on the host's grid at a place where lesions occur; None if no place was found.

        Args:
            lesion: Lesion indices in a crop, (p, q, r).
            host: Label numbers of the host, (i, j, k).
            foreground: Where the host has anatomy.
            forbidden: Voxels the lesion must not have.
            rng: Source of randomness.
            inside: Least share of the lesion that lies in the foreground; the rest is cut off.
            tries: Places tried, from a kernel that widens to three times its width: where all lesions lie in one place,
                the host's own is in the way.
        """
        voxels = np.argwhere(lesion > 0)
        values = lesion[lesion > 0]
        middle = np.round(voxels.mean(axis=0)).astype(int)
        low, high = foreground_box(foreground)
        shape = np.array(host.shape)
        for turn in range(tries):
            widening = 1 + 2 * turn / tries
            centre = np.round(low + self.draw(rng, widening) * (high - low)).astype(int)
            where = voxels - middle + centre
            kept = ((where >= 0) & (where < shape)).all(axis=1)
            where, own = where[kept], values[kept]
            i, j, k = where.T
            good = foreground[i, j, k]
            if good.sum() < inside * len(voxels) or forbidden[i, j, k].any():
                continue
            if int(np.bincount(host[i, j, k]).argmax()) not in self.surroundings:
                continue
            result = np.zeros(host.shape, dtype=np.uint8)
            result[i[good], j[good], k[good]] = own[good]
            return result
        return None


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and every voxel that touches it (26 neighbours)."""
    result: NDArray[np.bool_] = ndimage.binary_dilation(mask, structure=TOUCHING)
    return result


def feather(lesion: Labels, foreground: NDArray[np.bool_], margin: int) -> NDArray[np.float32]:
    """Weight of the drawn intensities: 1 in the lesion, falling to 0 over ``margin`` + 1 voxels around it.

    Outside of the foreground it is 0. Distances are Euclidean, in voxels.
    """
    distance = ndimage.distance_transform_edt(lesion == 0)
    weight = np.clip(1 - distance / (margin + 1), 0, 1) * foreground
    result: NDArray[np.float32] = weight.astype(np.float32)
    return result


def random_window(foreground: NDArray[np.bool_], crop: Shape, seed: int, *keys: str | int) -> tuple[slice, ...]:
    """A window of the crop's shape around a random voxel of the foreground (of the grid if there is none)."""
    rng = numpy_rng(seed, *keys)
    where = np.argwhere(foreground)
    centre = where[int(rng.integers(len(where)))] if len(where) else np.array(foreground.shape) // 2
    return window(centre, crop, _shape(np.array(foreground.shape)))


def _shape(sizes: NDArray[np.int_]) -> Shape:
    i, j, k = (int(n) for n in sizes)
    return i, j, k
