"""What a kind of artefact is: a function from a whole acquisition to the image that a faulty one would have given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from medgen.implants.site import Image

STRENGTHS: Mapping[str, float] = MappingProxyType({"mild": 1.0, "moderate": 2.0, "severe": 3.0})
"""Names of strengths; what a strength of 1 is, each kind says."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What a kind of artefact gets.

    Attributes:
        image: Signal, (i, j, k) float32, at least 0, which is no signal.
        foreground: (i, j, k) boolean, where the patient is.
        axis: Array axis of phase encoding, or whatever one axis matters to the kind; drawn at random.
        strength: Above 0; see :data:`STRENGTHS`.
        rng: Source of the randomness that channels of a scan share, such as the time of a movement.
        noise: Source of randomness that they do not share.
        spacing: Voxel sizes (mm).
        directions: Unit vectors along i, j, k in the RAS+ world, one per column, (3, 3).
        hounsfield: Whether the signal is Hounsfield units above air.
    """

    image: Image
    foreground: NDArray[np.bool_]
    axis: int
    strength: float
    rng: np.random.Generator
    noise: np.random.Generator
    spacing: tuple[float, float, float]
    directions: NDArray[np.float64]
    hounsfield: bool = False

    @property
    def level(self) -> float:
        """Median signal of the foreground."""
        return float(np.median(self.image[self.foreground]))

    def along(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Position of every voxel along a direction of the world, (i, j, k), mm from the first voxel."""
        steps = (world @ self.directions) * np.array(self.spacing)
        i, j, k = (step * np.arange(n) for step, n in zip(steps, self.image.shape, strict=True))
        return np.asarray(i[:, None, None] + j[None, :, None] + k[None, None, :])

    def lines(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """One value per position along :attr:`axis`, (n,), shaped to multiply the image."""
        shape = [1, 1, 1]
        shape[self.axis] = -1
        return values.reshape(shape)


Spoil = Callable[[Acquisition], Image]


@dataclass(frozen=True)
class Artefact:
    """One kind of artefact; calling it with an :class:`Acquisition` gives the signal of the faulty scan (i, j, k).

    Attributes:
        name: Name in tables, reports and file names.
        spoil: What it does, with a docstring that says what the strength is and where the physics was published.
        looks: What a scan with it is said to look like.
        tomogram: Whether computed tomography has it too.
    """

    name: str
    spoil: Spoil
    looks: str
    tomogram: bool

    def __call__(self, acquisition: Acquisition) -> Image:
        """The signal; NaN where the faulty scan shows nothing any more."""
        return self.spoil(acquisition)


def artefact_kind(looks: str, *, tomogram: bool = False) -> Callable[[Spoil], Artefact]:
    """Make a function a kind of artefact that bears its name; for the arguments see :class:`Artefact`."""
    return lambda spoil: Artefact(spoil.__name__, spoil, looks, tomogram)
