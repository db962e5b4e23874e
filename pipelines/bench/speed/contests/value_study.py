"""One cell of a value study, the training of a segmenter, against MONAI's data set, transforms and training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from medgen.preprocessing.dataset import Dataset
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.system.precision import Precision
from medgen.transforms.augmentation_config import AugmentConfig

from ...family_measures import judged_dice
from .. import training_steps as steps
from ..contest import Contender, Contest, Entry, Rows, Settings
from .flow_step import label_maps

_PEER = "MONAI CacheDataset + transforms"
_STEPS, _FEW = 20, 2
# Steps after which Dice is compared.
_LEARNT = 200


def entries(settings: Settings) -> Iterator[Entry]:
    """Twenty steps of a cell by either."""
    train, test = steps.scans(settings)
    count = _FEW if settings.quick else _STEPS
    yield Contest(
        f"segmenter of a cell, {count} steps",
        (
            Contender("medgen", partial(_own, train, count, settings.device)),
            Contender(_PEER, partial(_monai, train, count, settings.device)),
        ),
        equal=partial(_equal, train, test, _FEW if settings.quick else _LEARNT, settings.device),
        notes=(
            "The same U-Net, number of steps, batch, loss and optimiser, in float32. MONAI keeps the scans in memory "
            "(CacheDataset) and changes them with Rand3DElasticd (turned, zoomed and bent in one resampling), "
            "RandGaussianNoised, RandBiasFieldd, RandAdjustContrastd, RandScaleIntensityd and RandGaussianSmoothd of "
            "ranges as near to medgen's as they have, in the main process.",
        ),
    )


def _config(count: int) -> SegmenterConfig:
    return SegmenterConfig(steps=count, precision="32")


def _classes(train: Dataset) -> list[int]:
    return [int(value) for value in label_maps(train).unique() if value]


def _own(train: Dataset, count: int, device: str) -> Segmenter:
    return train_segmenter(
        train, _config(count), 0, labels=_classes(train), augmentation=AugmentConfig(), device=device
    )


def _monai(train: Dataset, count: int, device: str) -> Segmenter:
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss

    config, labels = _config(count), _classes(train)
    numbers = {label: place for place, label in enumerate(labels, start=1)}
    masks = np.vectorize(lambda value: numbers.get(int(value), 0), otypes=[np.int64])(label_maps(train).numpy())
    cases = [
        {"image": image.numpy(), "label": mask.astype(np.float32)}
        for image, mask in zip(train.images, masks, strict=True)
    ]
    torch.manual_seed(0)
    network = config.network(train.images.shape[1], len(labels) + 1).to(device).train()
    data = CacheDataset(cases, transform=_changes(), progress=False, num_workers=0)
    loader = DataLoader(data, batch_size=config.batch_size, shuffle=True, drop_last=True, num_workers=0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, count)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    done = 0
    while done < count:
        for batch in loader:
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(network(batch["image"].to(device)), batch["label"].to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimiser.step()
            schedule.step()
            done += 1
            if done == count:
                break
    precision = Precision(torch.device(device), bf16=False)
    return Segmenter(network.eval(), (0, *labels), precision)


def _changes() -> Any:
    from monai import transforms as monai

    ranges = AugmentConfig()
    keys = ("image", "label")
    turn, zoom = math.radians(ranges.rotate_degrees), ranges.scale[1] - 1
    moved = {"mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
    # Rand3DElasticd turns, zooms and bends in one resampling, which is the fastest way that MONAI has.
    return monai.Compose(
        [
            monai.Rand3DElasticd(
                keys,
                sigma_range=(5, 7),
                magnitude_range=(50, 100),
                prob=ranges.spatial,
                rotate_range=(turn,) * 3,
                scale_range=(zoom,) * 3,
                translate_range=(ranges.translate,) * 3,
                **moved,
            ),
            monai.RandBiasFieldd(["image"], prob=ranges.intensity),
            monai.RandAdjustContrastd(["image"], prob=ranges.intensity, gamma=ranges.gamma),
            monai.RandScaleIntensityd(["image"], factors=ranges.brightness[1] - 1, prob=ranges.intensity),
            monai.RandGaussianNoised(["image"], prob=ranges.intensity, std=ranges.noise),
            monai.RandGaussianSmoothd(["image"], ranges.blur, ranges.blur, ranges.blur, prob=ranges.intensity),
        ]
    )


def _equal(train: Dataset, test: Dataset, count: int, device: str) -> Rows:
    labels = _classes(train)
    own, peer = _own(train, count, device), _monai(train, count, device)
    return {
        "parameters": {
            name: sum(weights.numel() for weights in found.network.parameters())
            for name, found in (("medgen", own), (_PEER, peer))
        },
        "voxels in a step": dict.fromkeys(("medgen", _PEER), _config(1).batch_size * math.prod(train.shape)),
        f"Dice of held-out scans after {count} steps": {
            name: judged_dice(found, test.images, label_maps(test), labels)
            for name, found in (("medgen", own), (_PEER, peer))
        },
    }
