"""Labels for unlabelled scans: what several segmenters, trained on the labelled scans, agree on.

Clinics have many more scans than masks. A generator that knows only the masks knows five anatomies; one that may also
use these scans knows all of them. Members differ by initial weights, order and augmentation (deep ensembles:
Lakshminarayanan et al., NeurIPS 2017); the mean of their probabilities is better than any one of them, and where they
differ is where it is likely wrong. Further rounds train members on the labels of the round before, as in
self-training with noisy students (Xie et al., CVPR 2020). Registration of the labelled scans (multi-atlas fusion) was
tried as a member and lost: see docs/benchmarks/augment.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from medgen.augmentation import AugmentConfig
from medgen.config import Config
from medgen.dataset import Dataset
from medgen.metrics.segmentation import mean_dice
from medgen.seeds import derive
from medgen.segmentation import LabelledImages, SegmenterConfig, train_segmenter
from medgen.synthesis.base import Sources

# A scan is set aside when its members agree this many robust standard deviations less than on the median scan.
_OUTLIER = 3.0


class ConsensusConfig(Config):
    """How unlabelled scans get labels.

    Attributes:
        members: Segmenters per round; 0 leaves unlabelled scans without labels.
        rounds: 1 trains members on labelled scans only; each further round also on the labels of the one before.
        segmenter: Network and training of a member.
        augment: Augmentation in training.
        p_unlabelled: In later rounds, the probability that an element of a batch is a scan with inferred labels.
    """

    members: Annotated[int, Field(ge=0)] = 5
    rounds: Annotated[int, Field(ge=1)] = 1
    segmenter: SegmenterConfig = SegmenterConfig()
    augment: AugmentConfig = AugmentConfig()
    p_unlabelled: Annotated[float, Field(ge=0, le=1)] = 0.5

    @property
    def trainings(self) -> int:
        """Segmenters trained in all."""
        return self.members * self.rounds


@dataclass(frozen=True, eq=False)
class Consensus:
    """The outcome of :func:`label_unlabelled`.

    Attributes:
        scans: Unlabelled scans with credible labels and a confidence per voxel; None if there are none.
        agreement: Mean Dice of the members with their consensus, by case id, of every unlabelled scan.
        bound: Scans that agree less are left out.
    """

    scans: Dataset | None
    agreement: Mapping[str, float]
    bound: float

    @property
    def left_out(self) -> tuple[str, ...]:
        """Unlabelled scans whose labels are not credible."""
        kept = () if self.scans is None else self.scans.ids
        return tuple(name for name in self.agreement if name not in kept)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Scans with labels, as :func:`medgen.segmentation.train_segmenter` takes them."""

    images: Tensor
    labels: Tensor


def label_unlabelled(
    sources: Sources,
    config: ConsensusConfig,
    *,
    seed: int,
    device: str = "auto",
    tick: Callable[[int, int], None] | None = None,
) -> Consensus:
    """Label the unlabelled scans of some sources.

    Args:
        sources: Labelled scans teach; unlabelled ones are labelled. Nothing held out.
        config: Settings.
        seed: Of all trainings.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        tick: Called with (trainings done, trainings in all).

    Returns:
        Labels, voxel confidence (the members' mean probability of the label) and agreement. Scans that lack a label
        which every labelled scan has, or on which members agree much less than usual, are left out.

    Raises:
        TrainingError: As :func:`medgen.segmentation.train_segmenter`.
    """
    unlabelled, real = sources.unlabelled, sources.labelled
    if unlabelled is None or config.members == 0:
        return Consensus(None, {}, 0.0)
    inferred: LabelledImages | None = None
    numbers = torch.tensor((0, *sources.labels), dtype=torch.uint8)
    for turn in range(config.rounds):
        votes: list[Tensor] = []
        total: Tensor | None = None
        for member in range(config.members):
            segmenter = train_segmenter(
                real,
                config.segmenter,
                derive(seed, "consensus", turn, member),
                labels=sources.labels,
                augmentation=config.augment,
                synthetic=inferred,
                p_synthetic=config.p_unlabelled,
                device=device,
            )
            probability = segmenter.probabilities(unlabelled.images)
            votes.append(probability.argmax(dim=1, keepdim=True).to(torch.uint8))
            total = probability if total is None else total + probability
            if tick is not None:
                tick(turn * config.members + member + 1, config.trainings)
        if total is None:
            raise AssertionError("at least one member voted")
        confidence, winner = (total / config.members).max(dim=1, keepdim=True)
        inferred = _Pairs(unlabelled.images, numbers[winner])
    agreement = {
        name: _agreement([vote[row, 0].numpy() for vote in votes], winner[row, 0].numpy(), len(sources.labels))
        for row, name in enumerate(unlabelled.ids)
    }
    bound = _bound(np.array(list(agreement.values())))
    labels = numbers[winner]
    always = [value for value in sources.labels if real.labels is not None and bool(_has(real.labels, value).all())]
    kept = [
        name
        for row, name in enumerate(unlabelled.ids)
        if agreement[name] >= bound and all(bool((labels[row] == value).any()) for value in always)
    ]
    if not kept:
        return Consensus(None, agreement, bound)
    trusted = (confidence * 255).round().to(torch.uint8)
    scans = replace(unlabelled, labels=labels, confidence=trusted).subset(kept)
    return Consensus(scans, agreement, bound)


def _agreement(votes: list[NDArray[np.uint8]], winner: NDArray[np.int64], classes: int) -> float:
    return float(np.mean([mean_dice(vote, winner, range(1, classes + 1)) for vote in votes]))


def _bound(values: NDArray[np.float64]) -> float:
    """Median less three robust standard deviations (median absolute deviation times 1.4826)."""
    middle = float(np.median(values))
    return middle - _OUTLIER * 1.4826 * float(np.median(np.abs(values - middle))) - 1e-9


def _has(labels: Tensor, value: int) -> Tensor:
    return (labels == value).flatten(1).any(dim=1)
