"""What a training will cost, measured on two steps of a small stand-in before anything is started."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medgen.errors import ResourceError
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Batch
from medgen.system.memory import available_memory
from medgen.training.precision import precision_of
from medgen.training.trainer import TrainingConfig, device_of

_MIB, _GIB = 1 << 20, 1 << 30
# Bytes per voxel of a batch that no family comes near.
_PER_VOXEL = 8192
# Voxels of a stand-in: large enough that the time per voxel is that of the real thing, small enough for any machine.
_STAND_IN = 48**3
FLOAT_BYTES = 4
# Weights, gradients, two moments of Adam, moving average.
WEIGHT_COPIES = 5
# Gradients of activations and work space of convolutions, on top of the activations that the backward pass keeps.
WORKSPACE = 1.5


@dataclass(frozen=True)
class Cost:
    """Cost of training one network.

    Attributes:
        parameters: Trainable parameters.
        seconds: For all optimiser steps.
        bytes: Most memory that the training takes, on the device it runs on, beside the cohort.
        step_seconds: For one step.
    """

    parameters: int
    seconds: float
    bytes: float
    step_seconds: float

    @property
    def mebibytes(self) -> float:
        """Memory in MiB."""
        return self.bytes / _MIB


@dataclass(frozen=True)
class Estimate:
    """What a part of a run will cost in time and memory, for the plan that ``--dry-run`` prints.

    Attributes:
        seconds: Duration of the whole part, in seconds.
        bytes: Most memory that is taken at a time on the device, in bytes, beside the cohort itself.
        lines: Lines of the plan, with the numbers, as they are printed.
        sample_seconds: Duration of making one sample, in seconds, where the part is a backend.
    """

    seconds: float
    bytes: float
    lines: tuple[str, ...] = ()
    sample_seconds: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        """Cost of one part after the other: times add up, memory is that of the larger one."""
        return Estimate(
            self.seconds + other.seconds,
            max(self.bytes, other.bytes),
            (*self.lines, *other.lines),
            self.sample_seconds + other.sample_seconds,
        )


def training_cost(settings: ModelConfig, training: TrainingConfig, device: str, n_labels: int = 0) -> Cost:
    """Cost of a training: two full steps on random data, the second one timed.

    Large volumes and batches are not tried out: a stand-in of at most 48³ voxels and two scans is measured, and what it
    takes is scaled by the number of voxels, which convolutional networks follow. Memory is counted, not observed: what
    the backward pass keeps, with room for work space, and the copies of the weights.

    Args:
        settings: The model as the run would build it.
        training: Steps and batch size.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        n_labels: Labels of the random label map; 0 for image-only families.
    """
    where = device_of(device)
    precision = precision_of(training.precision, where)
    small = settings.model_copy(update={"shape": stand_in(settings.shape)})
    batch = min(training.batch_size, 2)
    model = build(small, seed=0).train()
    precision.place(model)
    shape = (batch, small.in_channels, *small.shape)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator)
    foreground = torch.ones((batch, 1, *small.shape))
    labels = torch.randint(0, n_labels + 1, foreground.shape, generator=generator) if n_labels else None
    data = Batch(image, foreground, labels, progress=0.5).to(where)

    def step() -> float:
        kept = 0.0
        for phase, own in model.stages()[0].phases.items():
            parameters = list(own.parameters)
            counter = KeptForBackward(parameters)
            with precision.autocast(), torch.autograd.graph.saved_tensors_hooks(counter, unchanged):
                loss = model.loss(phase, data)["loss"]
            torch.autograd.backward(loss, inputs=parameters)
            kept = max(kept, counter.total)
        return kept

    seconds, kept = timed_step(step, where)
    ratio = training.batch_size * math.prod(settings.shape) / (batch * math.prod(small.shape))
    parameters = parameters_of(settings, model)
    return Cost(
        parameters=parameters,
        seconds=seconds * ratio * training.steps,
        bytes=WEIGHT_COPIES * FLOAT_BYTES * parameters + WORKSPACE * kept * ratio,
        step_seconds=seconds * ratio,
    )


def check_memory(settings: ModelConfig, training: TrainingConfig, device: str, cases: int, n_labels: int = 0) -> None:
    """Refuse a training that will not fit into memory, before a scan is read.

    Only a training that may take more than a quarter of what is free is measured (:func:`training_cost`).

    Args:
        settings: The model as the run would build it.
        training: Its training.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        cases: Scans that are kept in memory.
        n_labels: Labels of the model, 0 for image-only families.

    Raises:
        ResourceError: Saying what is needed, what is free and what to lower.
    """
    where = device_of(device)
    voxels = math.prod(settings.shape)
    cohort = cases * voxels * (FLOAT_BYTES * settings.in_channels + 2)
    main = int(1024 * available_memory()) * _MIB
    free = torch.cuda.mem_get_info(where)[0] if where.type == "cuda" else main
    advice = "a smaller preprocess.shape or a coarser preprocess.spacing, or set check_resources=false to try anyway"
    if cohort > main:
        raise ResourceError(
            f"{cases} prepared scans need about {cohort / _GIB:.1f} GiB of memory, {main / _GIB:.1f} GiB are free; use "
            f"fewer scans, {advice}"
        )
    beside = 0 if where.type == "cuda" else cohort
    if beside + training.batch_size * voxels * _PER_VOXEL <= free / 4:
        return
    need = training_cost(settings, training, device, n_labels).bytes + beside
    if need > free:
        raise ResourceError(
            f"training {settings.family}: needs about {need / _GIB:.1f} GiB of memory, {free / _GIB:.1f} GiB are free; "
            f"lower training.batch_size (now {training.batch_size}), or use {advice}"
        )


def stand_in(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape itself if it is small, else one of about the same proportions and at most 48³ voxels.

    >>> stand_in((40, 56, 40)), stand_in((256, 256, 128))
    ((40, 56, 40), (56, 56, 24))
    """
    i, j, k = (int(n) for n in shape)
    factor = (_STAND_IN / (i * j * k)) ** (1 / 3)
    if factor >= 1:
        return i, j, k
    small = [min(n, max(16, 8 * int(n * factor / 8))) for n in (i, j, k)]
    return small[0], small[1], small[2]


def parameters_of(settings: ModelConfig, like: ScanModel | None = None) -> int:
    """Number of parameters of a model, without memory for them.

    Args:
        settings: The model.
        like: What to count where a family cannot be built without memory.
    """
    try:
        with torch.device("meta"):
            model: ScanModel = build(settings, seed=0)
    except (RuntimeError, NotImplementedError, TypeError):
        model = build(settings, seed=0) if like is None else like
    return model.parameter_count


def describe_training(name: str, cost: Cost, trainings: int = 1) -> str:
    """One line of a plan."""
    times = f"{trainings} trainings" if trainings > 1 else "1 training"
    return (
        f"{name}: {times} of {cost.parameters / 1e6:.2f} M parameters, about "
        f"{minutes(trainings * cost.seconds)}, {cost.mebibytes:.0f} MiB"
    )


def describe_memory(values: int) -> str:
    """Line for a cohort of ``values`` float32 numbers kept in memory, beside what this machine has free."""
    free = 1024 * available_memory()
    return f"cohort in memory: {values * FLOAT_BYTES / _MIB:.0f} MiB (free on this machine: {free:.0f} MiB)"


def minutes(seconds: float) -> str:
    """A duration as people say it.

    >>> minutes(12.1), minutes(600)
    ('13 s', '10 min')
    """
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class KeptForBackward:
    """Counts what autograd keeps for the backward pass, every memory block once, parameters not at all."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.seen = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        self.total = 0.0

    def __call__(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd is about to keep, and hand it on."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor


def unchanged(tensor: Tensor) -> Tensor:
    """A kept tensor as the backward pass gets it back."""
    return tensor


def timed_step(step: Callable[[], float], device: torch.device) -> tuple[float, float]:
    """Seconds of the second of two steps, and what they return; random streams are left as they were."""
    seconds = kept = 0.0
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        for _ in range(2):
            start = time.perf_counter()
            kept = step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start
    return seconds, kept
