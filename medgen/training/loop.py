"""The inside of a training: its settings, one step, validation, and the state that a checkpoint holds."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from medgen.errors import TrainingError
from medgen.models.base import ScanModel
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.progress import Log
from medgen.seeds import derive, numpy_rng, torch_rng
from medgen.system.files import sha256_json
from medgen.system.signals import Request, Terminated
from medgen.training.checkpoint import CHECKPOINT, conditions, load_checkpoint, save_checkpoint
from medgen.training.config import TrainingConfig
from medgen.training.finite_watch import FiniteWatch, all_finite, listed
from medgen.training.precision import Precision
from medgen.training.ranks import Ranks, average_gradients
from medgen.transforms.augmentation import AugmentConfig, augment

logger = logging.getLogger(__name__)

# What a checkpoint holds beside tensors.
_SCALARS = ("step", "seconds", "stale", "stopped", "best_value", "history")


def batch_indices(n: int, size: int, step: int, seed: int) -> list[int]:
    """Cases of a step: ``size`` places in an endless row of permutations of ``n``, one permutation per epoch.

    >>> sorted(batch_indices(4, 2, 0, seed=0) + batch_indices(4, 2, 1, seed=0))
    [0, 1, 2, 3]
    """
    orders: dict[int, list[int]] = {}
    places = range(step * size, (step + 1) * size)
    for epoch in {place // n for place in places}:
        orders[epoch] = numpy_rng(seed, "order", epoch).permutation(n).tolist()
    return [orders[place // n][place % n] for place in places]


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017), for a step counted from 0."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def augmented(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """All maps of a batch moved through one grid, then the image's intensities changed."""
    masks = {"foreground": batch.foreground.long()}
    if batch.labels is not None:
        masks["labels"] = batch.labels
    if batch.confidence is not None:
        masks["confidence"] = (batch.confidence * 255).round().long()
    image, moved = augment(batch.image, torch.cat(list(masks.values()), dim=1), config, generator)
    if moved is None:
        raise TrainingError("augmentation returned no masks")
    found = dict(zip(masks, moved.split(1, dim=1), strict=True))
    confidence = None if batch.confidence is None else found["confidence"].float() / 255
    foreground = found["foreground"].float()
    return replace(batch, image=image, foreground=foreground, labels=found.get("labels"), confidence=confidence)


@dataclass
class Loop:
    """State of one training: what a checkpoint holds, and the steps that change it."""

    model: ScanModel
    train: Dataset
    validation: Dataset | None
    config: TrainingConfig
    seed: int
    ranks: Ranks
    precision: Precision
    out: Path | None
    log: Log | None
    step: int = 0
    seconds: float = 0.0
    stale: int = 0
    stopped: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    best_value: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.phases = self.model.phases()
        options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
        self.optimisers = {
            name: torch.optim.AdamW(parameters, **options, fused=True) for name, parameters in self.phases.items()
        }
        averaged = {id(p) for name, group in self.phases.items() if name != "discriminator" for p in group}
        self.live = [p for p in self.model.parameters() if id(p) in averaged] if config.ema else []
        self.average: list[Tensor] = []
        self.data = _resident(self.train, self.ranks.device)
        self.watch = FiniteWatch("training.lr")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that determines the course of this training: settings, seed, and every voxel it sees."""
        return sha256_json(
            {
                "training": self.config.model_dump(mode="json"),
                "model": self.model.settings.model_dump(mode="json"),
                "seed": self.seed,
                "train": content_digest(self.train),
                "validation": None if self.validation is None else content_digest(self.validation),
            }
        )

    @cached_property
    def conditions(self) -> dict[str, str]:
        """What else changes the last bits, see :func:`medgen.training.checkpoint.conditions`."""
        return conditions(self.precision, self.ranks.count)

    def run(self, stop: Request, advance: Callable[[int, dict[str, float]], None]) -> None:
        """Steps up to the end, an early stop, or a request to stop."""
        config = self.config
        start, before = time.perf_counter(), self.seconds
        self.model.train()
        while self.step < config.steps and not self.stopped:
            self._one_step()
            last = self.step == config.steps
            advance(self.step, self._flush() if last or self.step % config.log_every == 0 else {})
            if config.validate_every and (last or self.step % config.validate_every == 0):
                self._flush()
                self._validate()
            self.seconds = before + time.perf_counter() - start
            ending = self.ranks.any(stop.is_set())
            if ending or self.stopped or last or self.step % config.checkpoint_every == 0:
                self._flush()
                self.save()
            if ending:
                logger.warning("terminated after step %d%s", self.step, "" if self.out is None else ", checkpoint kept")
                raise Terminated(stop.number or signal.SIGTERM)

    def _one_step(self) -> None:
        config, ranks = self.config, self.ranks
        size = config.batch_size * ranks.count
        everyone = batch_indices(len(self.train), size, self.step, self.seed)
        mine = everyone[ranks.rank :: ranks.count]
        place = (self.step * size // len(self.train), self.step, ranks.rank)
        batch = self.data.batch(mine, self.step / config.steps).to(ranks.device)
        if config.augment is not None:
            batch = augmented(batch, config.augment, torch_rng(self.seed, "augment", *place))
        numbers: dict[str, Tensor] = {}
        for phase, parameters in self.phases.items():
            torch.manual_seed(derive(self.seed, "phase", phase, *place))
            with ranks.autocast():
                terms = self.model.loss(phase, batch)
            # Only this phase's gradients: the others' parameters stay untouched without being frozen.
            terms["loss"].backward(inputs=parameters)
            average_gradients(ranks, parameters)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or math.inf, foreach=True)
            optimiser = self.optimisers[phase]
            factor = config.lr_discriminator if phase == "discriminator" else 1.0
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, self.step) * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            prefix = f"{phase}/" if len(self.phases) > 1 else ""
            numbers |= {prefix + name: value.detach() for name, value in {**terms, "gradient": norm}.items()}
        ranks.average_buffers(self.model.shared_buffers())
        if self.live:
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            get_ema_multi_avg_fn(decay)(self.average, [p.detach() for p in self.live], self.step)
        self.step += 1
        self.watch.add(self.step, [self.train.ids[row] for row in mine], numbers)

    def _flush(self) -> dict[str, float]:
        """Bring the numbers of the last steps to the CPU, all at once, refuse what is not finite, and log the means."""
        values = self.watch.take()
        if not values:
            return {}
        record = {name: sum(series) / len(series) for name, series in values.items()}
        self._record({**record, "lr": learning_rate(self.config, self.step - 1)})
        return record

    def _sound(self) -> None:
        """Refuse weights, averages and buffers that are not finite, so that none is ever kept."""
        state = [*self.model.state_dict().values(), *self.average]
        if not all_finite(state):
            rows = batch_indices(
                len(self.train), self.config.batch_size * self.ranks.count, max(self.step - 1, 0), self.seed
            )
            names = listed([self.train.ids[row] for row in rows])
            raise TrainingError(
                f"the weights are not finite after step {self.step} with the cases {names}; nothing was "
                "kept of them; lower training.lr, or set training.clip"
            )

    def _record(self, numbers: dict[str, float]) -> None:
        if self.history and self.history[-1]["step"] == self.step:
            self.history[-1].update(numbers)
        else:
            self.history.append({"step": self.step, **numbers})
        if self.log is not None and self.ranks.first:
            self.log(numbers, self.step)

    @torch.no_grad()
    def _validate(self) -> None:
        if self.validation is None:
            return
        first, size = next(iter(self.phases)), self.config.batch_size
        self._swap()
        self.model.eval()
        total = 0.0
        for start in range(0, len(self.validation), size):
            rows = range(start, min(start + size, len(self.validation)))
            # The same draws every time, so that two looks differ by the weights alone.
            torch.manual_seed(derive(self.seed, "validation", start))
            with self.ranks.autocast():
                terms = self.model.loss(first, self.validation.batch(rows, 1.0).to(self.ranks.device))
            loss = terms.get("monitor", terms["loss"]).item()
            if not math.isfinite(loss):
                names = listed([self.validation.ids[row] for row in rows])
                raise TrainingError(
                    f"the validation loss is {loss} at step {self.step} with the cases {names}; "
                    "check their intensities, or lower training.lr"
                )
            total += loss * len(rows)
        value = self.ranks.agree(total / len(self.validation))
        if value < self.best_value:
            self.best_value, self.stale = value, 0
            if self.config.patience:
                self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.stale += 1
        self._swap()
        self.model.train()
        self._record({"validation": value})
        self.stopped = 0 < self.config.patience <= self.stale

    def _swap(self) -> None:
        """Exchange live and averaged weights."""
        for parameter, average in zip(self.live, self.average, strict=True):
            parameter.data, average.data = average.data, parameter.data

    def adopt_average(self) -> None:
        """Make the averaged, or with early stopping the best, weights the model's own."""
        with torch.no_grad():
            for parameter, average in zip(self.live, self.average, strict=True):
                parameter.copy_(average)
        if self.best:
            self.model.load_state_dict(self.best)

    def save(self) -> None:
        """Write the checkpoint; rank 0 only.

        Raises:
            TrainingError: If the weights are not finite.
        """
        self._sound()
        if self.out is None or not self.ranks.first:
            return
        save_checkpoint(
            self.out,
            {
                "fingerprint": self.fingerprint,
                "conditions": self.conditions,
                "model": self.model.state_dict(),
                "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
                "average": self.average,
                "best": self.best,
                **{name: getattr(self, name) for name in _SCALARS},
            },
        )

    def begin(self) -> None:
        """Prepare the first step: the model's own start, the same weights everywhere, averages equal to them."""
        self.model.initialize(self.train)
        self.ranks.share_weights(self.model)
        self.average = [p.detach().clone() for p in self.live]

    def load(self) -> bool:
        """Go on from the checkpoint; False if there is none."""
        if self.out is None:
            return False
        state = load_checkpoint(self.out, self.fingerprint, self.ranks.device, self.conditions)
        if state is None:
            return False
        try:
            self.model.load_state_dict(state["model"])
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
            self.average = state["average"]
            self.best = state["best"]
            for name in _SCALARS:
                setattr(self, name, state[name])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"{self.out / CHECKPOINT}: does not fit this training ({error.__class__.__name__}); remove it to start "
                "again"
            ) from None
        self._sound()
        return True


def content_digest(data: Dataset) -> str:
    """SHA-256 of ids and of every voxel, so that a scan that was changed under the same name is noticed."""
    digest = hashlib.sha256(sha256_json([data.ids, data.subjects]).encode())
    for tensor in (data.images, data.foregrounds, data.labels, data.confidence):
        if tensor is not None:
            array = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _resident(data: Dataset, device: torch.device) -> Dataset:
    """The data set in GPU memory if it takes at most a quarter of what is free, else where it is."""
    if device.type != "cuda":
        return data
    size = sum(t.numel() * t.element_size() for t in (data.images, data.foregrounds))
    if size * 4 > torch.cuda.mem_get_info(device)[0]:
        return data
    return replace(
        data,
        images=data.images.to(device),
        foregrounds=data.foregrounds.to(device),
        labels=None if data.labels is None else data.labels.to(device),
        confidence=None if data.confidence is None else data.confidence.to(device),
    )
