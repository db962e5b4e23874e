"""The recipe from a scan to what a model sees, and back: one resample each way, geometry kept in grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from scipy import ndimage

from medgen import affines
from medgen.config import Config
from medgen.errors import ConfigError, DataError, GeometryError
from medgen.preprocessing.cleaning import Cleaned, check_steps, clean
from medgen.preprocessing.intensity_landmarks import check_landmarks
from medgen.preprocessing.modality import Modality, check_named_window, check_scaling, window_of
from medgen.preprocessing.percentiles import percentiles
from medgen.preprocessing.prepared import PreparedScan, Scale, Template
from medgen.transforms.affine_registration import AffineResult, register_affine
from medgen.transforms.foreground import foreground_mask
from medgen.transforms.kept_registrations import Register
from medgen.transforms.label_maps import resample_labels
from medgen.volume import Grid, Volume

if TYPE_CHECKING:
    import torch

# What a voxel of a scan may measure; beyond, a number in another unit is more likely.
_FINEST_MM, _COARSEST_MM = 0.001, 100.0

Direction = tuple[float, float, float]

__all__ = ["PreparedScan", "Preprocess", "Template", "prepare_labels"]


class Preprocess(Config):
    """How scans are brought to the model's grid and intensity range; it travels inside the artifact.

    >>> scan = Volume(np.random.default_rng(0).uniform(100, 200, (1, 20, 20, 20)), Grid((20, 20, 20), np.eye(4)))
    >>> recipe = Preprocess(shape=(8, 8, 8), spacing=(2, 2, 2))
    >>> prepared = recipe.apply(scan)
    >>> prepared.image.shape, prepared.image.min(), prepared.grid.spacing
    ((1, 8, 8, 8), np.float32(0.0), (2.0, 2.0, 2.0))
    >>> recipe.restore(prepared.image, prepared).grid.same_as(scan.grid)
    True

    Attributes:
        shape: Voxels (i, j, k) of the model grid, axes in the order R, A, S.
        spacing: Voxel size in mm along them.
        frame: Directions in the scans' world by which their axes are ordered, a unit vector per axis of the model grid;
            None for R, A, S. For cohorts that lie so obliquely that the nearest of these is arbitrary.
        align: ``center`` puts the grid around the scan's centre, along the scan's own (possibly oblique) axes;
            ``affine`` registers the scan to the cohort template and takes the template's grid along.
        center_on: The centre for ``center``: of the field of view, or of the foreground.
        percentiles: Percentiles of the foreground's intensities that become 0 and 1.
        window: Values that become 0 and 1 instead, the same for every scan, for units that are absolute such as HU; two
            numbers, or a name of :data:`medgen.preprocessing.modality.WINDOWS`, such as ``brain``.
        clip: Limits of the model intensities.
        mask_background: Set the image to 0 outside the foreground, so that skull and neck do not reach a model that
            has never seen them. A crop inside the body is all foreground and is not touched by this.
        modality: ``MR``, ``CT`` or ``PET``. CT and PET are scaled by a ``window`` only, never by a scan's own
            percentiles. ``auto``: not decided; :func:`medgen.preprocessing.automatic.fit_preprocess` decides.
        brain: ``extract`` leaves the brain only of every T1-weighted head that is not stripped yet
            (:func:`medgen.preprocessing.brain_extraction.extract_brain`); ``auto`` does so where a scan has the size of
            a whole head; ``keep`` never does.
        bias_field: ``n4`` divides the smooth shading of MR scans out (:func:`medgen.preprocessing.bias_field.n4`).
        coregister: Bring the further channels of a scan onto its first by a rigid motion
            (:func:`medgen.preprocessing.coregistration.coregister`), for patients who moved between them.
        intensity: ``nyul`` brings every MR scan to the scale of ``landmarks`` before it is scaled by ``percentiles``.
        landmarks: What :func:`medgen.preprocessing.intensity_landmarks.fit_landmarks` finds in the training scans.
        min_similarity: A registered scan whose correlation with the template inside the organ is lower is refused.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    frame: tuple[Direction, Direction, Direction] | None = None
    align: Literal["center", "affine"] = "center"
    center_on: Literal["fov", "foreground"] = "fov"
    percentiles: tuple[float, float] = (1.0, 99.0)
    window: tuple[float, float] | None = None
    clip: tuple[float, float] = (0.0, 1.5)
    mask_background: bool = True
    modality: Modality = "auto"
    brain: Literal["keep", "auto", "extract"] = "keep"
    bias_field: Literal["none", "n4"] = "none"
    coregister: bool = False
    intensity: Literal["percentiles", "nyul"] = "percentiles"
    landmarks: tuple[float, ...] | None = None
    min_similarity: float = Field(default=0.4, ge=-1, le=1)

    @field_validator("shape")
    @classmethod
    def _check_shape(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 1:
            raise ValueError("every side must be at least 1 voxel")
        return value

    @field_validator("spacing")
    @classmethod
    def _check_spacing(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(_FINEST_MM <= step <= _COARSEST_MM for step in value):
            raise ValueError(f"every spacing must be between {_FINEST_MM:g} and {_COARSEST_MM:g} mm")
        return value

    @field_validator("frame")
    @classmethod
    def _check_frame(cls, value: tuple[Direction, Direction, Direction] | None) -> Any:
        if value is not None and (
            not np.allclose(np.array(value) @ np.array(value).T, np.eye(3), atol=0.01) or np.linalg.det(value) < 0
        ):
            raise ValueError("expected three perpendicular unit vectors, right-handed, one for each axis of the model")
        return value

    @model_validator(mode="before")
    @classmethod
    def _check_window_name(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            check_named_window(data.get("window"), data.get("modality"))
        return data

    @field_validator("window", mode="before")
    @classmethod
    def _named_window(cls, value: Any) -> Any:
        return window_of(value)

    @model_validator(mode="after")
    def _check_modality(self) -> Preprocess:
        check_scaling(self.modality, self.window, self.percentiles)
        check_steps(self.modality, self.brain, self.bias_field, self.intensity)
        if self.landmarks is not None:
            check_landmarks(self.landmarks)
        return self

    @field_validator("percentiles", "clip", "window")
    @classmethod
    def _check_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError("the first value must be below the second")
        return value

    @field_validator("percentiles")
    @classmethod
    def _check_percentiles(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 0 or value[1] > 100:
            raise ValueError("percentiles lie between 0 and 100")
        return value

    def canonical(self) -> Grid:
        """The model grid around the origin, axes along R, A and S: the grid of templates."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = -np.array(self.spacing) * (np.array(self.shape) - 1) / 2
        return Grid(self.shape, affine)

    def plan(self, native: Grid, world: NDArray[np.float64] | None = None, template: Grid | None = None) -> Grid:
        """Where the model's voxels lie in the scan's world; pure.

        Args:
            native: The scan's grid.
            world: For ``affine`` the 4 × 4 template world → scan world; for ``center`` a movement of the grid away
                from the centre of the field of view, if any.
            template: The template's grid; needed for ``affine``.

        Raises:
            ConfigError: If ``align`` is ``affine`` and ``world`` or ``template`` is missing.
        """
        if self.align == "center":
            grid = native.centred(self.shape, self.spacing, None if self.frame is None else np.array(self.frame).T)
            return (grid if world is None else grid.moved(world)).on_lattice(native)
        if world is None or template is None:
            raise ConfigError(
                "align: affine needs a cohort template; build one from the training scans, or use "
                "preprocess.align=center"
            )
        return template.moved(world)

    def apply(
        self, scan: Volume, template: Template | None = None, register: Register = register_affine
    ) -> PreparedScan:
        """Bring a scan to the model grid.

        Intensities are measured in the model grid inside the model's foreground: a whole head that is scored by a
        model of skull-stripped brains is scaled by its brain, not by its scalp. What ``brain`` and ``bias_field`` ask
        for is done first, on the scan's own grid (:func:`medgen.preprocessing.cleaning.clean`).

        Args:
            scan: Native image, (c, i, j, k).
            template: The cohort's; needed for ``align: affine``, else unused.
            register: What registers to it; :class:`medgen.transforms.kept_registrations.KeptRegistrations` remembers.

        Returns:
            Image, foreground, both grids and the intensity map.

        Raises:
            DataError: If the scan has no contrast or no foreground in the model grid, has another number of channels
                than the template, or cannot be registered believably.
            ConfigError: If ``align`` is ``affine`` and there is no template.
        """
        cleaned = self.clean(scan)
        return replace(self._placed(cleaned.scan, template, register), steps=cleaned.steps, cleaned=cleaned.changed)

    def _placed(self, scan: Volume, template: Template | None, register: Register) -> PreparedScan:
        body = self._body(scan)
        if self.align == "center":
            return self._sample(scan, body, self.plan(scan.grid, self._shift(body, scan.grid)))
        if template is None:
            return self._sample(scan, body, self.plan(scan.grid))  # raises with the reason
        if len(scan.data) != len(template.image.data):
            raise DataError(f"expected {len(template.image.data)} channels, as in the template, found {len(scan.data)}")
        if template.grid.shape != self.shape:
            raise DataError(f"the template has the shape {template.grid.shape}, the recipe {self.shape}: use its own")
        result = register(scan, template.image, template.foreground)
        problem = result.problem(self.min_similarity)
        if problem:
            raise DataError(
                f"the scan cannot be registered to the cohort's template: {problem}; "
                "check that it shows the same organ with the same contrast"
            )
        return self._sample(scan, body, self.plan(scan.grid, result.world, template.grid), template, result)

    def clean(self, scan: Volume) -> Cleaned:
        """The first part of :meth:`apply`: what is done to a scan on its own grid."""
        if self.intensity == "nyul" and self.landmarks is None:
            raise ConfigError("intensity: nyul needs landmarks of training scans; fit_preprocess finds them")
        landmarks = self.landmarks if self.intensity == "nyul" else None
        return clean(scan, self.modality, self.brain, self.bias_field, self.coregister, landmarks)

    def restore(
        self,
        data: NDArray[Any] | torch.Tensor,
        prepared: PreparedScan,
        order: int = 1,
        fill: float = float("nan"),
    ) -> Volume:
        """Bring a map from the model grid back to the scan's own grid, in one resample.

        Args:
            data: (c, i, j, k) or (i, j, k) on the model grid; NaN means no value and stays NaN.
            prepared: What :meth:`apply` gave for the scan.
            order: 1 linear, 0 nearest (labels), 3 cubic.
            fill: Value outside the model grid. Labels have no NaN: give 0 for integers.

        Returns:
            The map on ``prepared.native``.

        Raises:
            GeometryError: If the shape is not the model grid's, or ``fill`` does not fit an integer map.
        """
        array = _to_numpy(data)
        array = array[None] if array.ndim == 3 else array
        if array.dtype == np.bool_:
            array = array.astype(np.uint8 if order == 0 else np.float32)
        return Volume(array, prepared.grid).resample(prepared.native, order=order, fill=fill)

    def _body(self, scan: Volume) -> Volume:
        """The scan's foreground, (1, i, j, k) float32, on every n-th voxel of a scan much finer than the model.

        Voxels are picked, not averaged, since the constant background of a stripped brain must stay constant. Counted
        from the left, back and bottom, so that the same ones are picked however the scan is stored.
        """
        step = np.array(scan.grid.spacing)
        stride = np.maximum((min(self.spacing) / 1.5 / step + 0.05).astype(int), 1)
        stride = np.minimum(stride, np.maximum(np.array(scan.grid.shape) // 8, 1))
        against = np.array([flip < 0 for _, flip in scan.grid.axes])
        first = np.where(against, (np.array(scan.grid.shape) - 1) % stride, 0)
        i, j, k = (slice(start, None, every) for start, every in zip(first.tolist(), stride.tolist(), strict=True))
        data = scan.data[:, i, j, k]
        grid = Grid(data.shape[1:], affines.product(scan.grid.affine, affines.affine(np.diag(stride), first)))
        return Volume(foreground_mask(data)[None].astype(np.float32), grid)

    def _shift(self, body: Volume, native: Grid) -> NDArray[np.float64] | None:
        if self.center_on == "fov":
            return None
        world = np.eye(4)
        world[:3, 3] = body.grid.to_world(ndimage.center_of_mass(body.data[0])) - native.center
        return world

    def _sample(
        self,
        scan: Volume,
        body: Volume,
        grid: Grid,
        template: Template | None = None,
        registered: AffineResult | None = None,
    ) -> PreparedScan:
        values = scan.with_data(scan.data.astype(np.float32, copy=False)).resample(grid, fill=float("nan")).data
        inside = body.resample(grid).data[0] > 0.5
        total = body.data.sum() * body.grid.voxel_volume / grid.voxel_volume
        if template is not None:
            organ = template.foreground.data[0] > 0
            inside &= organ
            total = organ.sum()
        inside &= np.isfinite(values).all(axis=0)
        quality = {"kept": float(min(inside.sum() / max(float(total), 1.0), 1.0))}
        if registered is not None:
            quality |= {name: float(getattr(registered, name)) for name in _QUALITY}
        image, scale = self._intensities(values, inside)
        world = np.eye(4) if registered is None else registered.world
        return PreparedScan(image, inside, grid, scan.grid, scale, world, quality)

    def _intensities(self, values: NDArray[Any], inside: NDArray[np.bool_]) -> tuple[NDArray[np.float32], Scale]:
        if inside.sum() < 8:
            raise DataError("the scan has no foreground inside the model grid; check its content and its affine")
        image = np.zeros(values.shape, dtype=np.float32)
        scale = []
        shown = inside if self.mask_background else np.isfinite(values).all(axis=0)
        for channel, target in zip(values, image, strict=True):
            low, high = percentiles(channel[inside], self.percentiles)
            low, high = (low, high) if self.window is None or not high > low else self.window
            if not high > low:
                raise DataError(f"the foreground has one intensity only ({low:g}); expected an image with contrast")
            scale.append((low, high - low))
            target[shown] = np.clip((channel[shown] - low) / (high - low), *self.clip)
        return image, tuple(scale)


_QUALITY = ("similarity", "mutual_information", "overlap", "determinant")


def prepare_labels(mask: Volume, prepared: PreparedScan) -> NDArray[Any]:
    """Bring a label map to the model grid: the label that fills most of each voxel.

    See :func:`medgen.transforms.label_maps.resample_labels` for why this is not nearest neighbour.

    Args:
        mask: Whole numbers, 0 is background; (1, i, j, k) on the scan's native grid.
        prepared: What :meth:`Preprocess.apply` gave for the scan.

    Returns:
        (i, j, k), uint8 (int32 if a label is above 255).

    Raises:
        GeometryError: If the mask is not on the scan's grid.
        DataError: If it has several channels or values that are not whole and non-negative.
    """
    if not mask.grid.same_as(prepared.native):
        raise GeometryError(
            f"the mask's grid (shape {mask.grid.shape}) is not the scan's ({prepared.native.shape}); resample it first"
        )
    data = mask.data[0]
    if len(mask.data) != 1 or not np.all(np.isfinite(data)) or (data != np.round(data)).any() or data.min() < 0:
        raise DataError("expected a mask of one channel with whole, non-negative numbers")
    winner = resample_labels(data, mask.grid, prepared.grid)
    return winner.astype(np.uint8) if winner.max(initial=0) <= 255 else winner


def _to_numpy(data: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    if isinstance(data, np.ndarray):
        return data
    tensor = data.detach().cpu()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
