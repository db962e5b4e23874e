"""How label maps are painted: the settings of :mod:`medgen.transforms.painting`, which can be read without torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from medgen.config import Config


class PaintingConfig(Config):
    """Ranges of what is drawn for each scan.

    Attributes:
        scans: Number of scans that are painted, from label maps in turn.
        shapes: Random shapes that anatomy without a label is divided into, so that it has more than one intensity.
        deformation: Largest standard deviation of the velocity at its control points, in voxels; drawn up to this.
        deformation_spacing: Distance of these control points, in voxels.
        spread: Largest standard deviation of the intensities within a label, whose means are uniform in [0, 1].
        bias: Largest standard deviation of the log bias field at its control points, half a scan apart.
        gamma: Standard deviation of the logarithm of the exponent of the intensities.
        blur: Range of the Gaussian's standard deviation, in voxels.
        noise: Largest standard deviation of the noise that is added last.
    """

    scans: int = Field(default=100, ge=2)
    shapes: int = Field(default=4, ge=1, le=32)
    deformation: float = Field(default=2.0, ge=0)
    deformation_spacing: float = Field(default=12.0, ge=2)
    spread: float = Field(default=0.14, ge=0)
    bias: float = Field(default=0.3, ge=0)
    gamma: float = Field(default=0.4, ge=0)
    blur: tuple[float, float] = (0.3, 1.0)
    noise: float = Field(default=0.05, ge=0)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not 0 < self.blur[0] <= self.blur[1]:
            raise ValueError(f"blur: expected two numbers above 0, the smaller first, found {list(self.blur)}")
        return self
