"""New images on given labels by a GAN with SPADE blocks (family ``spade``), after Park et al., CVPR 2019.

It learns from labelled scans and from unlabelled ones with consensus labels; the style of a sample is another scan's,
perturbed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from medgen.config import Config
from medgen.models import losses
from medgen.models.code_pool import CodePool
from medgen.models.families.spade import Consistency, Spade
from medgen.models.latent import aggregated_posterior
from medgen.models.sampling import SamplingConfig
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive, torch_rng
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.backend import FitContext
from medgen.synthesis.cohort.training_pairs import balanced_pairs
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import Anatomy
from medgen.synthesis.networks import build_network, kept_network, train_network
from medgen.synthesis.painter import Painted, Painter, indices
from medgen.synthesis.recipe import MILD, completed_by
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, needs_gpu
from medgen.training.gan_alarms import AlarmConfig, Watch, alarms
from medgen.training.trainer import TrainingConfig
from medgen.transforms.augmentation import AugmentConfig

IMAGE = "image"
# Scans with less exact zero than this have no air or padding that a sample should have too.
_AIR = 0.02
# At 1e-3 the discriminator does not learn to tell blurred scans from sharp ones, at 3e-4 it does within 30 steps
# (hippocampus, batches of 4); the generator must not run away from it either.
_TRAINING: dict[str, Any] = {
    "steps": 600,
    "lr": 6e-4,
    "lr_discriminator": 0.5,
    "betas": (0.5, 0.99),
    "augment": MILD,
}


class SpadeSampling(SamplingConfig):
    """Settings of the GAN that can be chosen anew at sampling.

    Attributes:
        style_spread: How far a sample's style is from a training scan's: 0 is one, 1 a draw from the Gaussian of all.
    """

    style_spread: float = Field(default=0.6, ge=0, le=1)


class SpadeConfig(SpadeSampling):
    """Settings of the GAN; those of :class:`SpadeSampling` can be chosen anew at sampling.

    Attributes:
        model: Settings of the family ``spade``; ``shape``, ``in_channels`` and ``n_labels`` are filled in.
        training: How it is trained; ``ema`` 0.999 warms up with the number of steps.
        labelled_share: Share of labelled scans among those drawn for training, where there are consensus labels too.
        segmenter: The frozen segmenter of the label-consistency term, trained on the labelled scans only; it does not
            judge the samples later. Null, or a weight ``consistency`` of 0, leaves the term out.
        alarms: When training raises an alarm.
    """

    model: dict[str, Any] = Field(default_factory=dict)
    training: Annotated[TrainingConfig, completed_by(_TRAINING)] = TrainingConfig(**_TRAINING)
    labelled_share: float = Field(default=0.4, ge=0, lt=1)
    segmenter: SegmenterConfig | None = SegmenterConfig(steps=300)
    alarms: AlarmConfig = AlarmConfig()


@final
class SpadePainter(Painter):
    """A trained SPADE generator, with the styles that samples start from."""

    name: ClassVar[str] = "spade"
    Config: ClassVar[type[Config]] = SpadeConfig
    Sampling: ClassVar[type[SamplingConfig]] = SpadeSampling
    sampling: SpadeSampling
    tiny: ClassVar[Mapping[str, Any]] = {
        "model": {"widths": (16, 32), "style": 4, "narrow": 4, "hidden": 8, "discriminator_widths": (16, 16)},
        "training": {"steps": 3, "batch_size": 2, "log_every": 1},
        "segmenter": {"channels": (8, 16), "steps": 3, "batch_size": 2},
    }
    families: ClassVar[Mapping[str, str]] = {"model": Spade.family}
    turn: ClassVar[int] = 30

    def prepare(self) -> None:
        """The network and the styles."""
        self._painting = self.network(IMAGE, Spade)
        self._styles = CodePool.from_arrays(self.stored.arrays, IMAGE)

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability:
        """For machines with a GPU."""
        return needs_gpu(machine)

    @classmethod
    def fit(cls, sources: Sources, config: SpadeConfig, context: FitContext) -> SpadePainter:
        """Train the segmenter of the consistency term, and the GAN.

        Raises:
            ConfigError: If a model setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        painting = build_network(Spade.family, config.model, sources, context, cls.name, IMAGE)
        if not isinstance(painting, Spade):
            raise TypeError("the family 'spade' is of another class")
        if config.segmenter is not None and painting.settings.consistency > 0:
            painting.watch(_consistency(_teacher(sources, config.segmenter, context)))
        watch = Watch(config.training.steps, context.log, config.alarms)
        train = balanced_pairs(sources, config.labelled_share)
        result = train_network(painting, train, config.training, context, cls.name, IMAGE, log=watch)
        painting.watch(None)
        trained = {IMAGE: kept_network(result, sources, context)}
        # A resumed training has logged only its last part; the history is whole.
        raised = alarms(result.history, config.training.steps, config.alarms)
        pairs = sources.pairs
        meta = {
            "labels": list(sources.labels),
            "highest_intensity": float(pairs.images.max()),
            "air_below": _air(pairs),
            "style_spread": config.style_spread,
            "alarms": [asdict(alarm) for alarm in raised],
        }
        styles = _styles(painting, pairs).to_arrays(IMAGE)
        return cls(cls.record(styles, meta, trained), trained, result.history, context.device)

    @torch.no_grad()
    def paint(self, anatomy: Anatomy, seed: int) -> Painted:
        """An image in a perturbed style of a training scan, 0 outside of the parent's field of view if there is one."""
        painting, meta = self._painting, self.stored.meta
        style = self._styles.draw(self.sampling.style_spread, torch_rng(seed, self.name, IMAGE))
        labels = indices(anatomy.labels, meta["labels"]).to(self.device)
        noise = painting.draw_noise(1, torch_rng(seed, self.name, "noise"))
        image = painting.paint(labels, style.to(self.device), noise)[0].clamp(0, meta["highest_intensity"])
        image = torch.where(image < meta["air_below"], 0.0, image)
        # A parent's field of view is known. What it is likely to be the network has learnt itself, with its air.
        if anatomy.parents and anatomy.view is not None:
            image = image * torch.from_numpy(anatomy.view).to(self.device)
        return Painted(image.cpu().numpy().astype(np.float32), anatomy.labels)


def _teacher(sources: Sources, config: SegmenterConfig, context: FitContext) -> Segmenter:
    """A segmenter of the labelled scans only: consensus labels must not confirm themselves."""
    return train_segmenter(
        sources.labelled,
        config,
        derive(context.seed, "spade", "segmenter"),
        labels=sources.labels,
        augmentation=AugmentConfig(),
        device=context.device,
    )


def _consistency(segmenter: Segmenter) -> Consistency:
    """Cross-entropy + 1 − soft Dice of what the frozen segmenter sees in painted scans, by confidence."""
    network = segmenter.network.eval().requires_grad_(False)
    classes = len(segmenter.classes)

    def disagreement(image: Tensor, labels: Tensor, trust: Tensor) -> Tensor:
        scores = network(image).float()
        entropy = functional.cross_entropy(scores, labels[:, 0], reduction="none")[:, None]
        overlap = losses.soft_dice(scores.softmax(1), losses.one_hot(labels, classes), trust)
        return losses.weighted_mean(entropy, trust) + 1 - overlap

    return disagreement


def _styles(model: Spade, pairs: Dataset) -> CodePool:
    means, logvars = model.style_codes(pairs)
    mean, factor = aggregated_posterior(means, logvars)
    return CodePool(means, mean, factor, np.full(len(means), 1 / len(means)))


def _air(pairs: Dataset) -> float:
    """Intensity below which a sample becomes exactly 0, as air and padding of the training scans are; 0 for never.

    Half the first percentile of what is not zero, over all scans.
    """
    values = pairs.images[:: max(1, len(pairs) // 50)].flatten()
    inside = values[values > 0]
    if len(inside) > (1 - _AIR) * len(values) or not len(inside):
        return 0.0
    return float(np.percentile(inside.numpy(), 1)) / 2
