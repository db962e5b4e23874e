"""Labels of training scans, moved by learned deformations, with the parent's image moved along for whoever wants it.

Every scan that has labels, its own or inferred ones (:mod:`medgen.synthesis.cohort.consensus`), is registered to other
training scans, labelled or not (Zhao et al., "Data augmentation using
learned transformations for one-shot medical image segmentation", CVPR 2019; Ding et al., 2021). The stationary
velocities are split into each scan's way to the average anatomy and the variation around it, which is a Gaussian on
principal components; exponentials of such sums are diffeomorphisms, so image and labels, warped by one field, keep
fitting each other.

Source: Zhao et al., "Data augmentation using learned transformations for one-shot medical image segmentation", CVPR
2019.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from medgen.config import Config
from medgen.errors import DataError
from medgen.models.sampling import SamplingConfig
from medgen.models.stored_arrays import Stored
from medgen.seeds import numpy_rng, torch_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import Anatomy, LabelSource, Scan
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, all_cared_for
from medgen.synthesis.variation import (
    FLOOR,
    chances,
    choose_pairs,
    components_of,
    intensity_changes,
    ways_and_components,
)
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

_ARRAYS = ("images", "labels", "ways", "anatomy", "appearance", "appearance_mean")
Share = Annotated[float, Field(ge=0, le=1)]


class DeformSampling(SamplingConfig):
    """Settings of moved labels that can be chosen anew at sampling.

    Attributes:
        strength: Factor on the components' standard deviations; 1 is the variation seen in training.
        approach: How far along its way to the average anatomy a scan is taken, uniform in this range.
        appearance: Factor on the standard deviation of the learned log-intensity change.
        min_jacobian: Smallest Jacobian determinant that is accepted; a field below is shrunk by a fifth at a time.
    """

    strength: float = Field(default=1.0, ge=0)
    approach: tuple[Share, Share] = (0.0, 1.0)
    appearance: float = Field(default=1.0, ge=0)
    min_jacobian: float = Field(default=0.05, gt=0, lt=1)


class DeformConfig(DeformSampling):
    """Settings of moved labels; those of :class:`DeformSampling` can be chosen anew at sampling.

    Attributes:
        pairs: Registrations in all, spread evenly over the scans that have labels; at least one for each.
        registration: How two scans are aligned.
        variance: Share of the velocities' variance that the principal components keep.
        appearance_spacing: Distance of the log-intensity field's control points in voxels, along the finest axis.
    """

    pairs: int = Field(default=120, ge=2)
    registration: RegistrationConfig = RegistrationConfig()
    variance: float = Field(default=0.95, gt=0, le=1)
    appearance_spacing: float = Field(default=12.0, ge=4)


@final
class DeformedLabels(LabelSource):
    """Scans with labels, their ways to the average anatomy, and two Gaussian models."""

    name: ClassVar[str] = "deform"
    derived: ClassVar[bool] = True
    brings: ClassVar[Scan] = Scan.MOVED
    Config: ClassVar[type[Config]] = DeformConfig
    Sampling: ClassVar[type[SamplingConfig]] = DeformSampling
    sampling: DeformSampling
    tiny: ClassVar[Mapping[str, Any]] = {"pairs": 18, "registration": {"spacing": 6, "iterations": 25, "window": 5}}
    turn: ClassVar[int] = 20

    def prepare(self) -> None:
        """The settings, the scans and how often each is drawn."""
        self._config = DeformConfig.model_validate(self.stored.meta["config"])
        self._ids: list[str] = list(self.stored.meta["ids"])
        self._arrays = {name: torch.from_numpy(np.array(self.stored.arrays[name])) for name in _ARRAYS}
        self._inferred = frozenset(self.stored.meta["inferred_labels"])
        self._chances = chances(self._arrays["labels"])

    @classmethod
    def settings_in(cls, stored: Stored) -> Mapping[str, Any]:
        """Those of its ``Config``."""
        config: Mapping[str, Any] = stored.meta["config"]
        return config

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
    def fit(cls, sources: Sources, config: DeformConfig, context: FitContext) -> DeformedLabels:
        """Register pairs of training scans and fit the two Gaussian models.

        Args:
            sources: Scans with labels, their own or inferred, are moved; all scans of other subjects are targets.
            config: Settings.
            context: Seed, device and callbacks.

        Raises:
            DataError: If there is no pair of different subjects.
        """
        parents, device = sources.pairs, device_of(context.device)
        if parents.labels is None:
            raise DataError("synthesis needs training scans with masks")
        targets = sources.images
        moving, fixed = choose_pairs(sources, config.pairs, context.seed)
        velocities = register(
            parents.images[moving].to(device),
            targets[fixed].to(device),
            config.registration,
            voxel=context.preprocess.spacing,
            progress=context.tick,
        ).cpu()
        ways, anatomy = ways_and_components(velocities, moving, len(parents), config.variance)
        points = control_shape(parents.shape, config.appearance_spacing, context.preprocess.spacing)
        changes = intensity_changes(parents.images[moving], targets[fixed], velocities, points, device)
        arrays: dict[str, NDArray[Any]] = {
            "images": parents.images.numpy(),
            "labels": parents.labels.numpy(),
            "ways": ways.numpy(),
            "anatomy": anatomy.numpy(),
            "appearance": components_of(changes.flatten(1), config.variance).numpy(),
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
        return cls(cls.record(arrays, meta, {}), device=context.device)

    @classmethod
    def estimate(cls, config: DeformConfig, outline: Outline, device: str, name: str) -> Estimate:
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
        line = f"{name}: {config.pairs} registrations, about {minutes(seconds)}, {memory / 2**20:.0f} MiB"
        return Estimate(seconds, memory, (line,), sample)

    def draw(self, seed: int) -> Anatomy:
        """A labelled scan, moved part of the way to the average anatomy and from there along the learned variation.

        Raises:
            DataError: If no shrinking makes the field invertible, which the exponential rules out but for rounding.
        """
        options, arrays = self.sampling, self._arrays
        rng = numpy_rng(seed, "deform", "choice")
        parent = int(rng.choice(len(self._ids), p=self._chances))
        approach = float(rng.uniform(min(options.approach), max(options.approach)))
        generator = torch_rng(seed, "deform", "latent")
        anatomy = torch.randn(len(arrays["anatomy"]), generator=generator).clamp(-2.5, 2.5) * options.strength
        appearance = torch.randn(len(arrays["appearance"]), generator=generator).clamp(-2.5, 2.5) * options.appearance
        image, labels = arrays["images"][parent][None], arrays["labels"][parent]
        shape = tuple(image.shape[2:])
        control = approach * arrays["ways"][parent] + torch.tensordot(anatomy, arrays["anatomy"], dims=1)
        displacement, smallest, shrunk = self._field(control[None].to(self.device), shape)
        # What is anatomy is decided by linear interpolation, which cannot overshoot; its values by cubic.
        inside = warp(image.to(self.device), displacement) > 0
        moved = warp_cubic(image.to(self.device), displacement).clamp_min(0) * inside
        moved_labels = warp_labels(labels[None], displacement.cpu())
        before, after = image.to(self.device), moved_labels.to(self.device)
        moved = restore_contrast(moved, after, before, labels[None].to(self.device)).clamp_min(0) * inside
        change = arrays["appearance_mean"] + appearance @ arrays["appearance"]
        points = control_shape(shape, self._config.appearance_spacing, self.stored.meta["preprocess"]["spacing"])
        change = expand(change.reshape(1, image.shape[1], *points).to(self.device), shape)
        result = ((moved + FLOOR) * torch.exp(change) - FLOOR) * (moved > 0)
        made = result.clamp(0, float(arrays["images"].max()))[0].cpu()
        facts = {
            "labels": "moved",
            "approach": approach,
            "min_jacobian": smallest,
            "shrunk": shrunk,
            "mean_displacement_voxels": float(displacement.square().sum(1).sqrt().mean()),
        }
        return Anatomy(
            labels=moved_labels[0, 0].numpy(),
            parents=(self._ids[parent],),
            view=(made > 0).any(0).numpy(),
            inferred=self._ids[parent] in self._inferred,
            image=made.numpy(),
            facts=facts,
        )

    def _field(self, control: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, float, int]:
        for attempt in range(20):
            displacement = exponentiate(expand(control * 0.8**attempt, shape))
            smallest = float(jacobian_minimum(displacement))
            if smallest >= self.sampling.min_jacobian:
                return displacement, smallest, attempt
        raise DataError(f"a sampled field folds (smallest Jacobian determinant {smallest:.3g}); lower deform.strength")
