"""Labels that a VAE draws (family ``maskvae``).

After Skandarani et al., "Generative adversarial networks in cardiology" (2020). It learns from labelled scans and from
unlabelled ones with consensus labels. A drawn anatomy is decoded from a perturbed code of the training anatomies,
chosen so that rare volumes and positions are covered. Where its volumes and positions lie outside of those that one
more real anatomy would have, another is drawn: a decoder paints what it has not learnt, too (truncation, as Brock et
al., "Large scale GAN training", 2019, do it in the code).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from medgen.config import Config
from medgen.models.code_pool import CodePool, ShapeLimits, coverage_weights, shape_descriptors
from medgen.models.families.maskvae import MaskVae
from medgen.models.latent import aggregated_posterior
from medgen.models.sampling import SamplingConfig
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import torch_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.cohort.training_pairs import balanced_pairs, numbered
from medgen.synthesis.estimates import Outline
from medgen.synthesis.field_of_view import FieldOfView
from medgen.synthesis.label_source import Anatomy, LabelSource
from medgen.synthesis.networks import build_network, kept_network, train_network
from medgen.synthesis.recipe import MILD, completed_by
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, enough_scans
from medgen.training.trainer import TrainingConfig

MASK = "mask"
# Its random draws are named as they were when this was a part of the backend ``spade``.
_STREAM = ("spade", MASK)
# Anatomies that are drawn until one lies within the limits; and those whose labels are balanced.
_DRAWS, _BALANCED = 12, 32
_TRAINING: dict[str, Any] = {"steps": 300, "augment": MILD}


class ShapeSampling(SamplingConfig):
    """Settings of drawn labels that can be chosen anew at sampling.

    Attributes:
        mask_spread: How far a sample's anatomy is from a training anatomy: 0 is one, 1 a draw from the Gaussian of all.
    """

    mask_spread: float = Field(default=0.6, ge=0, le=1)


class ShapeConfig(ShapeSampling):
    """Settings of drawn labels; those of :class:`ShapeSampling` can be chosen anew at sampling.

    Attributes:
        mask: Settings of the family ``maskvae``; ``shape`` and ``n_labels`` are filled in.
        mask_training: How it is trained.
        labelled_share: Share of labelled scans among those drawn for training, where there are consensus labels too.
        steering: How far rare volumes and positions are favoured: 0 draws anatomies as often as they occur, 1 covers
            the range as evenly as the scans allow, see :func:`medgen.models.code_pool.coverage_weights`.
    """

    mask: dict[str, Any] = Field(default_factory=dict)
    mask_training: Annotated[TrainingConfig, completed_by(_TRAINING)] = TrainingConfig(**_TRAINING)
    labelled_share: float = Field(default=0.4, ge=0, lt=1)
    steering: float = Field(default=0.5, ge=0, le=1)


@final
class ShapeLabels(LabelSource):
    """A mask VAE, with the codes that anatomies start from, and the fields of view that go with them."""

    name: ClassVar[str] = "shape"
    derived: ClassVar[bool] = False
    Config: ClassVar[type[Config]] = ShapeConfig
    Sampling: ClassVar[type[SamplingConfig]] = ShapeSampling
    sampling: ShapeSampling
    tiny: ClassVar[Mapping[str, Any]] = {
        "mask": {"widths": (16, 32), "latent": 4, "components": 3, "narrow": 4},
        "mask_training": {"steps": 3, "batch_size": 2, "log_every": 1},
    }
    families: ClassVar[Mapping[str, str]] = {MASK: MaskVae.family}
    turn: ClassVar[int] = 30

    def prepare(self) -> None:
        """The network, its codes and fields of view."""
        self._drawing = self.network(MASK, MaskVae)
        self._shapes = CodePool.from_arrays(self.stored.arrays, MASK)
        self._limits = ShapeLimits.from_arrays(self.stored.arrays, MASK)
        self._views = FieldOfView.from_arrays(self.stored.arrays)
        self._numbers = torch.tensor([0, *self.stored.meta["labels"]], dtype=torch.uint8)

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """For many scans."""
        return enough_scans(outline, cared_for)

    @classmethod
    def fit(cls, sources: Sources, config: ShapeConfig, context: FitContext) -> ShapeLabels:
        """Train the mask VAE.

        Raises:
            ConfigError: If a model setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        untrained = build_network(MaskVae.family, config.mask, sources, context, *_STREAM)
        train = balanced_pairs(sources, config.labelled_share)
        result = train_network(untrained, train, config.mask_training, context, *_STREAM)
        trained = {MASK: kept_network(result, sources, context)}
        drawing = result.model
        if not isinstance(drawing, MaskVae):
            raise TypeError("the family 'maskvae' is of another class")
        pairs = numbered(sources.pairs, sources.labels)
        described = shape_descriptors(_labels_of(pairs), range(1, len(sources.labels) + 1))
        means, logvars = drawing.codes(pairs)
        pool = CodePool(means, *aggregated_posterior(means, logvars), coverage_weights(described, config.steering))
        chance = torch_rng(context.seed, *_STREAM, "balance")
        drawing.balance_labels(pairs, torch.cat([pool.draw(config.mask_spread, chance) for _ in range(_BALANCED)]))
        meta = {
            "labels": list(sources.labels),
            "learnt_from": list(sources.pairs.ids),
            "mask_spread": config.mask_spread,
            "mask_dice": result.history[-1].get("dice"),
        }
        view = FieldOfView.fit(pool.codes, sources.pairs.foregrounds, _labels_of(sources.pairs))
        arrays = {**pool.to_arrays(MASK), **ShapeLimits.fit(described).to_arrays(MASK), **view.to_arrays()}
        return cls(cls.record(arrays, meta, trained), trained, result.history, context.device)

    @torch.no_grad()
    def draw(self, seed: int) -> Anatomy:
        """Labels decoded from a perturbed code of the training anatomies: of a few draws, the first within the limits.

        Where all are outside, the one that is least.
        """
        chance = torch_rng(seed, *_STREAM)
        tried: list[tuple[float, Tensor, Tensor]] = []
        numbers = range(1, len(self._numbers))
        while len(tried) < _DRAWS:
            code = self._shapes.draw(self.sampling.mask_spread, chance)
            indices = self._drawing.labels_of(code.to(self.device)).cpu()
            tried.append((self._limits.excess(shape_descriptors(indices, numbers)[0]), code, indices[0, 0]))
            if tried[-1][0] == 0:
                break
        _, code, chosen = min(tried, key=lambda entry: entry[0])
        labels = self._numbers[chosen].numpy()
        return Anatomy(labels=labels, view=self._views.of(code, labels), facts={"labels": "drawn", "draws": len(tried)})


def _labels_of(pairs: Dataset) -> Tensor:
    if pairs.labels is None:
        raise TypeError("pairs carry labels")
    return pairs.labels
