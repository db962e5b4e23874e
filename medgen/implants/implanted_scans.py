"""Implanted copies of healthy scans on the model grid: what evaluations and the choice of channels are made on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from medgen.config import Config
from medgen.errors import DataError
from medgen.implants.catalogue import check_kinds, registered
from medgen.implants.cohort import first_usable, lesion_masks, read_shape, readable_masks
from medgen.implants.scan import implant
from medgen.seeds import numpy_rng

if TYPE_CHECKING:
    import torch

    from medgen.preprocessing.dataset import Dataset
    from medgen.preprocessing.prepared import PreparedScan

HEALTHY = "healthy"

# No organ is larger; the box around a larger implant would fill the memory.
LARGEST_RADIUS_MM = 200.0


class ImplantConfig(Config):
    """Implants and how they are summarised.

    Attributes:
        kinds: Kinds of implants, see :mod:`medgen.implants.kinds`; test scans take them in turn.
        per_scan: Implanted copies of each healthy test scan, one implant each.
        radius_mm: Smallest and largest radius; drawn uniformly.
        contrasts: Strengths, taken in turn; what a strength is depends on the kind.
        masks: Folder of real lesion masks (any image format, above 0 is lesion) that the kind ``lesion`` takes its form
            from; images in it that are no masks, such as their template, are passed over.
        bootstrap: Resamples of the test subjects behind each interval.
    """

    kinds: tuple[str, ...]
    per_scan: int = Field(ge=1, le=50)
    radius_mm: tuple[float, float] = (6.0, 12.0)
    contrasts: tuple[float, ...] = Field(default=(1.5, 2.5), min_length=1)
    masks: Path | None = None
    bootstrap: int = Field(default=2000, ge=100)

    @field_validator("kinds")
    @classmethod
    def _usable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_kinds(value)
        if not value:
            raise ValueError("expected kinds of implants, found none")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ImplantConfig:
        known = registered()
        shaped = sorted({kind for kind in self.kinds if known[kind].shape})
        if shaped and self.masks is None:
            raise ValueError(f"expected kinds that need no lesion masks, found {shaped}; or set masks to their folder")
        if self.masks is not None and not shaped:
            able = sorted(kind.name for kind in known.values() if kind.shape)
            raise ValueError(f"masks are given, but no kind takes its form from them; add one of {able}")
        if not 0 < self.radius_mm[0] <= self.radius_mm[1] <= LARGEST_RADIUS_MM or min(self.contrasts) <= 0:
            raise ValueError(
                f"radius_mm must be (smallest, largest), above 0 and up to {LARGEST_RADIUS_MM:g}, and contrasts above 0"
            )
        return self

    def check_masks(self) -> None:
        """Refuse, before anything is trained, a folder of masks that implants cannot be made from.

        Raises:
            DataError: If it is no folder, an image in it cannot be read, or none of them is a lesion mask.
        """
        if self.masks is not None:
            shapes = readable_masks(self.masks)
            first_usable(range(len(shapes)), shapes, {})


class EvaluationConfig(ImplantConfig):
    """The implanted test set; see :class:`ImplantConfig`."""

    kinds: tuple[str, ...] = tuple(
        kind.name for kind in registered().values() if not kind.shape and not kind.validation
    )
    per_scan: int = Field(default=3, ge=1, le=50)


class ValidationConfig(ImplantConfig):
    """Implanted development scans on which the fused channels are compared with simpler ones.

    Attributes:
        enabled: Without it the configured fusion is used as it is.
    """

    enabled: bool = True
    kinds: tuple[str, ...] = tuple(kind.name for kind in registered().values() if kind.validation)
    per_scan: int = Field(default=2, ge=1, le=50)
    bootstrap: int = Field(default=1000, ge=100)


@dataclass(frozen=True, eq=False)
class TestScan:
    """A healthy or implanted scan on the model grid, before scoring.

    Attributes:
        name: Unique; the case id for a healthy scan, else with the copy's number and kind.
        case, subject: Case id and subject of the healthy scan.
        kind: ``"healthy"`` or the implant's kind.
        radius_mm, contrast: Radius of the implant in mm and its strength, in the unit of its kind; 0 for healthy.
        image: (c, i, j, k) float32.
        foreground: (1, i, j, k) boolean.
        truth: (i, j, k), voxels changed by the implant.
        prepared: The healthy scan on the model grid, with the way back to its own grid.
    """

    # Not a test, whatever pytest makes of the name.
    __test__ = False

    name: str
    case: str
    subject: str
    kind: str
    radius_mm: float
    contrast: float
    image: torch.Tensor
    foreground: torch.Tensor
    truth: NDArray[np.bool_]
    prepared: PreparedScan


def scans_to_test(
    test: Dataset, training: Dataset, spacing: Sequence[float], config: ImplantConfig, seed: int
) -> Iterator[TestScan]:
    """Every healthy test scan followed by its implanted copies.

    Implants are made in model intensities on the model grid; foreign tissue comes from development scans only. Every
    copy has its own random stream, so adding scans changes nothing for the others. ``lesion`` takes the form of one of
    the masks of the configuration, drawn at random.

    Args:
        test: Held-out healthy scans.
        training: Development scans, the source of foreign tissue.
        spacing: Voxel size of the model grid in mm.
        config: Kinds, sizes, strengths.
        seed: Seed of the run.

    Raises:
        DataError: If no image in the folder of masks is a lesion mask.
    """
    from medgen.preprocessing.dataset import prepared_record

    shapes = [] if config.masks is None else lesion_masks(config.masks)
    usable: dict[Path, bool] = {}
    for number, (case, subject) in enumerate(zip(test.ids, test.subjects, strict=True)):
        image, foreground = test.images[number], test.foregrounds[number].bool()
        mask = foreground[0].cpu().numpy()
        own = prepared_record(test, number, spacing)
        nothing = np.zeros(mask.shape, dtype=bool)
        yield TestScan(case, case, subject, HEALTHY, 0.0, 0.0, image, foreground, nothing, own)
        for copy in range(config.per_scan):
            turn = number * config.per_scan + copy
            kind = config.kinds[turn % len(config.kinds)]
            # A second counter, so that every kind meets every strength however many of each there are.
            contrast = config.contrasts[(turn // len(config.kinds) + copy) % len(config.contrasts)]
            rng = numpy_rng(seed, "implant", case, copy)
            radius = float(rng.uniform(*config.radius_mm))
            needs = registered()[kind]
            other = training.images[int(rng.integers(len(training)))] if needs.foreign else None
            shape = None
            if needs.shape:
                shape = read_shape(first_usable(rng.permutation(len(shapes)).tolist(), shapes, usable))
            try:
                changed, truth = implant_all(image, mask, kind, radius, contrast, spacing, other, rng, shape=shape)
            except DataError as error:
                raise DataError(f"{case}: {error}") from None
            name = f"{case}-implant{copy + 1}-{kind}"
            yield TestScan(name, case, subject, kind, radius, contrast, changed, foreground, truth, own)


def implant_all(
    image: torch.Tensor,
    mask: NDArray[np.bool_],
    kind: str,
    radius: float,
    contrast: float,
    spacing: Sequence[float],
    other: torch.Tensor | None,
    rng: np.random.Generator,
    where: NDArray[np.bool_] | None = None,
    shape: NDArray[np.bool_] | None = None,
) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """The same implant in every channel: one place and form, because every channel starts from the same stream.

    Args:
        image: (c, i, j, k) in model intensities.
        mask: (i, j, k), the foreground.
        kind: Kind of implant, see :mod:`medgen.implants.kinds`.
        radius: Radius in mm.
        contrast: Strength, in the unit of the kind.
        spacing: Voxel sizes in mm.
        other: Foreign tissue, (c, i, j, k), for the kinds that need it.
        rng: Source of randomness.
        where: (i, j, k), the part that the centre may lie in; default: the whole foreground.
        shape: A lesion mask with cubic voxels, for the kinds that take their form from one.

    Returns:
        The changed image (c, i, j, k) and the voxels that changed in any channel, (i, j, k).
    """
    import torch

    state = rng.bit_generator.state
    channels, truth = [], np.zeros(mask.shape, dtype=bool)
    for number, channel in enumerate(image):
        rng.bit_generator.state = state
        foreign = None if other is None else other[number].cpu().numpy()
        done = implant(
            channel.cpu().numpy(),
            mask,
            kind,
            rng,
            radius_mm=radius,
            spacing=spacing,
            contrast=contrast,
            foreign=foreign,
            where=where,
            shape=shape,
        )
        channels.append(torch.from_numpy(done.image))
        truth |= done.mask
    return torch.stack(channels), truth
