"""What benchmarks of training steps share: simulated scans, medgen's own loop, the loops of MONAI's tutorials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medgen.data.simulation import simulate
from medgen.metrics.reconstruction import psnr
from medgen.models.base import Reconstructs, ScanModel
from medgen.models.catalogue import build, parse_settings
from medgen.preprocessing.dataset import Dataset, prepare_dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.system.precision import Precision, precision_of
from medgen.training.config import TrainingConfig
from medgen.training.counting import Operations
from medgen.training.loop import Loop
from medgen.training.ranks import connect

from .clock import now
from .contest import Demand, Settings

# Voxels along each axis, multiples of 16, which every network here takes, and voxel size in mm: to try a benchmark out,
# for a CPU, for a GPU, which smaller scans would leave idle.
_TRIED, _CPU, _GPU = ((32, 32, 32), 6.0), ((48, 64, 48), 4.0), ((128, 144, 128), 1.5)
_SCANS, _HELD_OUT = 24, 8
_FEW_SCANS, _FEW_HELD_OUT = 4, 2
_SEED = 0
# Stand for what a step reads and writes at least: weights, gradients, two moments.
_COPIES, _FLOAT = 4, 4


def scans(settings: Settings) -> tuple[Dataset, Dataset]:
    """Simulated heads with label maps to learn from and, of other subjects, to be measured on."""
    usual = _GPU if torch.device(settings.device).type == "cuda" else _CPU
    shape, spacing = _TRIED if settings.quick else usual
    learnt, held = (_FEW_SCANS, _FEW_HELD_OUT) if settings.quick else (_SCANS, _HELD_OUT)
    manifest = simulate(settings.scratch / "cohort", learnt + held, _SEED, spacing)
    config = Preprocess(shape=shape, spacing=(spacing,) * 3, center_on="fov")
    everything, _ = prepare_dataset(manifest, config)
    return everything.subset(everything.ids[:learnt]), everything.subset(everything.ids[learnt:])


def precisions(settings: Settings) -> list[Precision]:
    """Float32, and bfloat16 where the device multiplies it natively: elsewhere nobody would train in it."""
    device = torch.device(settings.device)
    single, usual = Precision(device, bf16=False), precision_of("auto", device)
    return [single, usual] if usual.bf16 else [single]


def cube_of_noise(voxels: float) -> Dataset:
    """Two cubes of about so many voxels each, with labels 0 to 2; time does not depend on what is in them."""
    side = round(voxels ** (1 / 3))
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.rand((2, 1, side, side, side), generator=generator)
    labels = torch.randint(0, 3, noise.shape, generator=generator).to(torch.uint8)
    return Dataset(("a", "b"), ("a", "b"), noise, torch.ones_like(noise, dtype=torch.bool), labels)


def own_loop(data: Dataset, precision: Precision, model: Mapping[str, Any], training: Mapping[str, Any]) -> Loop:
    """The training loop of medgen before its first step, with all that a training has: clipping, averaging, checks."""
    settings = parse_settings({"shape": tuple(data.shape), "in_channels": data.images.shape[1], **model})
    config = TrainingConfig(steps=100_000, batch_size=1, precision=precision.name, ema=0.99, **training)
    built = build(settings, seed=_SEED)
    precision.place(built)
    loop = Loop(built, data, None, config, _SEED, connect(precision), precision, None, None)
    loop.begin()
    built.train()
    return loop


@dataclass
class PeerLoop:
    """A training as in MONAI's tutorials, one scan a step in the same order of random draws each time.

    Attributes:
        networks: What is trained.
        update: One step with a batch.
        device: Where.
        images, labels: Scans (n, c, i, j, k), and label maps.
        steps: Done.
    """

    networks: tuple[nn.Module, ...]
    update: Callable[[Tensor, Tensor | None], None]
    precision: Precision
    images: Tensor
    labels: Tensor | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        self.order = torch.Generator().manual_seed(_SEED)

    def step(self) -> None:
        """One step with one scan."""
        row = int(torch.randint(len(self.images), (1,), generator=self.order))
        device = self.precision.device
        image = self.images[row : row + 1].to(device)
        self.update(image, None if self.labels is None else self.labels[row : row + 1].to(device))
        self.steps += 1

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(own.numel() for network in self.networks for own in network.parameters())


def sizes(precision: Precision, data: Dataset, own: int, peer: str, other: int) -> dict[str, dict[str, float | str]]:
    """What shows that two contenders do the same work: parameters, voxels, number format."""
    return {
        "parameters": {"medgen": own, peer: other},
        "voxels in a step": dict.fromkeys(("medgen", peer), math.prod(data.shape)),
        "number format": dict.fromkeys(("medgen", peer), "bfloat16" if precision.bf16 else "float32"),
    }


def demand_of(step: Callable[[], object], parameters: int, voxels: int, precision: Precision) -> Demand:
    """Operations of one step, counted as it is done, and the bytes of its weights and of the scan."""
    with Operations() as counted:
        step()
    moved = _FLOAT * (_COPIES * parameters + voxels)
    return Demand(
        sum(counted.parts), moved, "operations of medgen's own step, weights and scan once", bf16=precision.bf16
    )


def peak_ratio(rebuilt: Tensor, data: Dataset) -> float:
    """Mean PSNR in dB over scans, in their foregrounds, for a range of intensities of 1."""
    scans = zip(data.images, rebuilt, data.foregrounds, strict=True)
    return float(np.mean([psnr(image.numpy(), own.numpy(), mask[0].numpy()) for image, own, mask in scans]))


@torch.no_grad()
def own_quality(
    model: ScanModel, averaged: Sequence[tuple[Tensor, Tensor]], data: Dataset, precision: Precision
) -> float:
    """PSNR of what medgen rebuilds of held-out scans, with the averaged weights that a training ends with."""
    assert isinstance(model, Reconstructs)
    with exchanged(averaged):
        model.eval()
        rebuilt = [
            model.reconstruct(data.images[row : row + 1].to(precision.device)).float().cpu() for row in range(len(data))
        ]
        model.train()
    return peak_ratio(torch.cat(rebuilt), data)


@contextmanager
def exchanged(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Inside, each live tensor has the values of its average."""
    kept = [live.detach().clone() for live, _ in pairs]
    with torch.no_grad():
        for live, average in pairs:
            live.copy_(average)
        yield
        for (live, _), before in zip(pairs, kept, strict=True):
            live.copy_(before)


def for_seconds(step: Callable[[], object], seconds: float, device: torch.device) -> int:
    """Steps until so much time has passed; none for none."""
    start, done = now(device), 0
    while now(device) - start < seconds:
        step()
        done += 1
    return done
