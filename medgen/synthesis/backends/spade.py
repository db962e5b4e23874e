"""Labelled scans in two steps: a VAE draws the labels (family ``maskvae``), a GAN paints them (family ``spade``).

After Skandarani et al., "Generative adversarial networks in cardiology" (2020) and Park et al. 2019. Both learn from
labelled scans and from unlabelled ones with consensus labels. A sample's labels are decoded from a perturbed code of
the training anatomies, chosen so that rare volumes and positions are covered; its style is another scan's, perturbed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from medgen.errors import ArtifactError
from medgen.models import losses
from medgen.models.artifact import TrainedModel
from medgen.models.base import ModelConfig
from medgen.models.catalogue import build, parse_settings
from medgen.models.code_pool import CodePool, coverage_weights, shape_descriptors
from medgen.models.families.maskvae import MaskVae
from medgen.models.families.spade import Consistency, Spade
from medgen.models.latent import aggregated_posterior
from medgen.models.stored_arrays import Stored, load_stored, stored_kind
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Log
from medgen.seeds import derive, torch_rng
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.backend import Backend, BackendConfig, FitContext, Synthetic
from medgen.synthesis.cohort.training_pairs import balanced_pairs, numbered
from medgen.synthesis.estimates import Outline
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, for_new_anatomies
from medgen.training.gan_alarms import Alarm, AlarmConfig, Watch, alarms
from medgen.training.trainer import FitResult, TrainingConfig, device_of, fit
from medgen.transforms.augmentation import AugmentConfig

MASK, IMAGE = "mask", "image"
# Gentle: what the models see is what they will make.
_MILD = AugmentConfig(rotate_degrees=8, scale=(0.92, 1.09), stretch=0.05, elastic=1.0, intensity=0.0)
# Scans with less exact zero than this have no air or padding that a sample should have too.
_AIR = 0.02


_MASK_TRAINING: dict[str, Any] = {"steps": 300, "augment": _MILD}
# At 1e-3 the discriminator does not learn to tell blurred scans from sharp ones, at 3e-4 it does within 30 steps
# (hippocampus, batches of 4); the generator must not run away from it either.
_TRAINING: dict[str, Any] = {
    "steps": 600,
    "lr": 6e-4,
    "lr_discriminator": 0.5,
    "betas": (0.5, 0.99),
    "augment": _MILD,
}


class SpadeConfig(BackendConfig):
    """Settings of the spade backend.

    Attributes:
        mask: Settings of the family ``maskvae``; ``shape`` and ``n_labels`` are filled in.
        mask_training: How it is trained.
        model: Settings of the family ``spade``; ``shape``, ``in_channels`` and ``n_labels`` are filled in.
        training: How it is trained; ``ema`` 0.999 warms up with the number of steps.
        labelled_share: Share of labelled scans among those drawn for training, where there are consensus labels too.
        segmenter: The frozen segmenter of the label-consistency term, trained on the labelled scans only; it does not
            judge the samples later. Null, or a weight ``consistency`` of 0, leaves the term out.
        steering: How far rare volumes and positions are favoured: 0 draws anatomies as often as they occur, 1 covers
            the range as evenly as the scans allow, see :func:`medgen.models.code_pool.coverage_weights`.
        mask_spread: How far a sample's anatomy is from a training anatomy: 0 is one, 1 a draw from the Gaussian of all.
        style_spread: The same for its style.
        alarms: When training raises an alarm.
    """

    mask: dict[str, Any] = Field(default_factory=dict)
    mask_training: TrainingConfig = TrainingConfig(**_MASK_TRAINING)
    model: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig(**_TRAINING)
    labelled_share: float = Field(default=0.4, ge=0, lt=1)
    segmenter: SegmenterConfig | None = SegmenterConfig(steps=300)
    steering: float = Field(default=0.5, ge=0, le=1)
    mask_spread: float = Field(default=0.6, ge=0, le=1)
    style_spread: float = Field(default=0.6, ge=0, le=1)
    alarms: AlarmConfig = AlarmConfig()

    @field_validator("mask_training", mode="before")
    @classmethod
    def _mask_recipe(cls, given: Any) -> Any:
        return {**_MASK_TRAINING, **given} if isinstance(given, Mapping) else given

    @field_validator("training", mode="before")
    @classmethod
    def _recipe(cls, given: Any) -> Any:
        # Naming the steps must not take the rest of the recipe away.
        return {**_TRAINING, **given} if isinstance(given, Mapping) else given


@final
class SpadeBackend(Backend):
    """A trained pair of mask VAE and SPADE generator, with the codes that samples start from."""

    name: ClassVar[str] = "spade"
    derived: ClassVar[bool] = False
    Config: ClassVar[type[BackendConfig]] = SpadeConfig
    tiny: ClassVar[Mapping[str, Any]] = {
        "mask": {"widths": (16, 32), "latent": 4, "components": 3, "narrow": 4},
        "mask_training": {"steps": 3, "batch_size": 2, "log_every": 1},
        "model": {"widths": (16, 32), "style": 4, "narrow": 4, "hidden": 8, "discriminator_widths": (16, 16)},
        "training": {"steps": 3, "batch_size": 2, "log_every": 1},
        "segmenter": {"channels": (8, 16), "steps": 3, "batch_size": 2},
    }
    families: ClassVar[Mapping[str, str]] = {"mask": MaskVae.family, "model": Spade.family}
    turn: ClassVar[int] = 30

    def __init__(
        self, mask: TrainedModel, image: TrainedModel, stored: Stored, history: Sequence[Mapping[str, float]] = ()
    ) -> None:
        drawing, painting = mask.models[0], image.models[0]
        if not isinstance(drawing, MaskVae) or not isinstance(painting, Spade):
            raise ArtifactError("expected a model of the family 'maskvae' and one of the family 'spade'")
        meta = stored.meta
        self._mask, self._image, self._stored = mask, image, stored
        self._drawing, self._painting = drawing, painting
        self._shapes = CodePool.from_arrays(stored.arrays, MASK, float(meta["mask_spread"]))
        self._styles = CodePool.from_arrays(stored.arrays, IMAGE, float(meta["style_spread"]))
        self._numbers = torch.tensor([0, *meta["labels"]], dtype=torch.uint8)
        self._alarms = tuple(Alarm(**entry) for entry in meta["alarms"])
        self._history = tuple(history)

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """For many scans and a GPU."""
        return for_new_anatomies(outline, machine, cared_for)

    @classmethod
    def fit(cls, sources: Sources, config: SpadeConfig, context: FitContext) -> SpadeBackend:
        """Train the mask VAE, the segmenter of the consistency term, and the GAN.

        Raises:
            ConfigError: If a model setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        train = balanced_pairs(sources, config.labelled_share)
        known: dict[str, Any] = {"in_channels": train.channels, "shape": train.shape, "n_labels": len(sources.labels)}
        drawing = build(mask_settings(config, known), seed=derive(context.seed, "spade", MASK, "weights"))
        painting = build(image_settings(config, known), seed=derive(context.seed, "spade", IMAGE, "weights"))
        if not isinstance(drawing, MaskVae) or not isinstance(painting, Spade):
            raise TypeError("the families 'maskvae' and 'spade' are of other classes")
        masks = _train(drawing, train, config.mask_training, context, MASK, _prefixed(context.log, MASK))
        if config.segmenter is not None and painting.settings.consistency > 0:
            painting.watch(_consistency(_teacher(sources, config.segmenter, context)))
        watch = Watch(config.training.steps, context.log, config.alarms)
        images = _train(painting, train, config.training, context, IMAGE, watch)
        painting.watch(None)
        # A resumed training has logged only its last part; the history is whole.
        raised = alarms(images.history, config.training.steps, config.alarms)
        for model in (drawing, painting):
            model.to("cpu")
        pairs = sources.pairs
        seen = numbered(pairs, sources.labels)
        arrays = {
            **_shapes(drawing, seen, sources, config).to_arrays(MASK),
            **_styles(painting, pairs, config).to_arrays(IMAGE),
        }
        meta = {
            "labels": list(sources.labels),
            "learnt_from": list(pairs.ids),
            "highest_intensity": float(pairs.images.max()),
            "air_below": _air(pairs),
            "mask_spread": config.mask_spread,
            "style_spread": config.style_spread,
            "alarms": [asdict(alarm) for alarm in raised],
            "mask_dice": masks.history[-1].get("dice"),
        }
        facts = {"kind": "synthesis", "labels": list(sources.labels), "learnt_from": list(pairs.ids)}
        mask = TrainedModel([drawing], context.preprocess, meta={**facts, "steps": masks.steps})
        image = TrainedModel([painting], context.preprocess, meta={**facts, "steps": images.steps})
        parts = {MASK: mask.sha256, IMAGE: image.sha256}
        return cls(mask, image, Stored(cls.name, arrays, {**meta, "parts": parts}), images.history)._on(
            device_of(context.device)
        )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether the folder's record was written by this backend."""
        return stored_kind(folder) == cls.name

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> SpadeBackend:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: If a part is missing, altered, or not the one that belongs to the others.
        """
        stored = load_stored(folder)
        mask, image = TrainedModel.load(folder / MASK), TrainedModel.load(folder / IMAGE)
        stored.check_parts(folder, {MASK: mask.sha256, IMAGE: image.sha256})
        return cls(mask, image, stored)._on(device_of(device))

    def save(self, folder: Path) -> None:
        """Write ``mask/`` and ``image/``, the codes, and last the record with their hashes."""
        self._mask.save(folder / MASK)
        self._image.save(folder / IMAGE)
        self._stored.save(folder)

    @property
    def sha256(self) -> str:
        """Digest of the record, which covers codes and both models."""
        return self._stored.sha256

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Records of the GAN's training; empty after loading."""
        return self._history

    @property
    def alarms(self) -> Sequence[Alarm]:
        """What went wrong in training; kept with the weights."""
        return self._alarms

    @torch.no_grad()
    def sample(self, seed: int) -> Synthetic:
        """Labels decoded from a perturbed code of the training anatomies, painted in a perturbed style."""
        device = self._painting.mean.device
        shape = self._shapes.draw(torch_rng(seed, "spade", MASK))
        style = self._styles.draw(torch_rng(seed, "spade", IMAGE))
        labels = self._drawing.labels_of(shape.to(device))
        noise = self._painting.draw_noise(1, torch_rng(seed, "spade", "noise"))
        image = self._painting.paint(labels, style.to(device), noise)[0].clamp(
            0, self._stored.meta["highest_intensity"]
        )
        image = torch.where(image < self._stored.meta["air_below"], 0.0, image)
        facts = {"alarms": [alarm.name for alarm in self._alarms]} if self._alarms else {}
        return Synthetic(
            image=image.cpu().numpy().astype(np.float32),
            labels=self._numbers[labels[0, 0].cpu()].numpy(),
            backend=self.name,
            seed=seed,
            facts=facts,
        )

    def _on(self, device: torch.device) -> SpadeBackend:
        for model in (self._drawing, self._painting):
            model.to(device).eval()
        return self


def mask_settings(config: SpadeConfig, known: Mapping[str, Any]) -> ModelConfig:
    """Settings of the mask VAE; ``known`` are ``in_channels``, ``shape`` and ``n_labels``.

    Raises:
        ConfigError: If a model setting is unknown or wrong.
    """
    return parse_settings({**config.mask, "family": MaskVae.family, **known})


def image_settings(config: SpadeConfig, known: Mapping[str, Any]) -> ModelConfig:
    """Settings of the SPADE model; as :func:`mask_settings`."""
    return parse_settings({**config.model, "family": Spade.family, **known})


def _train(
    model: MaskVae | Spade, train: Dataset, config: TrainingConfig, context: FitContext, part: str, log: Log | None
) -> FitResult:
    return fit(
        model,
        train,
        config,
        seed=derive(context.seed, "spade", part),
        device=context.device,
        out=None if context.out is None else context.out / part,
        resume=context.resume,
        log=log,
        title=f"spade: {part}",
        progress=context.progress,
    )


def _prefixed(log: Log | None, prefix: str) -> Log | None:
    if log is None:
        return None

    def prefixed(numbers: dict[str, float], step: int) -> None:
        log({f"{prefix}/{name}": value for name, value in numbers.items()}, step)

    return prefixed


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


def _shapes(model: MaskVae, pairs: Dataset, sources: Sources, config: SpadeConfig) -> CodePool:
    means, logvars = model.codes(pairs)
    mean, factor = aggregated_posterior(means, logvars)
    if pairs.labels is None:
        raise TypeError("pairs carry labels")
    described = shape_descriptors(pairs.labels, range(1, len(sources.labels) + 1))
    return CodePool(means, mean, factor, coverage_weights(described, config.steering), config.mask_spread)


def _styles(model: Spade, pairs: Dataset, config: SpadeConfig) -> CodePool:
    means, logvars = model.style_codes(pairs)
    mean, factor = aggregated_posterior(means, logvars)
    return CodePool(means, mean, factor, np.full(len(means), 1 / len(means)), config.style_spread)


def _air(pairs: Dataset) -> float:
    """Intensity below which a sample becomes exactly 0, as air and padding of the training scans are; 0 for never.

    Half the first percentile of what is not zero, over all scans.
    """
    values = pairs.images[:: max(1, len(pairs) // 50)].flatten()
    inside = values[values > 0]
    if len(inside) > (1 - _AIR) * len(values) or not len(inside):
        return 0.0
    return float(np.percentile(inside.numpy(), 1)) / 2
