"""What a training will cost, measured on two steps of a small stand-in before anything is started."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from medgen.errors import ResourceError
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.catalogue import build
from medgen.models.sampling import SamplingConfig
from medgen.models.stages import stage_steps
from medgen.system.memory import available_memory
from medgen.system.precision import precision_of
from medgen.training.counting import Operations, extrapolated, timed
from medgen.training.recomputation import recomputes
from medgen.training.stand_in import random_batch, sampler, smaller, stand_in, stand_in_model, step_work
from medgen.training.trainer import TrainingConfig, device_of

__all__ = [
    "FLOAT_BYTES",
    "WEIGHT_COPIES",
    "WORKSPACE",
    "Cost",
    "Estimate",
    "check_memory",
    "describe_memory",
    "describe_sampling",
    "describe_training",
    "minutes",
    "parameters_of",
    "sampling_seconds",
    "stand_in",
    "training_cost",
]

_MIB, _GIB = 1 << 20, 1 << 30
# Bytes per voxel of a batch that no family comes near.
_PER_VOXEL = 8192
# Voxels of the stand-in that a sample is made in: a flow passes through it many times.
_SAMPLED = 32**3
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
        scans: Scans that an anomaly detector scores in it, which is not timed before one is trained.
    """

    seconds: float
    bytes: float
    lines: tuple[str, ...] = ()
    sample_seconds: float = 0.0
    scans: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        """Cost of one part after the other: times add up, memory is that of the larger one."""
        return Estimate(
            self.seconds + other.seconds,
            max(self.bytes, other.bytes),
            (*self.lines, *other.lines),
            self.sample_seconds + other.sample_seconds,
            self.scans + other.scans,
        )


def training_cost(settings: ModelConfig, training: TrainingConfig, device: str, n_labels: int = 0) -> Cost:
    """Cost of a training: a step of every phase and stage on random data, done twice, the second one timed.

    Large volumes and batches are not tried out: a stand-in of at most 48³ voxels and two scans is timed. What it does
    is counted in it and in a smaller one, part by part, which tells the convolutions, whose work grows with the number
    of voxels, from attention, whose work grows with its square (:func:`medgen.training.counting.extrapolated`). Memory
    is counted in the same way, not observed: what the backward pass keeps, with room for work space, and the copies of
    the weights.

    Args:
        settings: The model as the run would build it.
        training: Steps and batch size.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        n_labels: Labels of the random label map; 0 for image-only families.
    """
    where = device_of(device)
    precision = precision_of(training.precision, where)
    large, batch = stand_in(settings.shape), min(training.batch_size, 2)
    small = smaller(large)
    chosen = training.model_copy(update={"checkpoint_activations": recomputes(training, settings.shape)})
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        model = stand_in_model(settings, large, precision)
        measured = step_work(model, chosen, batch, n_labels, where, precision)
        counted = measured
        if large != tuple(settings.shape):
            counted = step_work(stand_in_model(settings, small, precision), chosen, batch, n_labels, where, precision)
    ratio, factor = math.prod(large) / math.prod(small), math.prod(settings.shape) / math.prod(large)
    wider = training.batch_size / batch
    seconds, activations, steps = 0.0, 0.0, stage_steps(model.stages(), max(training.steps, len(measured)))
    for own, few, number in zip(measured, counted, steps, strict=True):
        for work, less in zip(own, few, strict=True):
            slower = extrapolated(less.operations, work.operations, ratio, factor) / max(sum(work.operations), 1.0)
            seconds += work.seconds * max(slower, factor) * wider * training.accumulate * number / work.every
            kept = extrapolated(less.kept, work.kept, ratio, factor) + work.inside * factor
            activations = max(activations, kept * wider)
    parameters = parameters_of(settings, model)
    return Cost(
        parameters=parameters,
        seconds=seconds,
        bytes=WEIGHT_COPIES * FLOAT_BYTES * parameters + WORKSPACE * activations,
        step_seconds=seconds / sum(steps),
    )


def sampling_seconds(
    settings: ModelConfig, device: str, n_labels: int = 0, sampling: SamplingConfig | None = None
) -> float:
    """Duration of making one scan, in seconds, timed in a stand-in; 0 for families that make none.

    By the family's usual options of sampling, or by those given.

    Families that paint label maps are timed with one, those that draw label maps with drawing one. The work is
    extrapolated as in :func:`training_cost`.
    """
    where = device_of(device)
    precision = precision_of("32", where)
    large = stand_in(settings.shape, _SAMPLED)
    small, seconds, counts = smaller(large), 0.0, list[list[float]]()
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), torch.no_grad():
        for shape in (small, large):
            model = stand_in_model(settings, shape, precision).eval()
            model = model if sampling is None else model.sampled_by(sampling)
            make = sampler(model, random_batch(model.settings, 1, n_labels).to(where))
            if make is None:
                return 0.0
            with Operations() as counted:
                seconds = timed(make, where)
            counts.append(counted.parts)
    ratio, factor = math.prod(large) / math.prod(small), math.prod(settings.shape) / math.prod(large)
    less, more = counts
    work = extrapolated(less, more, ratio, factor) / max(sum(more), 1.0)
    return seconds * max(work, factor)


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


def describe_sampling(name: str, seconds: float) -> str:
    """One line of a plan: how long one sample takes.

    >>> describe_sampling("vae", 0.0312), describe_sampling("flow", 300.0)
    ('vae: a sample takes about 0.03 s', 'flow: a sample takes about 5 min')
    """
    return f"{name}: a sample takes about {f'{seconds:.2f} s' if seconds < 1 else minutes(seconds)}"


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
