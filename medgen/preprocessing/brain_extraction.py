"""Where the brain is in a T1-weighted scan of a whole head: found with the MNI template, without a trained network.

The template brain is registered to the head by its inside alone. It says roughly where the brain is and which
intensities grey and white matter have in this scan; the scan itself says where its surface lies: what is as bright as
brain, holds together when necks of a few millimetres (dura, veins, optic nerves) are cut, and is closed over the sulci.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen import affines
from medgen.data.mni_template import BrainTemplate, brain_template
from medgen.errors import DataError
from medgen.preprocessing.tissue_model import TissueModel, fit_tissues
from medgen.transforms.affine_registration import AffineResult, register_affine, register_inside
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Grid, Volume

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# The template's brain is larger than people's: registrations start from the size of a mean adult brain (1.45 l).
_START_SCALE = 0.92
# The surface is looked for at these voxel sizes, one after the other, in a box that goes so far beyond the template's
# brain (mm).
_STEPS, _MARGIN = (2.0, 1.25), 12.0
# Deeper inside the template's brain than this all is brain, whatever its intensity; farther outside none is (mm).
_CERTAIN, _REACH = 12.0, 8.0
# Necks thinner than twice this are cut; sulci narrower than twice that are closed (mm).
_OPENING, _CLOSING = 2.5, 7.0
# What hangs on the brain by less than twice this is not brain (mm).
_THREAD = 4.0
# Fluid on the surface that counts as brain, as in masks drawn by hand (mm).
_RIM = 0.75
# Standard deviation of the Gaussian that smooths the surface (mm).
_SMOOTHING = 1.5
# What is believed. Intracranial volumes of healthy adults run from 1000 to 2000 ml; atrophied brains have less.
_VOLUME_ML = (800.0, 2200.0)
_SIMILAR, _SYMMETRIC, _CUT = 0.4, 0.85, 0.1
# A scan with one value on this share of its border, and less than this volume of anything else, is stripped already.
_CONSTANT, _LARGEST_ML = 0.5, 2100.0
# Enough to see that: voxels of this size (mm).
_LOOK_MM = 2.0
_ADVICE = (
    "check that the scan is T1-weighted and shows a whole adult head, or strip it with another tool and set "
    "preprocess.brain=keep"
)


@dataclass(frozen=True, eq=False)
class BrainExtraction:
    """A brain mask and what can be checked about it.

    Attributes:
        mask: (1, i, j, k) bool on the scan's own grid.
        volume_ml: Volume of the mask in millilitres.
        similarity: Correlation of scan and template inside the brain after registration, in [-1, 1].
        symmetry: Dice of the mask with its mirror image across the template's midsagittal plane, in [0, 1].
        cut: Share of the mask's volume that the scan's field of view cuts off, in [0, 1].
        world: 4 × 4, MNI world → scan world.
    """

    mask: Volume
    volume_ml: float
    similarity: float
    symmetry: float
    cut: float
    world: NDArray[np.float64]

    def problem(self) -> str | None:
        """Why the mask cannot be believed, as a clause for an error message; None when it can."""
        low, high = _VOLUME_ML
        if not low <= self.volume_ml <= high:
            return f"it would have {self.volume_ml:.0f} ml ({low:.0f} to {high:.0f} ml expected of adults)"
        if self.similarity < _SIMILAR:
            return f"its correlation with the MNI brain is {self.similarity:.2f} (at least {_SIMILAR:.2f} expected)"
        if self.symmetry < _SYMMETRIC:
            return f"its halves overlap by {self.symmetry:.2f} when mirrored (at least {_SYMMETRIC:.2f} expected)"
        if self.cut > _CUT:
            return f"{self.cut:.0%} of the brain lie outside of the scan (at most {_CUT:.0%} expected)"
        return None


def extract_brain(scan: Volume) -> BrainExtraction:
    """Find the brain in a whole head, T1-weighted, with the skin or without.

    1. The MNI brain is registered to the head, compared inside the brain only
       (:func:`medgen.transforms.affine_registration.register_inside`).
    2. Tissue intensities and the bias field are fitted inside it
       (:func:`medgen.preprocessing.tissue_model.fit_tissues`).
    3. The surface is found on 2 mm (:func:`surface`); the template is registered again, now to the stripped head, whose
       outline it can see; and the surface is found again on 1.25 mm.

    Args:
        scan: (c, i, j, k); the first channel is used.

    Returns:
        The mask on the scan's grid, and what speaks for and against it. Whether to believe it: :func:`problem`.

    Raises:
        DataError: If the head cannot be registered to the template, is not T1-like, or the result is not believable.
    """
    head = scan.with_data(scan.data[:1].astype(np.float32))
    template, priors = brain_template(), _priors()
    found = _register(head, template, None)
    head = _cropped(head, _box(template.grid, found.world, _STEPS[0]))
    for step in _STEPS:
        grid = _box(template.grid, found.world, step)
        image = head.resample(grid, fill=float("nan")).data[0]
        prior = Volume(priors.data, priors.grid.moved(found.world)).resample(grid).data
        depth = _depth(prior[0] > 0.5, step)
        model = fit_tissues(image, prior[1:], (depth < -4) & np.isfinite(image), step)
        brain = surface(np.nan_to_num(image) / model.field, depth, model, step)
        if step != _STEPS[-1]:
            near = Volume(brain[None], grid).resample(head.grid).data > 0.5
            found = _register(head.with_data(np.where(near, head.data, 0)), template, found.world)
    mask = Volume(brain[None].astype(np.float32), grid).resample(scan.grid).data > 0.5
    result = _measured(Volume(mask, scan.grid), found)
    if problem := result.problem():
        raise DataError(f"no brain was found that can be believed: {problem}; {_ADVICE}")
    return result


def is_stripped(scan: Volume) -> bool:
    """Whether what a scan, (c, i, j, k), shows stands in a constant background and is no larger than a brain."""
    return _stripped_ml(scan) < _LARGEST_ML


def is_stripped_brain(scan: Volume) -> bool:
    """Whether it is stripped and what it shows has the size of an adult's brain."""
    return _VOLUME_ML[0] <= _stripped_ml(scan) < _LARGEST_ML


def surroundings_words(scan: Volume) -> str:
    """What was found of a scan that :func:`is_stripped`, and what that says, as a clause."""
    size = _stripped_ml(scan)
    low = _VOLUME_ML[0]
    meaning = (
        "as of a brain that was stripped already"
        if size >= low
        else f"no whole head, nor a brain ({low:.0f} ml or more)"
    )
    return f"{size:.0f} ml stand in a background of one value, {meaning}"


def _stripped_ml(scan: Volume) -> float:
    """Millilitres of what stands in a constant background; infinite where the background is not constant."""
    stride = [
        max(1, min(round(_LOOK_MM / step), n // 16)) for n, step in zip(scan.grid.shape, scan.grid.spacing, strict=True)
    ]
    first = scan.data[0]
    border = np.concatenate([first[cut].ravel() for axis in range(3) for cut in _faces(axis)])
    counts = np.unique(border, return_counts=True)[1]
    if counts.max() < _CONSTANT * border.size:
        return float("inf")
    try:
        shown = foreground_mask(first[:: stride[0], :: stride[1], :: stride[2]])
    except DataError:  # nothing to be seen
        return float("inf")
    return float(shown.sum() * scan.grid.voxel_volume * np.prod(stride) / 1e3)


def _faces(axis: int) -> list[tuple[slice | int, ...]]:
    return [tuple(end if other == axis else slice(None) for other in range(3)) for end in (0, -1)]


def _register(head: Volume, template: BrainTemplate, start: NDArray[np.float64] | None) -> AffineResult:
    """MNI world -> scan world, with the template at the size of a mean brain where there is no start.

    The outline takes part only where the head is stripped already: scalp would draw it outwards.
    """
    shrink = np.eye(4)
    if start is None:
        shrink[:3, :3] *= _START_SCALE
        shrink[:3, 3] = template.grid.center * (1 - _START_SCALE)
    grid = template.grid.moved(shrink)
    image, brain = Volume(template.t1[None], grid), Volume(template.brain[None], grid)
    found = register_inside(head, image, brain) if start is None else register_affine(head, image, brain, start=start)
    return replace(found, world=affines.product(found.world, shrink))


def _box(template: Grid, world: NDArray[np.float64], step: float) -> Grid:
    """Cubic voxels around the registered template's brain, along its axes: turned, but not sheared."""
    left, _, right = np.linalg.svd(world[:3, :3])
    turn = left @ right
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in template.shape])))
    points = template.moved(world).to_world(corners) @ turn
    low, high = points.min(axis=0) - _MARGIN, points.max(axis=0) + _MARGIN
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * step, turn @ low
    i, j, k = np.ceil((high - low) / step).astype(int).tolist()
    return Grid((i, j, k), affine)


@lru_cache(maxsize=1)
def _priors() -> Volume:
    """The template's brain, fluid, grey and white matter at 2 mm, (4, i, j, k): as smooth as an affine can tell."""
    template = brain_template()
    maps = np.stack([template.brain, template.csf, template.gm, template.wm])
    i, j, k = (n // 2 for n in template.grid.shape)
    return Volume(maps, template.grid).resample(template.grid.centred((i, j, k), (2.0, 2.0, 2.0)))


def _cropped(head: Volume, box: Grid) -> Volume:
    """The part of a scan that holds a box with as much room again as the box has around the brain."""
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in box.shape])))
    points = head.grid.to_voxel(box.to_world(corners))
    room = _MARGIN / np.array(head.grid.spacing)
    low = np.clip(np.floor(points.min(axis=0) - room), 0, np.array(head.grid.shape) - 1).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) + room) + 1, low + 1, head.grid.shape).astype(int)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = head.grid.affine.copy()
    affine[:3, 3] = head.grid.to_world(low)
    data = head.data[(slice(None), *part)]
    return Volume(data, Grid((data.shape[1], data.shape[2], data.shape[3]), affine))


def _measured(mask: Volume, found: AffineResult) -> BrainExtraction:
    """What the checks look at, in the template's space at 2 mm."""
    priors = _priors()
    brain, grid = priors.data[:1] > 0.5, priors.grid
    shown = mask.with_data(np.ones(mask.data.shape, dtype=np.uint8)).resample(grid.moved(found.world), order=0).data > 0
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    whole = mask.with_data(mask.data.astype(np.uint8))
    own, mirrored = (
        whole.resample(grid.moved(world), order=0).data > 0
        for world in (found.world, affines.product(found.world, flip))
    )
    return BrainExtraction(
        mask=mask,
        volume_ml=float(mask.data.sum() * mask.grid.voxel_volume / 1e3),
        similarity=found.similarity,
        symmetry=float(2 * (own & mirrored).sum() / max(own.sum() + mirrored.sum(), 1)),
        cut=float((brain & ~shown).sum() / brain.sum()),
        world=found.world,
    )


def surface(image: Floats, depth: Floats, model: TissueModel, step: float) -> Mask:
    """The brain in an image on cubic voxels.

    Args:
        image: (i, j, k), intensities with the bias field divided out; NaN outside the field of view.
        depth: Signed distance from the surface of the registered template's brain in mm, negative inside.
        model: Which intensities tissues have.
        step: Voxel size in mm.

    Returns:
        (i, j, k) bool.
    """
    allowed = depth < _REACH
    certain = depth < -_CERTAIN
    tissue = (image > model.fluid_below) & (image < model.fat_above) & allowed | certain
    core = _eroded(tissue, _OPENING / step)
    core = _connected(core, certain)
    brain = _within(core, (_OPENING + 0.75 * step) / step) & tissue
    brain = _closed(brain | certain, _CLOSING / step, _RIM / step)
    smooth = ndimage.gaussian_filter(brain.astype(np.float32), _SMOOTHING / step)
    brain = ndimage.binary_fill_holes((smooth > 0.5) & allowed)
    # What still hangs on by a thread, as fat behind the eyes does, comes off.
    whole = _within(_connected(_eroded(brain, _THREAD / step), certain), (_THREAD + 0.5) / step)
    return np.asarray(brain & whole)


def _depth(inside: Mask, step: float) -> Floats:
    """Signed distance from the surface in mm, negative inside."""
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    return np.asarray(distance * step, dtype=np.float32)


def _eroded(mask: Mask, reach: float) -> Mask:
    return np.asarray(ndimage.distance_transform_edt(mask) > reach)


def _within(mask: Mask, reach: float) -> Mask:
    return np.asarray(ndimage.distance_transform_edt(~mask) <= reach)


def _closed(mask: Mask, reach: float, rim: float) -> Mask:
    """Dilated by ``reach`` and eroded by ``rim`` less; the box is wide enough for both."""
    return _eroded(_within(mask, reach), reach - rim)


def _connected(mask: Mask, seeds: Mask) -> Mask:
    """The connected parts of the mask that hold a seed."""
    labels, count = ndimage.label(mask)
    found = np.zeros(count + 1, dtype=bool)
    found[np.unique(labels[seeds & mask])] = True
    found[0] = False
    return np.asarray(found[labels])
