"""A real scan, changed where a lesion was added to its labels (family ``inpaint``), and nowhere else.

A conditional GAN fills a hole in the scan, given what lies around it, in the manner of GliGAN (Ferreira et al. 2024).
Outside of the lesion's feathered border the scan is the host's, voxel for voxel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from medgen.config import Config
from medgen.errors import DataError
from medgen.models.base import ModelConfig
from medgen.models.catalogue import build, parse_settings
from medgen.models.families.inpaint import Inpaint, fill_holes
from medgen.models.sampling import SamplingConfig
from medgen.seeds import derive, torch_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.estimates import Outline, network_estimate
from medgen.synthesis.label_source import Added, Anatomy, Scan
from medgen.synthesis.lesions.crops import conditional_style, lesion_styles, training_crops
from medgen.synthesis.lesions.focal import FocalConfig, expected_lesions, focal_lesions
from medgen.synthesis.lesions.forms import Shape
from medgen.synthesis.networks import kept_network, train_network
from medgen.synthesis.painter import Painted, Painter, indices
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability
from medgen.training.cost import Estimate
from medgen.training.trainer import TrainingConfig
from medgen.transforms.augmentation import AugmentConfig

INPAINT = "inpaint"
_MILD = AugmentConfig(
    flip=(0.5, 0.5, 0.5), rotate_degrees=15, scale=(0.9, 1.1), translate=1.0, elastic=1.0, intensity=0.0
)


class InpaintSampling(SamplingConfig):
    """Settings of painted lesions that can be chosen anew at sampling.

    Attributes:
        contrast: Factor on the variation of lesions' intensities; 1 is that of the real ones.
    """

    contrast: float = Field(default=1.0, ge=0)


class InpaintConfig(InpaintSampling, FocalConfig):
    """Settings of painted lesions; those of :class:`InpaintSampling` can be chosen anew at sampling.

    Attributes:
        inpaint: Settings of the family ``inpaint``; shape, channels, labels and margin are filled in.
        inpaint_training: How it is trained.
        healthy_crops: Crops without lesion per scan, labelled or not, that it learns from.
    """

    inpaint: dict[str, Any] = Field(default_factory=dict)
    inpaint_training: TrainingConfig = TrainingConfig(
        steps=600, batch_size=4, betas=(0.5, 0.99), ema=0.99, augment=_MILD
    )
    healthy_crops: int = Field(default=2, ge=0)

    @field_validator("inpaint")
    @classmethod
    def _one_margin(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "margin" in given:
            raise ValueError("margin is a setting of the lesions: write it beside inpaint, not in it")
        return given


@final
class InpaintPainter(Painter):
    """A trained network that fills holes, with the styles of the real lesions."""

    name: ClassVar[str] = "inpaint"
    starts_from: ClassVar[Scan] = Scan.HOST
    Config: ClassVar[type[Config]] = InpaintConfig
    Sampling: ClassVar[type[SamplingConfig]] = InpaintSampling
    sampling: InpaintSampling
    families: ClassVar[Mapping[str, str]] = {INPAINT: Inpaint.family}
    tiny: ClassVar[Mapping[str, Any]] = {
        "inpaint": {"widths": (16, 32), "discriminator_widths": (16, 16)},
        "inpaint_training": {"steps": 2, "batch_size": 2, "log_every": 1},
        "margin": 1,
    }
    turn: ClassVar[int] = 10

    def prepare(self) -> None:
        """The network."""
        self._painting = self.network(INPAINT, Inpaint)

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability:
        """Always."""
        return Suitability(True, "")

    @classmethod
    def estimate(cls, config: InpaintConfig, outline: Outline, device: str, name: str) -> Estimate:
        """Cost of the network; a sample has about as many lesions as a real scan."""
        crop, labels, facts = expected_lesions(config, outline)
        settings = _settings(config, crop, outline.channels, labels)
        total = network_estimate(f"{name}, inpaint", settings, config.inpaint_training, device, labels)
        each = sum(item.parts for item in facts) / max(outline.labelled, 1)
        return replace(total, sample_seconds=total.sample_seconds * max(each, 1.0))

    @classmethod
    def fit(cls, sources: Sources, config: InpaintConfig, context: FitContext) -> InpaintPainter:
        """Train the network on crops with and without lesions, and measure how real lesions look.

        Raises:
            DataError: If there is no lesion to learn from, or a label is not in use.
            ConfigError: If a network's setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        focal = focal_lesions(sources, config)
        crops = training_crops(sources, focal, config.healthy_crops, context.seed)
        settings = _settings(config, focal.crop, crops.channels, len(focal.labels))
        model = build(settings, seed=derive(context.seed, "lesion", INPAINT, "weights"))
        result = train_network(model, crops, config.inpaint_training, context, "lesion", INPAINT)
        trained = {INPAINT: kept_network(result, sources, context)}
        meta = {
            "lesion_labels": list(focal.labels),
            "contrast": config.contrast,
            "highest_intensity": float(sources.pairs.images.max()),
        }
        arrays = {"styles": lesion_styles(sources.labelled, focal, config.margin)}
        return cls(cls.record(arrays, meta, trained), trained, result.history, context.device)

    @torch.no_grad()
    def paint(self, anatomy: Anatomy, seed: int) -> Painted:
        """The scan of the anatomy with every lesion painted that was added to it.

        Raises:
            DataError: If no scan comes with it.
        """
        if anatomy.image is None:
            raise DataError("the painter 'inpaint' needs lesions that were added to a scan, such as those of 'lesion'")
        image = anatomy.image.copy()
        for number, lesion in enumerate(anatomy.added):
            where = (slice(None), *lesion.window)
            here, weight = image[where], lesion.weight
            drawn = self._draw(here, lesion, seed, number)
            mixed = here + weight * (drawn - here)
            image[where] = np.where(weight > 0, mixed.clip(0, self.stored.meta["highest_intensity"]), here)
        return Painted(image, anatomy.labels, {"changed_voxels": int(anatomy.region.sum())})

    def _draw(self, image: NDArray[np.float32], lesion: Added, seed: int, number: int) -> NDArray[np.float32]:
        """Intensities for the window of a lesion, (c, p, q, r)."""
        x = torch.from_numpy(np.ascontiguousarray(image))[None]
        gap = torch.from_numpy((lesion.weight > 0).astype(np.float32))[None, None]
        level = fill_holes(x, 1 - gap)[0, :, torch.from_numpy(lesion.new)].mean(dim=1).numpy()
        style = conditional_style(self.stored.arrays["styles"], level, self.sampling.contrast, lesion.looks)
        wanted = torch.from_numpy(style).reshape(1, self._painting.settings.n_labels + 1, 2 * len(level))
        # Standard deviations: a Gaussian's tail may be negative.
        wanted[..., len(level) :].clamp_(min=0)
        labels = indices(lesion.labels, self.stored.meta["lesion_labels"])
        generator = torch_rng(seed, "lesion", "texture", number)
        x, gap, labels, wanted = (item.to(self.device) for item in (x, gap, labels, wanted))
        filled: NDArray[np.float32] = self._painting.inpaint(x, gap, labels, wanted, generator)[0].cpu().numpy()
        return filled


def _settings(config: InpaintConfig, crop: Shape, channels: int, labels: int) -> ModelConfig:
    """Settings of the network that draws intensities.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """
    known = {"family": Inpaint.family, "in_channels": channels, "shape": crop, "n_labels": labels}
    return parse_settings({**config.inpaint, **known, "margin": config.margin})
