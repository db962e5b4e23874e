"""What a run will cost, measured on one training step before anything is started (``--dry-run``)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from medgen.dataset import Batch
from medgen.environment import available_memory, peak_memory
from medgen.models import ModelConfig, build
from medgen.precision import precision_of
from medgen.training import TrainingConfig, device_of

_MIB = 1 << 20


@dataclass(frozen=True)
class Estimate:
    """Cost of training one model.

    Attributes:
        parameters: Trainable parameters.
        seconds: For all optimiser steps, from the duration of one step after a warm-up.
        mebibytes: Peak memory of this process during that step; on CUDA, of the device.
    """

    parameters: int
    seconds: float
    mebibytes: float


def estimate_training(settings: ModelConfig, training: TrainingConfig, device: str, n_labels: int = 0) -> Estimate:
    """Build the model, run two full steps on random data of the run's shapes, time the second.

    Args:
        settings: The model as the run would build it.
        training: Steps and batch size.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        n_labels: Labels of the random label map; 0 for image-only families.
    """
    where = device_of(device)
    precision = precision_of(training.precision, where)
    model = build(settings).train()
    precision.place(model)
    shape = (training.batch_size, settings.in_channels, *settings.shape)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator)
    foreground = torch.ones((shape[0], 1, *shape[2:]))
    labels = torch.randint(0, n_labels + 1, foreground.shape, generator=generator) if n_labels else None
    batch = Batch(image, foreground, labels).to(where)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for phase, parameters in model.phases().items():
            with precision.autocast():
                loss = model.loss(phase, batch)["loss"]
            torch.autograd.backward(loss, inputs=parameters)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        seconds = time.perf_counter() - start
    return Estimate(sum(p.numel() for p in model.parameters()), seconds * training.steps, _peak(where))


def describe_training(name: str, estimate: Estimate, trainings: int = 1) -> str:
    """One line of the plan."""
    times = f"{trainings} trainings" if trainings > 1 else "1 training"
    return (
        f"{name}: {times} of {estimate.parameters / 1e6:.2f} M parameters, about "
        f"{minutes(trainings * estimate.seconds)}, {estimate.mebibytes:.0f} MiB"
    )


def describe_memory(values: int) -> str:
    """Line for a cohort of ``values`` float32 numbers kept in memory, beside what this machine has free."""
    free = 1024 * available_memory()
    return f"cohort in memory: {values * 4 / _MIB:.0f} MiB (free on this machine: {free:.0f} MiB)"


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    return 1024 * peak_memory()
