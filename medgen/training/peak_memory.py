"""The most memory that a training step takes on a GPU, counted on a machine that has none.

The step runs on tensors that have a shape and no contents (torch's ``FakeTensorMode``), and every block of memory is
counted from the operation that makes it until nobody holds it any more: weights, gradients, optimiser, average, batch,
activations and what operations keep for the backward pass. Not counted are the CUDA context (about half a gibibyte),
the workspace of cuDNN's convolutions, what the allocator loses between blocks, a cohort that lies on the GPU, and the
random augmentation, which is over before the forward pass begins.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medgen.models.base import ModelConfig
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.system.precision import Precision, channels_innermost
from medgen.training.config import TrainingConfig
from medgen.training.loop import Loop
from medgen.training.ranks import connect
from medgen.training.recomputation import set_recomputation


@dataclass(frozen=True)
class StepMemory:
    """Memory of a training in bytes.

    Attributes:
        kept: Between steps: weights, buffers, optimiser and averaged weights.
        peak: At the worst moment of a step, ``kept`` included.
        parameters: Number of weights.
    """

    kept: int
    peak: int
    parameters: int


class Held(TorchDispatchMode):
    """Bytes of all memory blocks that operations inside have made and somebody still holds.

    >>> with Held() as held:
    ...     kept = torch.ones(100) + torch.ones(100)
    >>> held.now, held.peak
    (400, 1200)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation's own results, counted where their memory is new."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, block: torch.UntypedStorage) -> None:
        if block in self._seen:
            return
        size = block.nbytes()
        self._seen.add(block)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(block, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self.now -= size


@contextmanager
def _as_on_cuda() -> Iterator[None]:
    """Autocast of CUDA where that of the CPU differs in our networks: norms take and give float32.

    Replaced for the time of a count, since blocks that are computed again in the backward pass are out of reach of
    torch's function modes.
    """
    plain = functional.layer_norm

    def norm(x: Tensor, *more: Any, **named: Any) -> Tensor:
        made: Tensor = plain(x.float() if torch.is_autocast_enabled("cpu") else x, *more, **named)
        return made

    functional.layer_norm = norm  # type: ignore[assignment]  # further arguments are handed on as they are
    try:
        yield
    finally:
        functional.layer_norm = plain


def step_memory(settings: ModelConfig, training: TrainingConfig, n_labels: int = 0) -> StepMemory:
    """Count the memory of a training's steps on a GPU, in the first of its stages; takes seconds at any shape.

    Args:
        settings: Of the model; its shape is that of the scans.
        training: Batch size, precision (``bf16``, else float32), averaging, recomputation.
        n_labels: Labels of the scans besides the background; 0 is none.
    """
    with FakeTensorMode():
        return _measured(settings, training, n_labels)


def _measured(settings: ModelConfig, training: TrainingConfig, n_labels: int) -> StepMemory:
    """As :func:`step_memory`, on whatever tensors are made."""
    training = training.model_copy(update={"augment": None})
    precision = Precision(torch.device("cpu"), training.precision == "bf16")
    data = _scans(settings, training.batch_size * training.accumulate, n_labels)
    with torch.random.fork_rng(devices=[]), Held() as held, _as_on_cuda():
        model = build(settings, seed=0).train()
        channels_innermost(model)
        set_recomputation(model, training)
        loop = Loop(model, data, None, training, 0, connect(precision), precision, None, None)
        loop.average = [tensor.detach().clone() for tensor in loop.live]
        # The optimiser's state appears in the first step; the second is like all others.
        for _ in range(2):
            loop.update()
            held.peak = held.now
        loop.update()
        return StepMemory(held.now, held.peak, model.parameter_count)


def _scans(settings: ModelConfig, count: int, n_labels: int) -> Dataset:
    names = tuple(map(str, range(count)))
    images = torch.empty((count, settings.in_channels, *settings.shape))
    foregrounds = torch.empty((count, 1, *settings.shape), dtype=torch.bool)
    labels = torch.empty(foregrounds.shape, dtype=torch.uint8) if n_labels else None
    return Dataset(names, names, images, foregrounds, labels)
