"""What preprocessing makes of a scan and of a cohort: plain data that carries its geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.volume import Grid, Volume

Scale = tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as the model sees it, with all that is needed to go back.

    Attributes:
        image: Model intensities, (c, i, j, k) float32; 0 where the scan has no value.
        foreground: Voxels that are anatomy and are scored, (i, j, k) bool.
        grid: Where the model's voxels lie in the scan's own RAS+ world.
        native: The scan's grid.
        scale: Per channel (offset, gain): model = (native − offset) / gain, before clipping.
        world: 4 × 4, template world → scan world; the identity when no template was registered.
        quality: What can be checked about the fit: ``kept`` (share of the scan's foreground volume inside the model
            grid; for a registered scan the share of the template's foreground found in the scan) and, when
            registered, ``similarity``, ``mutual_information``, ``overlap``, ``determinant``.
        steps: What was done to the scan on its own grid, a sentence for each step.
        cleaned: The scan after these steps, on its own grid; None where they changed nothing.
        may_show_face: What :func:`medgen.data.faces.may_show_face` says of the scan after these steps.
        attributes: What the manifest says of the scan and the person, by column; may be empty.
    """

    image: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    grid: Grid
    native: Grid
    scale: Scale
    world: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    quality: Mapping[str, float] = field(default_factory=dict)
    may_show_face: bool = False
    steps: tuple[str, ...] = ()
    cleaned: Volume | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Template:
    """The mean anatomy of a cohort's training scans on the model grid.

    Attributes:
        image: Mean of the prepared images, (c, i, j, k) float32, model intensities.
        foreground: (1, i, j, k) bool on the same grid: foreground in more than half of the scans.
    """

    image: Volume
    foreground: Volume

    def of_channels(self, rows: Sequence[int]) -> Template:
        """The same anatomy with some of its channels, in the order given."""
        return replace(self, image=self.image.with_data(self.image.data[list(rows)]))

    @property
    def grid(self) -> Grid:
        """The model grid in the template's own world, centred on the origin."""
        return self.image.grid

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays (``image``, ``foreground``, ``affine``) that :meth:`from_arrays` reads back exactly."""
        return {
            "image": np.ascontiguousarray(self.image.data, dtype=np.float32),
            "foreground": np.ascontiguousarray(self.foreground.data, dtype=np.uint8),
            "affine": self.grid.affine.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Template:
        """Inverse of :meth:`to_arrays`.

        Raises:
            DataError: If an array is missing.
            GeometryError: If the shapes do not fit each other.
        """
        missing = {"image", "foreground", "affine"} - set(arrays)
        if missing:
            raise DataError(f"a template needs the arrays image, foreground and affine; missing: {sorted(missing)}")
        image = np.asarray(arrays["image"], dtype=np.float32)
        grid = Grid((image.shape[-3], image.shape[-2], image.shape[-1]), arrays["affine"])
        return cls(Volume(image, grid), Volume(np.asarray(arrays["foreground"]) > 0, grid))
