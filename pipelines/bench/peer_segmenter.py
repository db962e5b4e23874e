"""A segmenter that medgen does not own: MONAI's residual U-Net, trained by MONAI's loss and transforms.

Synthetic scans that help only the training that they were tuned with help nobody. This one has another depth and
residual units (Kerfoot et al., "Left-ventricle quantification using residual U-Net", STACOM 2018), fewer steps, another
loss, and affine transforms instead of elastic ones, than :mod:`medgen.segmentation.segmenter`.

With 5 labelled scans and so few steps MONAI's DynUNet, and this network with batch norm, did not learn one of two
labels in one or two of three trainings, whatever the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medgen.errors import TrainingError
from medgen.models.networks.blocks import crop_to, pad_to_multiple
from medgen.seeds import derive, torch_rng
from medgen.segmentation.recipe import LabelledImages
from medgen.segmentation.segmenter import class_indices
from medgen.synthesis.filtering.pool import SyntheticSet
from medgen.system.precision import Precision, precision_of
from medgen.training.trainer import device_of

STEPS, BATCH, SHARE, _LR, _CLIP = 300, 4, 0.5, 3e-3, 1.0
# Share of the steps in which the learning rate rises: without it some trainings end on one class.
_RISE = 0.1
_WIDTHS = (16, 32, 64, 128)
_FACTOR = 2 ** (len(_WIDTHS) - 1)


@dataclass(frozen=True, eq=False)
class PeerSegmenter:
    """A trained U-Net.

    Attributes:
        network: Maps scans with mean 0 and standard deviation 1 to a score per class.
        classes: Label number of each class, 0 first.
        precision: Device and number format.
    """

    network: nn.Module
    classes: tuple[int, ...]
    precision: Precision

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (n, classes, i, j, k) float32, on the CPU, of images (n, c, i, j, k)."""
        with self.precision.autocast():
            scores = _scores(self.network, _standardised(images.to(self.precision.device)))
        return scores.float().softmax(dim=1).cpu()


def train_peer(
    real: LabelledImages,
    further: LabelledImages | None,
    labels: Sequence[int],
    seed: int,
    *,
    steps: int,
    device: str = "auto",
) -> PeerSegmenter:
    """Train on real scans, and on further ones with the probability :data:`SHARE` for each element of a batch.

    Args:
        real: Scans with labels.
        further: Synthetic scans, or scans with pseudo-labels; None for none.
        labels: Label numbers, without 0.
        seed: Seed of weights, order and transforms; equal seeds see the same real scans in the same order.
        steps: Optimiser steps.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        TrainingError: If scans have no labels.
    """
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    precision = precision_of("auto", device_of(device))
    classes = (0, *(int(label) for label in labels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "peer", "weights"))
        network = UNet(
            spatial_dims=3,
            in_channels=real.images.shape[1],
            out_channels=len(classes),
            channels=_WIDTHS,
            strides=[2] * (len(_WIDTHS) - 1),
            num_res_units=2,
            norm="instance",
        )
    precision.place(network)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / (_RISE * steps), 1) * 0.5 * (1 + math.cos(math.pi * step / steps)),
    )
    change = _transforms(derive(seed, "peer", "transforms"))
    for step in range(steps):
        image, target = _batch(real, further, classes, change, torch_rng(seed, "peer", "order", step))
        with precision.autocast():
            scores = _scores(network, image.to(precision.device))
        optimiser.zero_grad(set_to_none=True)
        loss(scores.float(), target.to(precision.device)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
    return PeerSegmenter(network.eval(), classes, precision)


def pseudo_labelled(teacher: PeerSegmenter, images: Tensor) -> SyntheticSet:
    """Scans with the most probable labels of a teacher (Lee, "Pseudo-label", ICML workshop 2013)."""
    numbers = torch.tensor(teacher.classes)
    found = [numbers[teacher.probabilities(image[None]).argmax(dim=1, keepdim=True)] for image in images]
    return SyntheticSet(images, torch.cat(found).to(torch.uint8))


def _batch(
    real: LabelledImages,
    further: LabelledImages | None,
    classes: Sequence[int],
    change: Any,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Changed scans (b, c, i, j, k) and class indices (b, 1, i, j, k)."""
    rows = torch.randint(len(real.images), (BATCH,), generator=generator).tolist()
    made = (torch.rand(BATCH, generator=generator) < SHARE).tolist()
    images, targets = [], []
    for first, replaced in zip(rows, made, strict=True):
        source, row = real, first
        if further is not None and replaced:
            source, row = further, int(torch.randint(len(further.images), (), generator=generator))
        if source.labels is None:
            raise TrainingError("expected scans with labels, found a set without")
        indices = class_indices(source.labels[row], classes[1:]).float()
        pair = change({"image": _standardised(source.images[row][None])[0], "label": indices})
        images.append(pair["image"].as_tensor())
        targets.append(pair["label"].as_tensor())
    return torch.stack(images), torch.stack(targets)


def _transforms(seed: int) -> Any:
    from monai import transforms

    both = ["image", "label"]
    chosen = transforms.Compose(
        [
            transforms.RandAffined(
                both,
                prob=0.8,
                rotate_range=[0.2] * 3,
                scale_range=[0.1] * 3,
                translate_range=[2] * 3,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            transforms.RandScaleIntensityd("image", factors=0.2, prob=0.8),
            transforms.RandShiftIntensityd("image", offsets=0.2, prob=0.8),
            transforms.RandGaussianNoised("image", prob=0.3, std=0.1),
        ]
    )
    return chosen.set_random_state(seed % 2**32)


def _standardised(images: Tensor) -> Tensor:
    mean = images.mean(dim=(2, 3, 4), keepdim=True)
    return (images - mean) / images.std(dim=(2, 3, 4), keepdim=True).clamp_min(1e-6)


def _scores(network: nn.Module, images: Tensor) -> Tensor:
    scores: Tensor = network(pad_to_multiple(images, _FACTOR))
    return crop_to(scores, images.shape[2:])
