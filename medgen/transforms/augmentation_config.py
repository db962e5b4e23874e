"""How batches are augmented: the settings of :mod:`medgen.transforms.augmentation`, which can be read without torch."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from medgen.config import Config

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class AugmentConfig(Config):
    """Ranges of the random transforms; an amplitude of 0, or a range (1, 1), switches a transform off.

    Attributes:
        spatial: Probability that a sample is moved at all (flips are drawn apart).
        flip: Probability of mirroring along i, j, k. Zero by default: left and right are not the same organ.
        rotate_degrees: Rotation about each axis, uniform in ± this many degrees.
        scale: Zoom of the anatomy, log-uniform in this range; drawn once for all axes.
        stretch: Extra zoom per axis, log-uniform in [1 / (1 + stretch), 1 + stretch].
        translate: Shift along each axis, uniform in ± this many voxels.
        elastic: Standard deviation of the elastic displacement at its control points, in voxels.
        spacing: Voxel size along i, j, k in any unit. Where slices are thick, a rotation in voxels would shear the
            anatomy; with this, angles, shifts and bends are those of space, in sides of the finest axis. None is that
            of the scans where a study knows it, else equal sides.
        elastic_spacing: Distance of the control points of the displacement and of the bias field, in voxels.
        intensity: Probability of each of the intensity transforms below, drawn apart for each.
        gamma: Exponent range, applied to the sample's intensities scaled to [0, 1]; log-uniform.
        brightness: Factor range, log-uniform.
        contrast: Range of the factor on the deviation from the mean, log-uniform.
        noise: Largest standard deviation of Gaussian noise, in units of the sample's own standard deviation.
        blur: Range of the Gaussian's standard deviation in voxels, uniform; (0, 0) is off.
        bias: Standard deviation of the log bias field at its control points.
    """

    spatial: Probability = 0.9
    flip: tuple[Probability, Probability, Probability] = (0.0, 0.0, 0.0)
    rotate_degrees: NonNegative = 15.0
    scale: tuple[Positive, Positive] = (0.85, 1.2)
    stretch: NonNegative = 0.1
    translate: NonNegative = 2.0
    elastic: NonNegative = 1.5
    spacing: tuple[Positive, Positive, Positive] | None = None
    elastic_spacing: Annotated[float, Field(ge=2)] = 12.0
    intensity: Probability = 0.3
    gamma: tuple[Positive, Positive] = (0.7, 1.5)
    brightness: tuple[Positive, Positive] = (0.75, 1.3)
    contrast: tuple[Positive, Positive] = (0.65, 1.5)
    noise: NonNegative = 0.2
    blur: tuple[NonNegative, NonNegative] = (0.4, 1.0)
    bias: NonNegative = 0.2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("scale", "gamma", "brightness", "contrast", "blur"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected (low, high) with low <= high, found ({low}, {high})")
        return self
