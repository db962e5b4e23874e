"""Labelled scans by learned deformation: anatomy from registrations, appearance from low-frequency intensity changes.

Every scan that has labels, its own or inferred ones (:mod:`medgen.synthesis.cohort.consensus`), is registered to other
training scans, labelled or not (Zhao et al., "Data augmentation using
learned transformations for one-shot medical image segmentation", CVPR 2019; Ding et al., 2021). The stationary
velocities are split into each scan's way to the average anatomy and the variation around it, which is a Gaussian on
principal components; exponentials of such sums are diffeomorphisms, so image and labels, warped by one field, keep
fitting each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from medgen.errors import DataError
from medgen.models.stored_arrays import Stored, load_stored, stored_kind
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import numpy_rng, torch_rng
from medgen.segmentation.ensemble import SegmenterEnsemble
from medgen.synthesis.backend import Backend, BackendConfig, FitContext, Synthetic
from medgen.synthesis.estimates import Outline
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, all_cared_for
from medgen.training.cost import Estimate, minutes, stand_in
from medgen.training.trainer import device_of
from medgen.transforms.fields import (
    control_shape,
    expand,
    exponentiate,
    jacobian_minimum,
    warp,
    warp_cubic,
    warp_labels,
)
from medgen.transforms.intensity_matching import restore_contrast
from medgen.transforms.velocity_registration import RegistrationConfig, register

# Added to intensities (about 0 to 1) before the logarithm, so that dark noise does not become a large ratio.
_FLOOR = 0.1
# How much more often a scan with a rare label is moved than one without, at most.
_RARE = 4.0
_ARRAYS = ("images", "labels", "ways", "anatomy", "appearance", "appearance_mean")


class DeformConfig(BackendConfig):
    """Settings of the deformation backend.

    Attributes:
        pairs: Registrations in all, spread evenly over the scans that have labels; at least one for each.
        registration: How two scans are aligned.
        variance: Share of the velocities' variance that the principal components keep.
        strength: Factor on the components' standard deviations; 1 is the variation seen in training.
        approach: How far along its way to the average anatomy a scan is taken, uniform in this range.
        appearance: Factor on the standard deviation of the learned log-intensity change.
        appearance_spacing: Distance of the log-intensity field's control points in voxels, along the finest axis.
        min_jacobian: Smallest Jacobian determinant that is accepted; a field below is shrunk by a fifth at a time.
    """

    pairs: Annotated[int, Field(ge=2)] = 120
    registration: RegistrationConfig = RegistrationConfig()
    variance: Annotated[float, Field(gt=0, le=1)] = 0.95
    strength: Annotated[float, Field(ge=0)] = 1.0
    approach: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 1.0)
    appearance: Annotated[float, Field(ge=0)] = 1.0
    appearance_spacing: Annotated[float, Field(ge=4)] = 12.0
    min_jacobian: Annotated[float, Field(gt=0, lt=1)] = 0.05


@final
class Deform(Backend):
    """The trained backend: scans with labels, their ways to the average anatomy, and two Gaussian models."""

    name: ClassVar[str] = "deform"
    derived: ClassVar[bool] = True
    Config: ClassVar[type[BackendConfig]] = DeformConfig
    tiny: ClassVar[Mapping[str, Any]] = {"pairs": 18, "registration": {"spacing": 6, "iterations": 25, "window": 5}}
    turn: ClassVar[int] = 20

    def __init__(self, stored: Stored, device: str = "auto") -> None:
        if stored.kind != self.name:
            raise DataError(f"expected a {self.name!r} generator, found {stored.kind!r}")
        self._stored = stored
        self._device = device_of(device)
        self._config = DeformConfig.model_validate(stored.meta["config"])
        self._ids: list[str] = list(stored.meta["ids"])
        self._arrays = {name: torch.from_numpy(np.array(stored.arrays[name])) for name in _ARRAYS}
        self._inferred = frozenset(stored.meta["inferred_labels"])
        self._chances = chances(self._arrays["labels"])
        about = stored.meta.get("members")
        self._members = None if about is None else SegmenterEnsemble.from_arrays(stored.arrays, about, device)
        self._sha256 = stored.sha256

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability:
        """For every cohort that has a label left to it."""
        if all_cared_for(outline, cared_for):
            if not all(item.focal for item in outline.facts):
                return Suitability(False, "other backends care for every label")
            return Suitability(False, "every label is focal, and a warped scan has the same lesions as before")
        targets = f" and the {outline.unlabelled} unlabelled ones lend anatomy" if outline.unlabelled else ""
        return Suitability(True, f"labels are right by construction with {outline.labelled} labelled scans{targets}")

    @classmethod
    def fit(cls, sources: Sources, config: DeformConfig, context: FitContext) -> Deform:
        """Register pairs of training scans and fit the two Gaussian models.

        Args:
            sources: Scans with labels, their own or inferred, are moved; all scans of other subjects are targets.
            config: Settings.
            context: Seed, device and callbacks.

        Raises:
            DataError: If there is no pair of different subjects.
        """
        parents, device = sources.pairs, device_of(context.device)
        targets = sources.images
        moving, fixed = choose_pairs(sources, config.pairs, context.seed)
        settings = config.registration
        velocities = register(
            parents.images[moving].to(device),
            targets[fixed].to(device),
            settings,
            voxel=context.preprocess.spacing,
            progress=context.tick,
        ).cpu()
        ways, mean_components = _anatomy(velocities, moving, len(parents), config.variance)
        points = control_shape(parents.shape, config.appearance_spacing, context.preprocess.spacing)
        changes = _intensity_changes(parents.images[moving], targets[fixed], velocities, points, device)
        appearance = _components(changes.flatten(1), config.variance)
        arrays: dict[str, NDArray[Any]] = {
            "images": parents.images.numpy(),
            "labels": _labels(parents).numpy(),
            "ways": ways.numpy(),
            "anatomy": mean_components.numpy(),
            "appearance": appearance.numpy(),
            "appearance_mean": changes.flatten(1).mean(0).numpy(),
        }
        meta = {
            "config": config.model_dump(mode="json"),
            "ids": list(parents.ids),
            "inferred_labels": [] if sources.consensus is None else list(sources.consensus.ids),
            "learnt_from": list(sources.ids),
            "pairs": [[int(a), int(b)] for a, b in zip(moving, fixed, strict=True)],
            "preprocess": context.preprocess.model_dump(mode="json"),
            "contains_patient_scans": True,
        }
        if sources.consensus is not None and sources.members is not None:
            weights, about = sources.members.to_arrays()
            arrays, meta = {**arrays, **weights}, {**meta, "members": about}
        return cls(Stored(cls.name, arrays, meta), context.device)

    @classmethod
    def estimate(cls, config: DeformConfig, outline: Outline, device: str) -> Estimate:
        """Cost of the registrations, from two iterations of two small pairs, and of moving one scan."""
        where, small = device_of(device), stand_in(outline.shape)
        ratio = outline.voxels / math.prod(small)
        image = torch.rand(2, outline.channels, *small, generator=torch.Generator().manual_seed(0)).to(where)
        short = config.registration.model_copy(update={"iterations": 2})
        register(image, image.flip(0), short)
        start = time.perf_counter()
        control = register(image, image.flip(0), short)
        each = (time.perf_counter() - start) / 2 / 2 * config.registration.iterations * ratio
        start = time.perf_counter()
        warp(image[:1], exponentiate(expand(control[:1], small)))
        sample = (time.perf_counter() - start) * ratio
        points = math.prod(control_shape(outline.shape, config.registration.spacing))
        # All velocities twice; the squarings of a batch of pairs at half resolution, kept for the backward pass.
        batch = min(config.pairs, 8 if where.type == "cpu" else 64)
        kept = batch * outline.voxels / 8 * (12 * config.registration.squarings + 20 * outline.channels)
        memory = 4.0 * (2 * 3 * points * config.pairs + kept) + outline.cohort_bytes
        seconds = each * config.pairs
        line = f"deform: {config.pairs} registrations, about {minutes(seconds)}, {memory / 2**20:.0f} MiB"
        return Estimate(seconds, memory, (line,), sample)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the kind in the folder's record."""
        return stored_kind(folder) == cls.name

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Deform:
        """Read a saved backend; see :func:`medgen.models.stored_arrays.load_stored` for the errors."""
        return cls(load_stored(folder), device)

    def save(self, folder: Path) -> None:
        """Write the backend. The folder holds the labelled training scans: treat it like patient data."""
        self._stored.save(folder)

    @property
    def sha256(self) -> str:
        """Digest of arrays and settings."""
        return self._sha256

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Empty: nothing is trained step by step."""
        return ()

    def sample(self, seed: int) -> Synthetic:
        """A labelled scan, moved part of the way to the average anatomy and from there along the learned variation.

        Raises:
            DataError: If no shrinking makes the field invertible, which the exponential rules out but for rounding.
        """
        config, arrays = self._config, self._arrays
        rng = numpy_rng(seed, "deform", "choice")
        parent = int(rng.choice(len(self._ids), p=self._chances))
        approach = float(rng.uniform(min(config.approach), max(config.approach)))
        generator = torch_rng(seed, "deform", "latent")
        anatomy = torch.randn(len(arrays["anatomy"]), generator=generator).clamp(-2.5, 2.5) * config.strength
        appearance = torch.randn(len(arrays["appearance"]), generator=generator).clamp(-2.5, 2.5) * config.appearance
        image, labels = arrays["images"][parent][None], arrays["labels"][parent]
        shape = tuple(image.shape[2:])
        control = approach * arrays["ways"][parent] + torch.tensordot(anatomy, arrays["anatomy"], dims=1)
        displacement, smallest, shrunk = self._field(control[None].to(self._device), shape)
        # What is anatomy is decided by linear interpolation, which cannot overshoot; its values by cubic.
        inside = warp(image.to(self._device), displacement) > 0
        moved = warp_cubic(image.to(self._device), displacement).clamp_min(0) * inside
        moved_labels = warp_labels(labels[None], displacement.cpu())
        before, after = image.to(self._device), moved_labels.to(self._device)
        moved = restore_contrast(moved, after, before, labels[None].to(self._device)).clamp_min(0) * inside
        change = arrays["appearance_mean"] + appearance @ arrays["appearance"]
        points = control_shape(shape, config.appearance_spacing, self._stored.meta["preprocess"]["spacing"])
        change = expand(change.reshape(1, image.shape[1], *points).to(self._device), shape)
        result = ((moved + _FLOOR) * torch.exp(change) - _FLOOR) * (moved > 0)
        made = result.clamp(0, float(arrays["images"].max()))
        again = self._members is not None and self._ids[parent] in self._inferred
        if again and self._members is not None:
            # Inferred labels are no truth that has to move with the image: asking again about the new image is
            # better than moving an answer about the old one.
            moved_labels = self._members.vote(made.cpu())[0]
        facts = {
            "labels": "inferred" if again else "moved",
            "approach": approach,
            "min_jacobian": smallest,
            "shrunk": shrunk,
            "mean_displacement_voxels": float(displacement.square().sum(1).sqrt().mean()),
        }
        return Synthetic(
            image=made[0].cpu().numpy(),
            labels=moved_labels[0, 0].numpy(),
            backend=self.name,
            seed=seed,
            parents=(self._ids[parent],),
            facts=facts,
        )

    def _field(self, control: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, float, int]:
        for attempt in range(20):
            displacement = exponentiate(expand(control * 0.8**attempt, shape))
            smallest = float(jacobian_minimum(displacement))
            if smallest >= self._config.min_jacobian:
                return displacement, smallest, attempt
        raise DataError(f"a sampled field folds (smallest Jacobian determinant {smallest:.3g}); lower deform.strength")


def choose_pairs(sources: Sources, pairs: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows of moving scans in ``sources.pairs``, and of fixed ones among labelled and then unlabelled scans.

    Every scan with labels gets the same number of targets of other subjects, different ones as far as there are.

    Raises:
        DataError: If all scans are of one subject.
    """
    subjects = sources.owners
    parents = sources.pairs
    each = max(pairs // len(parents), 1)
    moving: list[int] = []
    fixed: list[int] = []
    for row, own in enumerate(parents.subjects):
        others = [index for index, subject in enumerate(subjects) if subject != own]
        if not others:
            raise DataError(
                "deformations are learnt between subjects, and the training part has only one; add subjects"
            )
        order = numpy_rng(seed, "deform", "targets", parents.ids[row]).permutation(others)
        fixed += [int(target) for target in order[:each]]
        moving += [row] * min(each, len(others))
    return moving, fixed


def chances(labels: Tensor) -> NDArray[np.float64]:
    """Probability of each scan (n, 1, i, j, k) to be moved: as its rarest label is rare, at most fourfold.

    Where every scan has every label, all are equal.
    """
    flat = labels.flatten(1)
    values = [int(value) for value in torch.unique(flat) if value]
    if not values:
        return np.full(len(flat), 1 / len(flat))
    has = torch.stack([(flat == value).any(dim=1) for value in values], dim=1).numpy()
    rarity = len(flat) / has.sum(axis=0)
    weight = np.where(has, rarity, 1.0).max(axis=1).clip(1, _RARE)
    return weight / weight.sum()


def _labels(parents: Dataset) -> Tensor:
    if parents.labels is None:
        raise DataError("synthesis needs training scans with masks")
    return parents.labels


def _anatomy(velocities: Tensor, moving: list[int], count: int, variance: float) -> tuple[Tensor, Tensor]:
    """Per labelled scan the way to the average anatomy (n, 3, p, q, r), and the components of the rest."""
    rows = torch.tensor(moving)
    ways = torch.zeros(count, *velocities.shape[1:])
    rest = velocities.clone()
    for row in range(count):
        own = velocities[rows == row]
        # A mean over few targets is shrunk towards "stay where you are".
        ways[row] = own.mean(0) * len(own) / (len(own) + 1)
        rest[rows == row] -= ways[row]
    components = _components(rest.flatten(1), variance)
    return ways, components.reshape(len(components), *velocities.shape[1:])


def _components(data: Tensor, variance: float) -> Tensor:
    """Principal components (m, d), each times its standard deviation, that keep a share of the variance."""
    centred = data - data.mean(0)
    # Rows are few and columns many: the small Gram matrix has the same spectrum. In double precision, so that the
    # order of the components does not hang on rounding.
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    total = values.sum()
    if float(total) <= 0:
        return torch.zeros(1, data.shape[1])
    kept = int((torch.cumsum(values, 0) < variance * total).sum()) + 1
    kept = min(kept, len(data) - 1) or 1
    # V = Xᵀ u / √λ has unit length, and the standard deviation along it is √(λ / (n − 1)).
    return (vectors[:, :kept].T.float() @ centred) / max(len(data) - 1, 1) ** 0.5


def _intensity_changes(
    moving: Tensor,
    fixed: Tensor,
    velocities: Tensor,
    points: tuple[int, int, int],
    device: torch.device,
) -> Tensor:
    """Low-frequency log-intensity changes between aligned scans, as control points (pairs, c, p, q, r)."""
    shape = tuple(moving.shape[2:])
    results = []
    for row in range(len(moving)):
        displacement = exponentiate(expand(velocities[row][None].to(device), shape))
        moved, wanted = warp(moving[row][None].to(device), displacement), fixed[row][None].to(device)
        weight = ((moved > 0) & (wanted > 0)).float()
        ratio = (torch.log(wanted.clamp_min(0) + _FLOOR) - torch.log(moved.clamp_min(0) + _FLOOR)) * weight
        # The outermost control points lie outside of the scan and repeat their neighbours.
        inside = (points[0] - 2, points[1] - 2, points[2] - 2)
        sums = functional.adaptive_avg_pool3d(ratio, inside)
        mass = functional.adaptive_avg_pool3d(weight, inside)
        # A prior weight of a tenth: cells without anatomy say nothing.
        results.append(functional.pad(sums / (mass + 0.1), (1,) * 6, mode="replicate").cpu())
    return torch.cat(results)
