"""Small stand-ins for models and scans, and what a training step of them does, takes and keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medgen.models.base import DrawsLabels, GenerativeModel, ModelConfig, PaintsLabels, ScanModel
from medgen.models.catalogue import build
from medgen.models.networks.blocks import Recomputed
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.system.precision import Precision
from medgen.training.config import TrainingConfig
from medgen.training.counting import KeptForBackward, Operations, timed, unchanged
from medgen.training.recomputation import set_recomputation

# Voxels of a stand-in: large enough that the time per voxel is that of the real thing, small enough for any machine.
_STAND_IN = 48**3
# Voxels along an axis of the smaller stand-in, and from how many on an axis is shortened to it. Twice as many at least,
# and a power of two: networks that halve a volume four times then see whole numbers of places.
_SHORT, _LONG = 16, 32


@dataclass(frozen=True)
class Work:
    """What one step of one phase takes in one volume.

    Attributes:
        seconds: For it, forwards and backwards.
        operations: Floating-point operations of the forward pass, by part.
        kept: Bytes that are kept for the backward pass, by part.
        inside: Bytes of the largest block that is computed again, while it is.
        every: It is done in one of so many steps.
    """

    seconds: float
    operations: Sequence[float]
    kept: Sequence[float]
    inside: float
    every: int


def stand_in(shape: Sequence[int], voxels: int = _STAND_IN) -> tuple[int, int, int]:
    """The shape itself if it is small, else one of about the same proportions and at most so many voxels, 48³.

    >>> stand_in((40, 56, 40)), stand_in((256, 256, 128))
    ((40, 56, 40), (56, 56, 24))
    """
    i, j, k = (int(n) for n in shape)
    factor = (voxels / (i * j * k)) ** (1 / 3)
    if factor >= 1:
        return i, j, k
    small = [min(n, max(16, 8 * int(n * factor / 8))) for n in (i, j, k)]
    return small[0], small[1], small[2]


def smaller(shape: Sequence[int]) -> tuple[int, int, int]:
    """A second stand-in beside one of this shape: its long axes shortened.

    >>> smaller((48, 48, 48)), smaller((56, 56, 24))
    ((16, 16, 16), (16, 16, 24))
    """
    i, j, k = (_SHORT if size >= _LONG else int(size) for size in shape)
    return i, j, k


def sampler(model: ScanModel, batch: Batch) -> Callable[[], object] | None:
    """What makes one scan, or label map, of a model."""
    if isinstance(model, GenerativeModel):
        return lambda: model.sample(1)
    if isinstance(model, PaintsLabels):
        labels = torch.zeros_like(batch.foreground, dtype=torch.long) if batch.labels is None else batch.labels
        return lambda: model.paint(labels, model.encode_style(batch.image)[0])
    if isinstance(model, DrawsLabels):
        return lambda: model.sample_labels(1)
    return None


def stand_in_model(settings: ModelConfig, shape: Sequence[int], precision: Precision) -> ScanModel:
    """A model as it would be built for scans of another shape, ready to be trained."""
    model = build(settings.model_copy(update={"shape": tuple(shape)}), seed=0).train()
    precision.place(model)
    return model


def random_batch(settings: ModelConfig, size: int, n_labels: int) -> Batch:
    """So many scans of uniform noise for a model, all foreground, with labels 0 to ``n_labels``; 0 for none."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((size, settings.in_channels, *settings.shape), generator=generator)
    foreground = torch.ones((size, 1, *settings.shape))
    labels = torch.randint(0, n_labels + 1, foreground.shape, generator=generator) if n_labels else None
    return Batch(image, foreground, labels, progress=0.5)


def step_work(
    model: ScanModel, training: TrainingConfig, size: int, n_labels: int, where: torch.device, precision: Precision
) -> list[list[Work]]:
    """What the phases of every stage take, with ``size`` scans in a batch."""
    random = random_batch(model.settings, size, n_labels)
    batch = random.to(where)
    found = []
    for place, stage in enumerate(model.stages()):
        if place:
            model.eval().begin_stage(stage.name, _as_dataset(random))
            model.train()
        works = []
        for name, phase in stage.phases.items():
            own = list(phase.parameters)

            def forward(phase: str = name) -> Tensor:
                with precision.autocast():
                    return model.loss(phase, batch)["loss"]

            def step(forward: Callable[[], Tensor] = forward, own: Sequence[nn.Parameter] = own) -> None:
                torch.autograd.backward(forward(), inputs=list(own))

            again = set_recomputation(model, training)
            inside = _largest_inside(model, forward, own) if again else 0.0
            set_recomputation(model, training)
            torch.manual_seed(0)
            counter = KeptForBackward(own)
            with Operations() as counted, torch.autograd.graph.saved_tensors_hooks(counter, unchanged):
                loss = forward()
            torch.autograd.backward(loss, inputs=own)
            torch.manual_seed(0)
            works.append(Work(timed(step, where), counted.parts, counter.parts, inside, phase.every))
        found.append(works)
    return found


def _as_dataset(batch: Batch) -> Dataset:
    names = tuple(f"scan-{number}" for number in range(len(batch.image)))
    labels = None if batch.labels is None else batch.labels.to(torch.uint8)
    return Dataset(names, names, batch.image, batch.foreground.bool(), labels)


def _largest_inside(model: ScanModel, forward: Callable[[], Tensor], parameters: Sequence[Tensor]) -> float:
    """Bytes that the largest block keeps of its inside, which come back for a moment where it is computed again."""
    blocks = [module for module in model.modules() if isinstance(module, Recomputed)]
    counter, before, largest = KeptForBackward(parameters), dict[int, float](), [0.0]

    def enter(module: nn.Module, inputs: object) -> None:
        before[id(module)] = counter.total

    def leave(module: nn.Module, inputs: object, made: object) -> None:
        largest[0] = max(largest[0], counter.total - before[id(module)])

    handles = [block.register_forward_pre_hook(enter) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    for block in blocks:
        block.recompute = False
    try:
        with torch.autograd.graph.saved_tensors_hooks(counter, unchanged):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return largest[0]
