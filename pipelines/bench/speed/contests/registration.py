"""Affine registration of brains against SimpleITK and ANTs, with how well labels overlap afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.errors import DataError
from medgen.transforms.affine_registration import register_affine
from medgen.volume import Grid, Volume

from ..contest import Contender, Contest, Entry, Rows, Settings
from ..peers import absent

_SEED = 0
_GOAL = 3.0
# A ratio counts at equal or better overlap.
_BEHIND = "SimpleITK Mattes affine"
_PAIRS, _FEW = 8, 1
# RAS+ to the LPS+ of ITK and back.
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
# Structures of fewer voxels say more about their own size than about the registration.
_SMALLEST = 200

Pair = tuple[Volume, Volume, Volume, Volume]
World = NDArray[np.float64]


@dataclass
class Turns:
    """Registers the next pair whenever it is called, so that every contender has the same one in the same round.

    Attributes:
        way: How.
        pairs: In turns.
        found: What came of each pair, by its number.
        calls: How often it was called.
    """

    way: Callable[[Volume, Volume], World]
    pairs: list[Pair]
    found: dict[int, World] = field(default_factory=dict)
    calls: int = 0

    def __call__(self) -> None:
        """One pair."""
        number = self.calls % len(self.pairs)
        fixed, _, moving, _ = self.pairs[number]
        self.found[number] = self.way(fixed, moving)
        self.calls += 1


def entries(settings: Settings) -> Iterator[Entry]:
    """One pair after the other, by each contender."""
    pairs = _pairs(settings)
    gone = absent("ants", "antspyx")
    turns = {"medgen": Turns(_own, pairs), _BEHIND: Turns(_by_itk, pairs)}
    if not gone:
        turns["ANTs AffineFast"] = Turns(_by_ants, pairs)
    yield Contest(
        f"affine registration, {len(pairs)} pairs",
        tuple(Contender(name, turn, _GOAL if name == _BEHIND else None) for name, turn in turns.items()),
        equal=partial(_overlap, pairs, turns),
        without=gone,
        notes=(
            "Moving and fixed are whole brains of different people at the scans' own voxel size; every round is another"
            " pair. SimpleITK: Mattes information with 50 bins on a tenth of the voxels, three resolutions, gradient "
            "descent of at most 200 steps, moments to start from. ANTs: its own settings of that name, the faster of "
            "its two. Dice is the mean over the structures of the fixed label map, the moving one brought there by its "
            "nearest voxels, and then over pairs. A ratio counts where Dice is at least as good.",
        ),
    )


def _pairs(settings: Settings) -> list[Pair]:
    """Fixed and moving scans with label maps; moving ones are turned and shifted, as people lie."""
    count = _FEW if settings.quick else _PAIRS
    scans = _simulated(settings, count + 1) if settings.data is None else _read(settings, count + 1)
    (fixed, labels), rng = scans[0], np.random.default_rng(_SEED)
    pairs = []
    for image, own in scans[1:]:
        world = np.eye(4)
        angle, axis = rng.uniform(-0.15, 0.15), int(rng.integers(3))
        a, b = (axis + 1) % 3, (axis + 2) % 3
        world[[a, b, a, b], [a, b, b, a]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        world[:3, 3] = rng.uniform(-12, 12, 3)
        grid = image.grid.moved(world)
        pairs.append((fixed, labels, Volume(image.data, grid), Volume(own.data, grid)))
    return pairs


def _simulated(settings: Settings, count: int) -> list[tuple[Volume, Volume]]:
    drawer = SubjectDrawer(cohort_grid(4.0 if settings.quick else 1.0))
    subjects = [drawer.draw(_SEED, index) for index in range(count)]
    return [(subject.image, subject.labels) for subject in subjects]


def _read(settings: Settings, count: int) -> list[tuple[Volume, Volume]]:
    if settings.data is None:
        return []
    cases = [case for case in load_cohort(settings.data) if case.mask is not None]
    # One scan of a person: a second one would be registered far too easily.
    first = {case.subject: case for case in reversed(cases)}
    if len(first) < count:
        raise DataError(f"{settings.data}: {len(first)} people with label maps; the benchmark takes {count}")
    found = []
    for subject in sorted(first)[:count]:
        image = first[subject].read_image()
        mask = first[subject].read_mask(image)
        if mask is not None:
            found.append((Volume(image.data[:1], image.grid), mask))
    return found


def _own(fixed: Volume, moving: Volume) -> World:
    return register_affine(moving, fixed).world


def _by_itk(fixed: Volume, moving: Volume) -> World:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    images = []
    for volume in (fixed, moving):
        size, origin, direction = _lps(volume.grid)
        image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data[0].astype(np.float32).T))
        image.SetSpacing(size.tolist())
        image.SetOrigin(origin.tolist())
        image.SetDirection(direction.ravel().tolist())
        images.append(image)
    start = sitk.CenteredTransformInitializer(
        *images, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsGradientDescent(1.0, 200, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(sitk.AffineTransform(start), inPlace=True)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    found = method.Execute(*images)
    found = sitk.AffineTransform(found.GetNthTransform(0)) if isinstance(found, sitk.CompositeTransform) else found
    return _world(found.GetMatrix(), found.GetTranslation(), found.GetCenter())


def _by_ants(fixed: Volume, moving: Volume) -> World:
    import ants

    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    images = []
    for volume in (fixed, moving):
        size, origin, direction = _lps(volume.grid)
        values = np.ascontiguousarray(volume.data[0].astype(np.float32))
        images.append(ants.from_numpy(values, origin=origin.tolist(), spacing=size.tolist(), direction=direction))
    done = ants.registration(*images, type_of_transform="AffineFast", random_seed=1)
    found = ants.read_transform(done["fwdtransforms"][0])
    parameters = np.asarray(found.parameters)
    return _world(parameters[:9], parameters[9:], found.fixed_parameters)


def _lps(grid: Grid) -> tuple[World, World, World]:
    """Voxel size, origin and directions of a grid in the world of ITK."""
    affine = _FLIP @ grid.affine
    size = np.linalg.norm(affine[:3, :3], axis=0)
    return size, affine[:3, 3], affine[:3, :3] / size


def _world(matrix: Any, translation: Any, centre: Any) -> World:
    """ITK's x ↦ A (x − c) + t + c, in RAS+."""
    turn, middle, world = np.reshape(matrix, (3, 3)), np.asarray(centre), np.eye(4)
    world[:3, :3] = turn
    world[:3, 3] = np.asarray(translation) + middle - turn @ middle
    return np.asarray(_FLIP @ world @ _FLIP)


def _overlap(pairs: list[Pair], turns: dict[str, Turns]) -> Rows:
    # The pairs that all of them had.
    shared = sorted(set.intersection(*(set(turn.found) for turn in turns.values())))
    every = {name: [_dice(pairs[n], turn.found[n]) for n in shared] for name, turn in turns.items()}
    every["unregistered"] = [_dice(pairs[n], np.eye(4)) for n in shared]
    return {
        "Dice, mean": {name: float(np.mean(values)) for name, values in every.items()},
        "Dice, worst pair": {name: float(np.min(values)) for name, values in every.items()},
        "pairs": {name: len(values) for name, values in every.items()},
    }


def _dice(pair: Pair, world: World) -> float:
    fixed, labels, _, moving = pair
    moved = moving.resample(fixed.grid.moved(world), order=0).data[0]
    wanted, found = labels.data[0], []
    for label in np.unique(wanted):
        one, other = wanted == label, moved == label
        if label and one.sum() >= _SMALLEST:
            found.append(2 * float((one & other).sum()) / float(one.sum() + other.sum()))
    return float(np.mean(found))
