"""New images on given labels by conditional flow matching (family ``flow``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self, final

import torch
from pydantic import Field

from medgen.config import Config
from medgen.models.families.flow import Flow, FlowSampling
from medgen.models.sampling import SamplingConfig
from medgen.seeds import derive, torch_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.cohort.training_pairs import balanced_pairs
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import Anatomy
from medgen.synthesis.networks import build_network, kept_network, train_network
from medgen.synthesis.painter import Painted, Painter, indices
from medgen.synthesis.recipe import completed_by
from medgen.synthesis.sources import Sources
from medgen.training.cost import Estimate
from medgen.training.trainer import TrainingConfig

IMAGE = "image"
# Without augmentation: linear resampling takes a fifth of the detail away that a painter is to learn.
_TRAINING: dict[str, Any] = {"steps": 1600, "lr": 2e-3, "ema": 0.998}


class FlowConfig(FlowSampling):
    """Settings of the flow; those of :class:`~medgen.models.families.flow.FlowSampling` can be chosen anew at sampling.

    Attributes:
        model: Settings of the family ``flow``; ``shape``, ``in_channels`` and ``n_labels`` are filled in.
        training: How it is trained.
        labelled_share: Share of labelled scans among those drawn for training, where there are consensus labels too.
    """

    model: dict[str, Any] = Field(default_factory=dict)
    training: Annotated[TrainingConfig, completed_by(_TRAINING)] = TrainingConfig(**_TRAINING)
    labelled_share: float = Field(default=0.4, ge=0, lt=1)


@final
class FlowPainter(Painter):
    """A trained flow: intensities and all detail are drawn anew, in a style that is drawn for the labels."""

    name: ClassVar[str] = "flow"
    Config: ClassVar[type[Config]] = FlowConfig
    Sampling: ClassVar[type[SamplingConfig]] = FlowSampling
    families: ClassVar[Mapping[str, str]] = {"model": Flow.family}
    tiny: ClassVar[Mapping[str, Any]] = {
        "model": {"widths": (16, 32), "style": 2},
        "solver_steps": 2,
        "training": {"steps": 3, "batch_size": 2, "log_every": 1},
    }

    def prepare(self) -> None:
        """The network."""
        self._painting = self.network(IMAGE, Flow)
        self.sampling = self._painting.sampling

    @classmethod
    def estimate(cls, config: FlowConfig, outline: Outline, device: str, name: str) -> Estimate:
        """Cost of the training; a sample takes two passes for each step of the solver."""
        painted = super().estimate(config, outline, device, name)
        return replace(painted, sample_seconds=Flow.passes(config) * painted.sample_seconds)

    @classmethod
    def fit(cls, sources: Sources, config: FlowConfig, context: FitContext) -> FlowPainter:
        """Train the flow on all scans with labels.

        Raises:
            ConfigError: If a model setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        model = build_network(Flow.family, config.model, sources, context, cls.name)
        model.sampling = FlowSampling.of(config)
        train = balanced_pairs(sources, config.labelled_share)
        result = train_network(model, train, config.training, context, cls.name)
        trained = {IMAGE: kept_network(result, sources, context)}
        meta = {"labels": list(sources.labels), "highest_intensity": float(sources.pairs.images.max())}
        return cls(cls.record({}, meta, trained), trained, result.history, context.device)

    @classmethod
    def labels_seed(cls, seed: int) -> int:
        """A seed of its own."""
        return derive(seed, cls.name, "labels")

    def sampled_by(self, sampling: SamplingConfig) -> Self:
        """The same network, which paints by other options."""
        other = super().sampled_by(sampling)
        other._painting = self._painting.sampled_by(sampling)
        return other

    @torch.no_grad()
    def paint(self, anatomy: Anatomy, seed: int) -> Painted:
        """An image in a style that is drawn for the labels, where the anatomy's scan shows anything."""
        painting, meta = self._painting, self.stored.meta
        labels = indices(anatomy.labels, meta["labels"]).to(self.device)
        style = painting.draw_style(labels, torch_rng(seed, self.name, "style"))
        noise = painting.draw_noise(1, torch_rng(seed, self.name, "noise"))
        view = None if anatomy.view is None else torch.from_numpy(anatomy.view)[None, None].to(self.device)
        with self.precision(IMAGE).autocast():
            image = painting.paint(labels, style, noise, view)[0].float().clamp(0, meta["highest_intensity"])
        return Painted(image.cpu().numpy(), anatomy.labels)
