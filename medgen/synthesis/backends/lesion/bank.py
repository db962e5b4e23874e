"""Settings of the lesion backend, and what it keeps of the training scans: hosts, lesions, places, styles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from medgen.errors import DataError
from medgen.models.families.inpaint import dilate, fill_holes, measure_style
from medgen.models.sampling import SamplingConfig
from medgen.models.stored_arrays import Stored
from medgen.preprocessing.dataset import Dataset
from medgen.synthesis.backend import BackendConfig
from medgen.synthesis.backends.lesion import forms as lesions
from medgen.synthesis.cohort.label_facts import focal_labels
from medgen.synthesis.sources import Sources
from medgen.training.trainer import TrainingConfig
from medgen.transforms.augmentation import AugmentConfig

Labels = NDArray[np.uint8]
Share = Annotated[float, Field(ge=0, le=1)]

_MILD = AugmentConfig(
    flip=(0.5, 0.5, 0.5), rotate_degrees=15, scale=(0.9, 1.1), translate=1.0, elastic=1.0, intensity=0.0
)


def _steps(steps: int, batch_size: int, augment: AugmentConfig | None) -> TrainingConfig:
    return TrainingConfig(steps=steps, batch_size=batch_size, betas=(0.5, 0.99), ema=0.99, augment=augment)


class LesionSampling(SamplingConfig):
    """Settings of the lesion backend that can be chosen anew at sampling.

    Attributes:
        contrast: Factor on the variation of lesions' intensities; 1 is that of the real ones.
        most: Most lesions added to a scan; how many follows the real scans' numbers.
        overlap: Whether a new lesion may lie on an existing one.
        inside: Least share of a lesion that must lie in the foreground.
    """

    contrast: float = Field(default=1.0, ge=0)
    most: int = Field(default=3, ge=1)
    overlap: bool = False
    inside: Share = 0.95


class LesionConfig(LesionSampling, BackendConfig):
    """Settings of the lesion backend; those of :class:`LesionSampling` can be chosen anew at sampling.

    Attributes:
        lesion_labels: Labels that are focal disease; null guesses them (:mod:`medgen.synthesis.cohort.label_facts`),
            and takes all if none looks focal.
        smallest: Voxels below which a connected component is no lesion.
        context: Voxels around a lesion that its crop shows.
        largest_crop: Longest side of the crop in voxels; larger lesions are not learnt from.
        shapes_from: Lesions from which on a VAE-GAN of forms is trained; below, forms are warped real lesions.
        variants: Warped copies of each lesion that the VAE-GAN learns from.
        warp: Strength of these warps, as a share of the crop's shortest side.
        shapes: Settings of the family ``vaegan``; shape and channels are filled in.
        shapes_training: How it is trained.
        truncation: Voxels at which signed distances are cut off.
        inpaint: Settings of the family ``inpaint``; shape, channels and labels are filled in.
        inpaint_training: How it is trained.
        healthy_crops: Crops without lesion per scan, labelled or not, that inpainting learns from.
        unlabelled_hosts: Which unlabelled scans get lesions. ``consensus``: those with credible inferred labels;
            ``healthy``: all, because you know that they have none of the labelled lesions (only where every label is
            focal: an unlabelled organ would be taught as background); ``none``.
        host_confidence: Mean confidence in the foreground that a scan with inferred labels must have.
    """

    lesion_labels: tuple[Annotated[int, Field(ge=1, le=255)], ...] | None = None
    smallest: int = Field(default=4, ge=1)
    context: int = Field(default=6, ge=2)
    largest_crop: int = Field(default=64, ge=16)
    shapes_from: int = Field(default=20, ge=3)
    variants: int = Field(default=8, ge=1)
    warp: float = Field(default=0.04, ge=0, le=0.2)
    shapes: dict[str, Any] = Field(default_factory=lambda: {"widths": (16, 32, 64), "latent": 32})
    shapes_training: TrainingConfig = Field(default_factory=lambda: _steps(400, 8, None))
    truncation: int = Field(default=4, ge=1, le=11)
    inpaint: dict[str, Any] = Field(default_factory=dict)
    inpaint_training: TrainingConfig = Field(default_factory=lambda: _steps(600, 4, _MILD))
    healthy_crops: int = Field(default=2, ge=0)
    unlabelled_hosts: Literal["consensus", "healthy", "none"] = "consensus"
    host_confidence: Share = 0.9

    @field_validator("lesion_labels")
    @classmethod
    def _some(cls, labels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if labels is not None and (not labels or len(set(labels)) != len(labels)):
            raise ValueError("expected different label numbers, or null to guess")
        return labels


@dataclass(frozen=True, eq=False)
class Bank:
    """What is kept of the training scans.

    Attributes:
        labels: Lesion label numbers; the n-th has index n + 1.
        crop: Shape of the networks' crops.
        host_ids: Case ids of the hosts.
        host_images: Model intensities, (n, c, i, j, k).
        host_labels: Label numbers, (n, i, j, k).
        host_foregrounds: Anatomy, (n, i, j, k).
        host_counts: Lesions each host has already.
        forms: Real lesions in the middle of a crop, (m, *crop) indices.
        form_ids: Case id of each form.
        centres: Rows of the labelled scans and middle voxel of each lesion, (m, 4), for training; not kept.
        counts: Lesions per scan, of the scans that have some.
        places: Where lesions occur.
        styles: Style and, last, filling of each real lesion, (m, d), see :func:`conditional_style`.
    """

    labels: tuple[int, ...]
    crop: lesions.Shape
    host_ids: tuple[str, ...]
    host_images: NDArray[np.float32]
    host_labels: Labels
    host_foregrounds: NDArray[np.bool_]
    host_counts: tuple[int, ...]
    forms: Labels
    form_ids: tuple[str, ...]
    centres: NDArray[np.int_]
    counts: tuple[int, ...]
    places: lesions.Places
    styles: NDArray[np.float32]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays for :class:`~medgen.models.stored_arrays.Stored`."""
        return {
            "host_images": self.host_images,
            "host_labels": self.host_labels,
            "host_foregrounds": self.host_foregrounds.astype(np.uint8),
            "forms": self.forms,
            "centroids": self.places.centroids,
            "styles": self.styles,
        }

    @property
    def meta(self) -> dict[str, Any]:
        """The facts that are stored as JSON beside the arrays."""
        return {
            "lesion_labels": list(self.labels),
            "crop": list(self.crop),
            "hosts": list(self.host_ids),
            "host_counts": list(self.host_counts),
            "form_ids": list(self.form_ids),
            "counts": list(self.counts),
            "surroundings": list(self.places.surroundings),
        }

    @classmethod
    def of(cls, stored: Stored) -> Bank:
        """Back from :attr:`arrays` and :attr:`meta`."""
        arrays, meta = stored.arrays, stored.meta
        i, j, k = meta["crop"]
        return cls(
            labels=tuple(meta["lesion_labels"]),
            crop=(i, j, k),
            host_ids=tuple(meta["hosts"]),
            host_images=np.array(arrays["host_images"]),
            host_labels=np.array(arrays["host_labels"]),
            host_foregrounds=np.array(arrays["host_foregrounds"]).astype(bool),
            host_counts=tuple(meta["host_counts"]),
            forms=np.array(arrays["forms"]),
            form_ids=tuple(meta["form_ids"]),
            centres=np.zeros((0, 4), dtype=int),
            counts=tuple(meta["counts"]),
            places=lesions.Places(np.array(arrays["centroids"]), tuple(meta["surroundings"])),
            styles=np.array(arrays["styles"]),
        )


def build_bank(sources: Sources, config: LesionConfig) -> Bank:
    """Find the lesions of the labelled scans and choose the hosts.

    Raises:
        DataError: If a label is not in use, there is no lesion, none fits a crop, or unlabelled scans are declared
            healthy though there are labels that are not focal.
    """
    data = sources.labelled
    labels = config.lesion_labels or focal_labels(data, sources.labels) or sources.labels
    strange = sorted(set(labels) - set(sources.labels))
    if strange:
        raise DataError(
            f"lesion.lesion_labels: label {strange[0]} is not in use; expected some of "
            f"{', '.join(map(str, sources.labels))}"
        )
    found = lesions.find_lesions(data, labels, config.smallest)
    if not found:
        raise DataError(
            f"no lesion of at least {config.smallest} voxels is in the {len(data)} labelled training scans; "
            "lower lesion.smallest, or use a finer preprocess.spacing"
        )
    inpaint_margin = int(config.inpaint.get("margin", 2))
    crop = lesions.crop_shape(found, config.context, data.shape, config.largest_crop)
    centred = [lesions.centred(lesion.labels, crop) for lesion in found]
    kept = [(lesion, form) for lesion, form in zip(found, centred, strict=True) if form is not None]
    if not kept:
        raise DataError(
            f"every lesion is larger than a crop of {' x '.join(map(str, crop))} voxels; raise lesion.largest_crop, "
            "or use the backend deform for labels of this size"
        )
    per_scan = np.bincount([lesion.row for lesion in found], minlength=len(data))
    hosts, host_counts = _hosts(sources, labels, config, per_scan.tolist())
    surroundings = {lesion.surrounding for lesion in found}
    return Bank(
        labels=tuple(int(label) for label in labels),
        crop=crop,
        host_ids=hosts.ids,
        host_images=hosts.images.numpy(),
        host_labels=_labels(hosts)[:, 0].numpy(),
        host_foregrounds=hosts.foregrounds[:, 0].numpy(),
        host_counts=host_counts,
        forms=np.stack([form for _, form in kept]),
        form_ids=tuple(data.ids[lesion.row] for lesion, _ in kept),
        centres=np.array([[lesion.row, *lesion.centre] for lesion, _ in kept]),
        counts=tuple(int(n) for n in per_scan if n),
        places=lesions.Places(np.array([lesion.place for lesion in found]), tuple(sorted(surroundings))),
        styles=_styles(data, labels, kept, crop, inpaint_margin),
    )


def _hosts(
    sources: Sources, labels: tuple[int, ...], config: LesionConfig, counts: list[int]
) -> tuple[Dataset, tuple[int, ...]]:
    """Scans that get lesions, all with labels, and how many lesions each has."""
    from medgen.preprocessing.dataset import join

    parts, known = [sources.labelled], list(counts)
    if config.unlabelled_hosts == "healthy" and sources.unlabelled is not None:
        organs = sorted(set(sources.labels) - set(labels))
        if organs:
            raise DataError(
                f"lesion.unlabelled_hosts=healthy: label {organs[0]} is no lesion label, and unlabelled scans would "
                "teach it as background; use consensus or none"
            )
        empty = torch.zeros_like(sources.unlabelled.foregrounds, dtype=torch.uint8)
        parts.append(_with_labels(sources.unlabelled, empty))
        known += [0] * len(sources.unlabelled)
    elif config.unlabelled_hosts == "consensus" and sources.consensus is not None:
        trusted = _trusted(sources.consensus, config.host_confidence)
        if trusted:
            chosen = sources.consensus.subset(trusted)
            parts.append(_with_labels(chosen, _labels(chosen)))
            found = lesions.find_lesions(chosen, labels, config.smallest)
            known += np.bincount([lesion.row for lesion in found], minlength=len(chosen)).tolist()
    return join(parts), tuple(int(n) for n in known)


def _with_labels(data: Dataset, labels: torch.Tensor) -> Dataset:
    return Dataset(data.ids, data.subjects, data.images, data.foregrounds, labels)


def _trusted(data: Dataset, least: float) -> list[str]:
    """Ids of the scans whose mean confidence in the foreground is at least ``least``."""
    if data.confidence is None:
        return []
    inside = data.foregrounds.float()
    mean = (data.confidence.float() / 255 * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp_min(1)
    return [name for name, value in zip(data.ids, mean.tolist(), strict=True) if value >= least]


def _labels(data: Dataset) -> torch.Tensor:
    if data.labels is None:
        raise DataError("synthesis needs training scans with masks")
    return data.labels


def _styles(
    data: Dataset,
    labels: tuple[int, ...],
    kept: list[tuple[lesions.Lesion, Labels]],
    crop: lesions.Shape,
    margin: int,
) -> NDArray[np.float32]:
    """Style of each real lesion (n_labels + 1, 2c), flattened, and the smooth filling's mean inside it (c)."""
    rows = []
    numbers = _labels(data)
    for lesion, _ in kept:
        box = lesions.window(lesion.centre, crop, data.shape)
        where = (slice(None), *box)
        image = data.images[lesion.row][where][None]
        index = torch.from_numpy(lesions.lesion_indices(numbers[lesion.row, 0][box].numpy(), labels))[None, None]
        inside = (index > 0).float()
        hole = dilate(inside, margin) * data.foregrounds[lesion.row][where][None]
        filling = fill_holes(image, 1 - hole)
        style = measure_style(image, hole, index.long(), len(labels), filling)
        level = (filling * inside).sum((2, 3, 4)) / inside.sum().clamp_min(1)
        rows.append(torch.cat([style.flatten(), level.flatten()]))
    return torch.stack(rows).numpy()


def conditional_style(
    styles: NDArray[np.float32], level: NDArray[np.float32], strength: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A style for a place with a given smooth filling: a draw from a Gaussian, conditioned on the filling.

    Lesions have rather an intensity than a contrast of their own: what they differ by depends on the tissue around.
    The regression of style on filling is shrunk by a prior weight of five lesions, so that few lesions give their
    mean style.

    Args:
        styles: (m, d), the last len(level) columns are fillings; see :class:`Bank`.
        level: (c,), mean filling at the place.
        strength: Factor on the draw's deviation; 0 gives the expectation.
        rng: Source of randomness.

    Returns:
        (d − c,) float32.
    """
    c, m = len(level), len(styles)
    mean = styles.mean(axis=0)
    deviation = styles - mean
    own, around = deviation[:, :-c], deviation[:, -c:]
    prior = 5 / m * np.diag((around**2).sum(axis=0)) + 1e-6 * np.eye(c)
    slope = np.linalg.solve(around.T @ around + prior, around.T @ own)
    rest = own - around @ slope
    if m > 2:
        draw = rng.standard_normal(m).clip(-2.5, 2.5) @ rest / np.sqrt(m - 1)
    else:
        # One or two lesions have no spread of their own: a tenth of what they are.
        draw = 0.1 * rng.standard_normal(own.shape[1]).clip(-2.5, 2.5) * np.abs(mean[:-c])
    result: NDArray[np.float32] = (mean[:-c] + (level - mean[-c:]) @ slope + strength * draw).astype(np.float32)
    return result
