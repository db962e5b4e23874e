"""Mean teacher: a moving average of a network's weights teaches the network on scans without labels."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from medgen.segmentation.recipe import Consistency
from medgen.system.precision import Precision
from medgen.transforms.augmentation import AugmentConfig, augment


class MeanTeacher:
    """The teacher of one training.

    Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017.

    Args:
        student: The network in training; the teacher starts as its copy.
        config: Weights and schedule.
    """

    def __init__(self, student: nn.Module, config: Consistency) -> None:
        self.network = copy.deepcopy(student).requires_grad_(False)
        self._config = config
        # Ids of the scans that the last loss was of, as far as they are known.
        self.drawn: tuple[str, ...] = ()

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """θ' ← α θ' + (1 − α) θ after optimiser step ``step`` (from 0), with α = min(1 − 1 / (step + 1), decay)."""
        decay = ema_decay(step, self._config.decay)
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(student.parameters()), step)
        for kept, current in zip(self.network.buffers(), student.buffers(), strict=True):
            kept.copy_(current)

    def loss(
        self,
        student: nn.Module,
        batch: int,
        progress: float,
        augmentation: AugmentConfig | None,
        precision: Precision,
        generator: torch.Generator,
    ) -> Tensor:
        """The weighted mean squared difference of the two networks' probabilities on ``batch`` unlabelled scans.

        Both see the same augmented scans, each with noise of its own.

        Args:
            student: The network in training.
            batch: Number of scans.
            progress: Share of the training that is done, in [0, 1].
            augmentation: How the scans are augmented for the student and the teacher; None for not at all.
            precision: Number format of the forward passes.
            generator: Source of every random draw; on the CPU.
        """
        images = self._config.images
        rows = torch.randint(len(images), (batch,), generator=generator)
        self.drawn = tuple(self._config.ids[row] for row in rows.tolist()) if self._config.ids else ()
        image = images[rows].to(precision.device)
        if augmentation is not None:
            image, _ = augment(image, None, augmentation, generator)
        with precision.autocast():
            scores = student(self._noisy(image, generator))
            with torch.no_grad():
                wanted = self.network(self._noisy(image, generator))
        difference = scores.float().softmax(dim=1) - wanted.float().softmax(dim=1)
        return self._config.weight * ramp_up(progress, self._config.ramp) * difference.square().mean()

    def _noisy(self, image: Tensor, generator: torch.Generator) -> Tensor:
        spread = image.std(dim=(2, 3, 4), keepdim=True)
        noise = torch.randn(image.shape, generator=generator).clamp(-2, 2).to(image.device)
        return image + self._config.noise * spread * noise


def ema_decay(step: int, largest: float) -> float:
    """Decay after step ``step`` (from 0): the true average of the first steps, then ``largest``.

    >>> ema_decay(0, 0.99), ema_decay(1, 0.99), ema_decay(1000, 0.99)
    (0.0, 0.5, 0.99)
    """
    return min(1 - 1 / (step + 1), largest)


def ramp_up(progress: float, ramp: float) -> float:
    """Sigmoid-shaped ramp-up exp(−5 (1 − t)²), t = progress / ramp (Laine and Aila, ICLR 2017).

    >>> ramp_up(0.4, 0.4), ramp_up(1.0, 0.4)
    (1.0, 1.0)
    """
    t = 1.0 if ramp <= 0 else min(progress / ramp, 1.0)
    return math.exp(-5 * (1 - t) ** 2)
