"""The one training loop: stages, phases, precision, averaging of weights, validation, checkpoints, ranks.

Models say what to minimise (:meth:`~medgen.models.base.ScanModel.loss`); everything else happens here. Every
random stream is derived from the seed, the epoch and the step, so a resumed run repeats an uninterrupted one bit for
bit on CPU (same thread count; a resumption with another is refused).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from medgen.errors import ConfigError, TrainingError
from medgen.models.base import ScanModel
from medgen.progress import Log, bars
from medgen.runs.device_names import check_device_name
from medgen.seeds import derive
from medgen.system.precision import precision_of
from medgen.system.signals import Terminated, deferred
from medgen.training.batches import Scans, fitted_to
from medgen.training.config import TrainingConfig
from medgen.training.loop import Loop
from medgen.training.ranks import connect, rank_of, started
from medgen.training.recomputation import set_recomputation
from medgen.training.transfer.start import Start

__all__ = ["FitResult", "Log", "Terminated", "TrainingConfig", "device_of", "fit", "rank_of"]


@dataclass(frozen=True)
class FitResult:
    """A finished training.

    Attributes:
        model: The model given, with averaged (or best) weights, in evaluation mode.
        history: Records in order, each with ``step`` and numbers such as ``loss`` or ``validation``.
        steps: Steps done, of all stages; fewer than configured after an early stop.
        seconds: Time spent in the loop, over all resumed parts.
        bf16: Whether forward passes ran in bfloat16.
        start: What it started from, where that was a trained model.
    """

    model: ScanModel
    history: list[dict[str, float]]
    steps: int
    seconds: float
    bf16: bool = False
    start: Start | None = None


def device_of(name: str) -> torch.device:
    """The device called ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: If it is none of these, or not in this machine.
    """
    if name == "auto":
        return torch.device("cuda", started().local_rank) if torch.cuda.is_available() else torch.device("cpu")
    index = check_device_name(name).partition(":")[2]
    if name == "cpu":
        return torch.device("cpu")
    number, count = int(index) if index else started().local_rank, torch.cuda.device_count()
    if number >= count:
        raise ConfigError(f"device: {name} is not in this machine ({count} CUDA devices); use device=cpu or auto")
    return torch.device("cuda", number)


def fit(
    model: ScanModel,
    train: Scans,
    config: TrainingConfig,
    *,
    seed: int,
    device: str = "auto",
    out: Path | None = None,
    validation: Scans | None = None,
    resume: bool = False,
    log: Log | None = None,
    title: str = "training",
    progress: bool = False,
) -> FitResult:
    """Train a model.

    Under ``torchrun`` or ``srun`` each process takes its share of the batches of a step, gradients are averaged, and
    rank 0 alone writes, logs and shows progress. On SIGTERM or Ctrl-C the loop checkpoints after the step at hand and
    raises :class:`Terminated`; a second signal does not wait for the step.

    Args:
        model: Changed in place.
        train: Training cases.
        config: The loop's settings.
        seed: Seed of the order, the augmentation and the model's own draws; initial weights are those ``model`` has.
        device: See :func:`device_of`.
        out: Folder for ``checkpoint/state.pt``; without it nothing is written.
        validation: Cases for ``validate_every``.
        resume: Go on from the checkpoint in ``out`` if there is one.
        log: Called with (numbers, step) every ``log_every`` steps and after each validation.
        title: Text beside the progress bar.
        progress: Whether to show one, on the error stream.

    Returns:
        The trained model and the history.

    Raises:
        TrainingError: If there are no cases or fewer steps than stages, the shapes do not fit the model, a loss is not
            finite (the message names the step and the cases), or the checkpoint belongs to another run.
        Terminated: After SIGTERM, with exit code 143, or Ctrl-C, with 130.
        ConfigError: If device or precision are not to be had, or the source does not serve, see
            :meth:`medgen.training.transfer.start.Start.of`.
        ArtifactError: If the source cannot be read.
    """
    _check(model, train, validation, config)
    start = None if config.init is None else Start.of(model, config.init)
    precision = precision_of(config.precision, device_of(device))
    ranks = connect(precision)
    precision.place(model)
    set_recomputation(model, config)
    if config.compile:
        for network in model.children():
            network.compile()
    cuda = [precision.device] if precision.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _tried_kernels(precision.device):
        loop = Loop(model, train, validation, config, seed, ranks, precision, out, log, start)
        if not (resume and loop.load()):
            loop.begin()
        with deferred() as stop, _bar(title, config.steps, loop.step, show=progress and ranks.first) as advance:
            loop.run(stop, advance)
        model.eval()
        torch.manual_seed(derive(seed, "finalize"))
        model.finalize(fitted_to(train))
    return FitResult(model, loop.history, loop.step, loop.seconds, precision.bf16, start)


def _check(model: ScanModel, train: Scans, validation: Scans | None, config: TrainingConfig) -> None:
    if not len(train):
        raise TrainingError("there are no training cases")
    if (stages := len(model.stages())) > config.steps:
        raise TrainingError(f"training.steps: the {stages} stages of {model.family} need {stages} steps at least")
    if config.validate_every and validation is None:
        raise TrainingError("training.validate_every is set but there are no validation cases; set it to 0")
    if config.patience and not config.validate_every:
        raise TrainingError("training.patience needs training.validate_every above 0")
    expected = (model.settings.in_channels, *model.settings.shape)
    for data in (train, validation):
        if data is not None and (found := (data.channels, *data.shape)) != expected:
            raise TrainingError(f"the model expects scans of shape {expected}, found {found}")


@contextmanager
def _tried_kernels(device: torch.device) -> Iterator[None]:
    """On a GPU the fastest of cuDNN's convolutions is chosen by trying: every batch has one shape, so it is done once.

    What is in float32 on purpose stays so: products of matrices are not rounded to TF32, whatever was set before.
    """
    if device.type != "cuda":
        yield
        return
    tried, rounded = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tried
        torch.set_float32_matmul_precision(rounded)


@contextmanager
def _bar(title: str, total: int, done: int, show: bool) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A progress bar with the loss beside it; yields what moves it."""
    with bars(show) as move:
        move(title, done, total)

        def advance(step: int, numbers: dict[str, float]) -> None:
            loss = next((value for name, value in numbers.items() if name.rpartition("/")[2] == "loss"), None)
            move(title, step, total, "" if loss is None else f"loss {loss:.4g}")

        yield advance
