"""How alike two scans are: block-wise normalised cross-correlation over small shifts and mirror images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional

# A copy may be moved by this many voxels of the model grid and is still found.
REACH = 2
# Longest side, in averaged voxels, at which scans are compared; finer detail is noise to this question.
_LONGEST = 32
# Side of a block in averaged voxels.
_BLOCK = 6
# Standard deviation, in units of the averaging, of the blur that is taken off first. Without it the coarse shape that
# all people share decides; with it two people correlate at about 0.75 where a slightly warped copy still has 0.93.
_COARSE = 1.5
# From this number of subjects on, "never exceeded by any of them" is itself a bound of 5 %.
_ENOUGH = 19
_FLIPS = tuple(axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n))


@dataclass(frozen=True)
class _Lattice:
    """How a grid is cut into blocks, along i, j and k.

    Attributes:
        factor: Voxels that are averaged; anisotropic grids are averaged along their long axes only.
        margin: Voxels left free at each border, so that every shift compares the same number of them.
        blocks: Number of blocks.
        sides: Side of a block in averaged voxels.
    """

    factor: tuple[int, int, int]
    margin: tuple[int, int, int]
    blocks: tuple[int, int, int]
    sides: tuple[int, int, int]

    @classmethod
    def of(cls, shape: Sequence[int]) -> _Lattice:
        axes = []
        for size in shape:
            factor = max(1, -(-size // _LONGEST))
            reach = max(REACH, factor)
            free = reach if size > 4 * reach else 0
            inner = (size - 2 * free) // factor
            count = max(inner // _BLOCK, 1)
            axes.append((factor, free, count, inner // count))
        return cls(*zip(*axes, strict=True))

    def offsets(self) -> list[tuple[int, int, int]]:
        axes = [
            range(-max(REACH, factor), max(REACH, factor) + 1, max(1, factor // 2)) if free else (0,)
            for factor, free in zip(self.factor, self.margin, strict=True)
        ]
        return [(i, j, k) for i, j, k in itertools.product(*axes)]

    def cut(self, averaged: Tensor, offset: Sequence[int]) -> Tensor:
        """Blocks (n, blocks, channels · voxels) of running means (n, c, i, j, k), displaced by an offset."""
        window = [slice(None), slice(None)]
        parts = zip(offset, averaged.shape[2:], self.factor, self.margin, self.blocks, self.sides, strict=True)
        for step, size, factor, free, count, side in parts:
            # What no block covers is left out evenly on both sides, so that mirror images compare the same voxels.
            start = free + (size + factor - 1 - 2 * free - count * side * factor) // 2 + step
            window.append(slice(start, start + factor * (count * side - 1) + 1, factor))
        (a, b, c), (i, j, k) = self.blocks, self.sides
        n, channels = averaged.shape[:2]
        part = averaged[tuple(window)].reshape(n, channels, a, i, b, j, c, k).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return part.reshape(n, a * b * c, -1)


class Gallery:
    """Real scans to compare with.

    A scan is cut into blocks of some 12 voxels, and each block finds its own place within ±2 voxels (one averaged
    voxel on fine grids), in any of the eight mirror images of the whole. The likeness of two scans is the mean
    correlation of their blocks, weighted by the real scan's contrast. Blocks that move on their own also find copies
    that are slightly warped or rotated, and a correlation does not see brightness and contrast.

    Args:
        images: (n, c, i, j, k).
        ids: Case ids.
        subjects: Subject of each case.

    Attributes:
        ids: As given.
        subjects: As given.
    """

    def __init__(self, images: Tensor, ids: Sequence[str], subjects: Sequence[str]) -> None:
        self.ids = tuple(ids)
        self.subjects = tuple(subjects)
        self._lattice = _Lattice.of(images.shape[2:])
        self._averaged = self._average(images)
        blocks = self._lattice.cut(self._averaged, (0, 0, 0))
        blocks = blocks - blocks.mean(dim=2, keepdim=True)
        energy = blocks.norm(dim=2)
        self._weights = (energy / energy.sum(dim=1, keepdim=True).clamp_min(1e-8)).T
        # (blocks, voxels, scans): one matrix product per block.
        self._blocks = functional.normalize(blocks, dim=2, eps=1e-6).permute(1, 2, 0).contiguous()

    def correlations(self, image: Tensor) -> Tensor:
        """Likeness to every scan of the gallery, (n,) in [-1, 1], of one image (c, i, j, k)."""
        return self._compare(self._average(image[None]))

    def between_subjects(self) -> dict[str, float]:
        """Per subject the largest likeness of any of its scans with a scan of another subject.

        Scans of one subject (two sides, a rescan) are alike without being copies, so they are not compared.
        """
        largest: dict[str, float] = {}
        for row, subject in enumerate(self.subjects):
            others = torch.tensor([other != subject for other in self.subjects])
            if bool(others.any()):
                value = float(self._compare(self._averaged[row : row + 1])[others].max())
                largest[subject] = max(value, largest.get(subject, -1.0))
        return largest

    def _compare(self, averaged: Tensor) -> Tensor:
        flipped = torch.cat([averaged.flip(axes) if axes else averaged for axes in _FLIPS])
        best = torch.full((len(self._blocks), len(_FLIPS), len(self.ids)), -1.0)
        for offset in self._lattice.offsets():
            blocks = self._lattice.cut(flipped, offset)
            blocks = functional.normalize(blocks - blocks.mean(dim=2, keepdim=True), dim=2, eps=1e-6)
            best = torch.maximum(best, torch.bmm(blocks.transpose(0, 1), self._blocks))
        return (best * self._weights[:, None]).sum(dim=0).amax(dim=0)

    def _average(self, images: Tensor) -> Tensor:
        # At half precision, as scans are kept, so that a gallery that was saved and read gives the same numbers.
        values = images.detach().cpu().half().float().numpy()
        sigma = [_COARSE * factor for factor in self._lattice.factor]
        coarse = ndimage.gaussian_filter(values, (0, 0, *sigma), mode="nearest")
        return functional.avg_pool3d(torch.from_numpy(values - coarse), self._lattice.factor, stride=1)


@dataclass(frozen=True)
class Likeness:
    """How much a scan resembles a training case.

    Attributes:
        check: ``copy`` (towards strangers) or ``identity`` (of a deformed scan towards its parent's subject).
        value: Largest likeness, see :class:`Gallery`.
        bound: What it may be at most.
        case: The training case.
    """

    check: str
    value: float
    bound: float
    case: str

    @property
    def copied(self) -> bool:
        """Whether it counts as a copy; also where value or bound is not a number."""
        return not self.value <= self.bound

    def __str__(self) -> str:
        return f"memorised: r = {self.value:.3f} with case {self.case}, expected at most {self.bound:.3f}"


@dataclass(frozen=True)
class CopyBounds:
    """From which likeness on a scan counts as a copy.

    Attributes:
        copy: Bound towards anybody.
        identity: Bound for a deformed scan towards its parent's subject.
        typical: Median over subjects of the largest likeness with another subject.
        highest: Their maximum.
        subjects: Number of subjects behind these numbers.
    """

    copy: float
    identity: float
    typical: float
    highest: float
    subjects: int

    @property
    def promised(self) -> bool:
        """Whether a false-alarm rate of at most 5 % follows without assuming a distribution.

        A new subject exceeds the largest of s exchangeable ones with probability 1 / (s + 1).
        """
        return self.subjects >= _ENOUGH and self.copy >= self.highest

    def __str__(self) -> str:
        basis = f"from {self.subjects} training subjects, of whom no two are more alike than {self.highest:.3f}"
        if self.promised:
            return f"a scan counts as a copy above r = {self.copy:.3f} ({basis}): false alarms of 5 % or fewer"
        why = (
            f"with fewer than {_ENOUGH} subjects"
            if self.subjects < _ENOUGH
            else "since two training subjects are more alike than that,"
        )
        return (
            f"a scan counts as a copy above r = {self.copy:.3f} ({basis}): {why} a rate of false alarms cannot be "
            "promised"
        )


def calibrate(
    between: Mapping[str, float], planted: Sequence[float], false_alarms: float, identity: float
) -> CopyBounds:
    """Bounds from how alike different people are at their most alike, and how alike copies are at their least.

    The bound is the upper prediction limit for one more subject, atanh(r) taken as normal:
    mean + t(1 − α; s − 1) · sd · √(1 + 1/s). With few subjects that limit is far above everybody, and then the middle
    between the most alike people and the least alike planted copy is the bound, if that is lower.

    Args:
        between: Largest likeness with another subject, by subject (:meth:`Gallery.between_subjects`).
        planted: Likeness of planted copies with the scans they were made from (:func:`.planted.likenesses`).
        false_alarms: α, the wanted share of other people's scans above the bound.
        identity: The bound towards the own parent lies this share of (1 − copy bound) below 1.

    Returns:
        The bounds; NaN, which nothing passes, with fewer than three subjects or without planted copies.
    """
    people, copies = (_fisher(values) for values in (list(between.values()), planted))
    count = len(people)
    if count < 3 or not len(copies):
        return CopyBounds(math.nan, math.nan, math.nan, math.nan, count)
    # Subjects that are all equally alike would make every difference a copy.
    spread = max(float(people.std(ddof=1)), 0.01)
    limit = float(people.mean() + stats.t.ppf(1 - false_alarms, count - 1) * spread * math.sqrt(1 + 1 / count))
    highest = float(people.max())
    middle = (highest + float(copies.min())) / 2
    bound = math.tanh(max(highest, min(limit, middle)))
    return CopyBounds(
        copy=bound,
        identity=1 - identity * (1 - bound),
        typical=math.tanh(float(np.median(people))),
        highest=math.tanh(highest),
        subjects=count,
    )


def _fisher(likenesses: Sequence[float]) -> NDArray[np.float64]:
    """Fisher's transform, which makes the spread of a correlation nearly independent of its size."""
    return np.arctanh(np.clip(np.asarray(likenesses, dtype=np.float64), -0.999999, 0.999999))
