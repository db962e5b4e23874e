"""The downstream segmenter of the value study: a small 3D U-Net, trained for a fixed number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from medgen.config import Config
from medgen.errors import TrainingError
from medgen.models.families.segmenter import ScanSegmenter, SegmenterSettings
from medgen.models.losses import dice_cross_entropy
from medgen.models.networks.unet import SegmenterUNet
from medgen.models.stages import Phase
from medgen.seeds import derive, torch_rng
from medgen.segmentation.mean_teacher import MeanTeacher
from medgen.segmentation.recipe import LabelledBatch, LabelledImages, LabelledSet, Recipe
from medgen.system.precision import Precision, precision_of
from medgen.system.precision_names import PrecisionName
from medgen.training.finite_watch import FiniteWatch
from medgen.training.trainer import device_of
from medgen.training.transfer.start import Start, trained_groups
from medgen.transforms.augmentation import AugmentConfig, augment

Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
_VOXELS = (2, 3, 4)


class SegmenterConfig(Config):
    """Network and training of a segmenter.

    Attributes:
        channels: Width of each level; every level after the first halves the resolution.
        residual_units: Convolutions per residual block; 0 for plain blocks.
        steps: Optimiser steps; every arm of a study gets the same number.
        batch_size: Scans per step.
        lr: Largest learning rate; linear warm-up over 5 % of the steps, then a cosine to zero.
        weight_decay: Weight decay of the optimiser, AdamW.
        clip: Largest norm of the gradient.
        precision: Number format of the forward passes, see :func:`medgen.system.precision.precision_of`.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    residual_units: Annotated[int, Field(ge=0, le=4)] = 0
    steps: Annotated[int, Field(ge=1)] = 600
    batch_size: Annotated[int, Field(ge=1)] = 4
    lr: Positive = 5e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Positive = 1.0
    precision: PrecisionName = "auto"

    @model_validator(mode="after")
    def _levels(self) -> SegmenterConfig:
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ValueError("channels: expected at least two positive widths, such as [16, 32, 64]")
        return self

    def network(self, in_channels: int, n_classes: int) -> SegmenterUNet:
        """A network of these settings with random weights."""
        return SegmenterUNet(self.channels, self.residual_units, in_channels, n_classes)

    def model(self, shape: Sequence[int], n_classes: int) -> ScanSegmenter:
        """The same network as a model of scans of ``shape`` (c, i, j, k), whose tensors a start is matched with."""
        channels, *grid = shape
        given = {"channels": self.channels, "residual_units": self.residual_units}
        settings = {**given, "n_labels": n_classes - 1, "in_channels": channels, "shape": tuple(grid)}
        return ScanSegmenter(SegmenterSettings.model_validate(settings))


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained segmenter.

    Attributes:
        network: Maps standardised images to one score per class.
        classes: Label number of each output channel; the first is 0, the background.
        precision: Device and number format.
        history: (step, loss) in steps of ten.
    """

    network: nn.Module
    classes: tuple[int, ...]
    precision: Precision
    history: tuple[tuple[int, float], ...] = ()

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch: int = 4) -> Tensor:
        """Class probabilities (n, classes, i, j, k) float32, on the CPU, of images (n, c, i, j, k)."""
        self.network.eval()
        results = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch].to(self.precision.device)
            with self.precision.autocast():
                scores = self.network(part)
            results.append(scores.float().softmax(dim=1).cpu())
        return torch.cat(results)

    def predict(self, images: Tensor, batch: int = 4) -> Tensor:
        """The most probable label number per voxel, (n, 1, i, j, k) int64, on the CPU."""
        numbers = torch.tensor(self.classes)
        return numbers[self.probabilities(images, batch).argmax(dim=1, keepdim=True)]

    @torch.no_grad()
    def features(self, images: Tensor, batch: int = 4) -> Tensor:
        """Mean and standard deviation of what each convolution puts out, one row per image.

        These are the channel statistics that describe the look of an image (Huang and Belongie, "Arbitrary style
        transfer in real-time with adaptive instance normalization", ICCV 2017), at every resolution of the network.
        They are taken *before* the normalisation, which sets them to 0 and 1.

        Args:
            images: (n, c, i, j, k).
            batch: Images at a time.

        Returns:
            (n, 2 x output channels of all convolutions) float32, on the CPU; in the order of the network's modules.
        """
        self.network.eval()
        outputs: dict[int, Tensor] = {}

        def keep(number: int, output: Tensor) -> None:
            outputs[number] = torch.cat([output.mean(dim=_VOXELS), output.std(dim=_VOXELS, correction=0)], dim=1)

        rows = []
        with self._hearing((nn.Conv3d, nn.ConvTranspose3d), keep):
            for start in range(0, len(images), batch):
                # In full precision: rounding would be a difference between scans.
                self.network(images[start : start + batch].to(self.precision.device))
                rows.append(torch.cat([outputs[number] for number in sorted(outputs)], dim=1).cpu())
        return torch.cat(rows)

    @torch.no_grad()
    def deepest(self, images: Tensor, batch: int = 8) -> Tensor:
        """Mean activations of the deepest convolution, (n, features) float32, on the CPU, of images (n, c, i, j, k)."""
        kept: list[Tensor] = []
        rows = []
        with self._hearing((nn.Conv3d,), lambda _, output: kept.append(output)):
            for start in range(0, len(images), batch):
                kept.clear()
                self.probabilities(images[start : start + batch], batch)
                # The deepest layer has the fewest voxels; of several, the last.
                found = min(reversed(kept), key=lambda output: output[0, 0].numel())
                rows.append(found.float().mean(dim=_VOXELS).cpu())
        return torch.cat(rows)

    @contextmanager
    def _hearing(self, kinds: tuple[type[nn.Module], ...], keep: Callable[[int, Tensor], None]) -> Iterator[None]:
        """``keep`` is called with the number and output of every layer of these kinds that is used."""
        layers = enumerate(module for module in self.network.modules() if isinstance(module, kinds))
        hooks = [layer.register_forward_hook(lambda _m, _i, out, n=n: keep(n, out)) for n, layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def train_segmenter(
    train: LabelledImages,
    config: SegmenterConfig,
    seed: int,
    *,
    labels: Sequence[int],
    augmentation: AugmentConfig | None = None,
    synthetic: LabelledImages | None = None,
    p_synthetic: float = 0.5,
    recipe: Recipe | None = None,
    start: Start | None = None,
    device: str = "auto",
) -> Segmenter:
    """Train a segmenter by Dice + cross-entropy for exactly ``config.steps`` steps.

    Every draw is derived from (seed, step): two arms that differ in augmentation, recipe or synthetic scans see the
    same real scans in the same order, and take the same number of optimiser steps.

    Args:
        train: Real scans with labels; voxels weigh as much as their ``confidence``, if it has one.
        config: Network and training.
        seed: Seed of the initial weights, the order of the scans and their augmentation.
        labels: Label numbers to learn, without 0; others count as background.
        augmentation: Applied to every scan of a batch, real or synthetic.
        synthetic: Labelled scans on the same grid; each element of a batch is replaced by one with probability
            ``p_synthetic``, annealed linearly to 0 over the last quarter of the steps, so that training ends on real
            scans.
        p_synthetic: See above; 1 trains on synthetic scans until the last quarter.
        recipe: How to train, instead of ``augmentation`` alone; see :mod:`medgen.segmentation.ordinary`.
        start: What is taken from a trained segmenter, see :func:`medgen.segmentation.start.segmenter_start`; all
            other weights are those that the seed gives.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Returns:
        The segmenter in evaluation mode.

    Raises:
        TrainingError: If there is no scan, scans have no labels, grids differ, both ``recipe`` and ``augmentation``
            are given, or a loss, gradient or weight is not finite (with the scans of that step).
    """
    if recipe is not None and augmentation is not None:
        raise TrainingError("expected either a recipe or an augmentation, found both; the recipe holds its own")
    recipe = recipe or Recipe(augmentation)
    real, classes = _checked(train, labels, "real")
    shape = real.images.shape[1:]
    made = None if synthetic is None else _checked(synthetic, labels, "synthetic")[0]
    if made is not None:
        _same_grid(made.images, shape, "synthetic")
    if recipe.consistency is not None:
        _same_grid(recipe.consistency.images, shape, "unlabelled")
    precision = precision_of(config.precision, device_of(device))
    network, factors = _initial(config, shape, len(classes), seed, start)
    network.to(precision.device).train()
    teacher = None if recipe.consistency is None else MeanTeacher(network, recipe.consistency)
    groups = trained_groups(Phase(list(network.parameters())), factors)
    moving = [parameter for own, _ in groups for parameter in own]
    optimiser = torch.optim.AdamW([{"params": own} for own, _ in groups], weight_decay=config.weight_decay)
    history: list[tuple[int, float]] = []
    watch = FiniteWatch("segmenter.lr", "the segmenter's ")
    for step in range(config.steps):
        batch = _draw(real, made, config, seed, step, p_synthetic)
        batch = _with_extra(batch, recipe, labels, seed, step, config.steps).to(precision.device)
        names = batch.ids
        batch = _changed(batch, recipe, seed, step)
        for group, (_, factor) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = config.lr * factor * _schedule(step, config.steps)
        with precision.autocast():
            scores = network(batch.image)
        soft = batch.target.is_floating_point()
        loss = dice_cross_entropy(scores, batch.target if soft else batch.target[:, 0], batch.weight)
        if teacher is not None:
            stream = torch_rng(seed, "segmenter", "consistency", step)
            progress = step / config.steps
            size = config.batch_size
            loss = loss + teacher.loss(network, size, progress, recipe.augmentation, precision, stream)
            names += teacher.drawn
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=moving)
        norm = nn.utils.clip_grad_norm_(moving, config.clip)
        watch.add(step + 1, names, {"loss": loss.detach(), "gradient": norm})
        optimiser.step()
        if teacher is not None:
            teacher.update(network, step)
        if (step + 1) % 10 == 0 or step + 1 == config.steps:
            history.append((step + 1, watch.take()["loss"][-1]))
    # The averaged weights predict better than the last ones (Tarvainen and Valpola 2017).
    trained = network if teacher is None else teacher.network
    watch.check_weights(trained.parameters())
    return Segmenter(trained.eval(), classes, precision, tuple(history))


def _initial(
    config: SegmenterConfig, shape: Sequence[int], n_classes: int, seed: int, start: Start | None
) -> tuple[SegmenterUNet, dict[int, float]]:
    """The network at step 0, and factors on the learning rate by the id of the weight."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "segmenter", "weights"))
        if start is None:
            return config.network(shape[0], n_classes), {}
        model = config.model(shape, n_classes)
    start.apply(model)
    return model.network, start.factors_of(model)


def _checked(data: LabelledImages, labels: Sequence[int], kind: str) -> tuple[LabelledSet, tuple[int, ...]]:
    if not labels or 0 in labels or len(set(labels)) != len(labels):
        raise TrainingError(f"expected different label numbers without 0 to segment, found {list(labels)}")
    if len(data.images) == 0 or data.labels is None:
        raise TrainingError(f"the segmenter needs {kind} scans with labels, found {len(data.images)} without")
    classes = (0, *(int(label) for label in labels))
    confidence: Tensor | None = getattr(data, "confidence", None)
    known: tuple[str, ...] = getattr(data, "ids", ())
    ids = known or tuple(f"{kind} scan {number}" for number in range(1, len(data.images) + 1))
    return LabelledSet(data.images, class_indices(data.labels, labels), confidence, ids), classes


def class_indices(numbers: Tensor, labels: Sequence[int]) -> Tensor:
    """Class indices, uint8, of label numbers; numbers that are not to be learnt become 0."""
    target = torch.zeros(numbers.shape, dtype=torch.uint8, device=numbers.device)
    for index, label in enumerate(labels, start=1):
        target[numbers == label] = index
    return target


def _same_grid(images: Tensor, shape: torch.Size, kind: str) -> None:
    if images.shape[1:] != shape:
        raise TrainingError(
            f"{kind} scans of shape {tuple(images.shape[1:])} cannot be mixed with real scans of shape "
            f"{tuple(shape)}; bring them to one grid"
        )


def _draw(
    real: LabelledSet, made: LabelledSet | None, config: SegmenterConfig, seed: int, step: int, p_synthetic: float
) -> LabelledBatch:
    generator = torch_rng(seed, "segmenter", "order", step)
    batch = real.draw(config.batch_size, generator)
    if made is None:
        return batch
    probability = p_synthetic * synthetic_share(step / config.steps)
    chosen = torch.rand(config.batch_size, generator=generator) < probability
    return batch.replaced(chosen, made.draw(config.batch_size, generator).at(chosen))


def _with_extra(
    batch: LabelledBatch, recipe: Recipe, labels: Sequence[int], seed: int, step: int, steps: int
) -> LabelledBatch:
    if recipe.extra is None:
        return batch
    # A stream of its own: the real scans stay the ones that every other arm sees.
    generator = torch_rng(seed, "segmenter", "extra", step)
    probability = recipe.extra.probability * (synthetic_share(step / steps) if recipe.extra.annealed else 1.0)
    chosen = torch.rand(len(batch.image), generator=generator) < probability
    if not bool(chosen.any()):
        return batch
    made = recipe.extra.source.draw(int(chosen.sum()), generator)
    _same_grid(made.image, batch.image.shape[1:], "further")
    return batch.replaced(chosen, LabelledBatch(made.image, class_indices(made.target, labels), made.weight, made.ids))


def _changed(batch: LabelledBatch, recipe: Recipe, seed: int, step: int) -> LabelledBatch:
    """The batch after augmentation and transforms."""
    if recipe.augmentation is not None:
        batch = _augmented(batch, recipe.augmentation, torch_rng(seed, "segmenter", "augmentation", step))
    for number, transform in enumerate(recipe.transforms):
        batch = transform(batch, torch_rng(seed, "segmenter", "transform", number, step))
    return batch


def _augmented(batch: LabelledBatch, config: AugmentConfig, generator: torch.Generator) -> LabelledBatch:
    if batch.weight is None:
        image, target = augment(batch.image, batch.target, config, generator)
        return LabelledBatch(image, batch.target if target is None else target)
    # What comes from outside the grid is certainly background: doubt, not trust, is 0 there.
    doubt = ((1 - batch.weight) * 255).round().to(batch.target.dtype)
    image, both = augment(batch.image, torch.cat([batch.target, doubt], dim=1), config, generator)
    both = torch.cat([batch.target, doubt], dim=1) if both is None else both
    return LabelledBatch(image, both[:, :1], 1 - both[:, 1:].float() / 255)


def synthetic_share(progress: float) -> float:
    """Factor on the probability of a synthetic scan: 1, and over the last quarter of training down to 0.

    >>> synthetic_share(0.5), synthetic_share(0.875), synthetic_share(1.0)
    (1.0, 0.5, 0.0)
    """
    return min(1.0, max(0.0, (1 - progress) / 0.25))


def _schedule(step: int, steps: int) -> float:
    # Not medgen.training.loop.learning_rate, whose cosine starts after the warm-up: that would change every segmenter.
    warmup = max(round(0.05 * steps), 1)
    return min((step + 1) / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))
