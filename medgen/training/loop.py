"""The inside of a training: its settings, one step, validation, and the state that a checkpoint holds."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from medgen.errors import TrainingError
from medgen.models.base import ScanModel
from medgen.models.stages import Phase, Role, Stage
from medgen.preprocessing.cache.cached_dataset import CachedDataset
from medgen.preprocessing.dataset import Batch
from medgen.progress import Log
from medgen.seeds import derive, torch_rng
from medgen.system.files import sha256_json
from medgen.system.precision import Precision
from medgen.system.signals import Request, Terminated
from medgen.training.batches import Scans, augmented, batch_indices, content_digest, fitted_to, resident
from medgen.training.checkpoint import CHECKPOINT, conditions, load_checkpoint, save_checkpoint
from medgen.training.config import TrainingConfig
from medgen.training.finite_watch import FiniteWatch, all_finite, listed
from medgen.training.ranks import Ranks, average_gradients
from medgen.training.schedule import learning_rate, phase_rate, stage_configs
from medgen.training.transfer.start import Start, trained_groups

logger = logging.getLogger(__name__)

# What a checkpoint holds beside tensors.
_SCALARS = ("step", "start", "seconds", "stale", "stopped", "best_value", "history")


@dataclass
class Loop:
    """State of one training: what a checkpoint holds, and the steps that change it."""

    model: ScanModel
    train: Scans
    validation: Scans | None
    config: TrainingConfig
    seed: int
    ranks: Ranks
    precision: Precision
    out: Path | None
    log: Log | None
    source: Start | None = None
    step: int = 0
    # The step at which the present stage began, and its number.
    start: int = 0
    place: int = 0
    seconds: float = 0.0
    stale: int = 0
    stopped: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    best_value: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stages = tuple(self.model.stages())
        self.configs = stage_configs(self.stages, self.config)
        self.average: list[Tensor] = []
        self.data = resident(self.train, self.ranks.device)
        self.watch = FiniteWatch("training.lr")
        self.factors = {} if self.source is None else self.source.factors_of(self.model)
        self._enter(0)

    def _enter(self, place: int) -> None:
        """Make a stage the present one, with optimisers that have not made a step."""
        self.place = place
        groups = {name: trained_groups(phase, self.factors) for name, phase in self.phases.items()}
        self.moving = {name: [own for parameters, _ in parts for own in parameters] for name, parts in groups.items()}
        self.optimisers = {name: self._optimiser(phase, groups[name]) for name, phase in self.phases.items()}
        trained = {
            id(own) for name, phase in self.phases.items() if phase.role is Role.MODEL for own in self.moving[name]
        }
        weights = [parameter for parameter in self.model.parameters() if id(parameter) in trained]
        self.live: list[Tensor] = [*weights, *self.model.averaged_buffers()] if self.config.ema else []

    def _optimiser(self, phase: Phase, groups: Sequence[tuple[list[nn.Parameter], float]]) -> torch.optim.AdamW:
        config = self.settings
        options: dict[str, Any] = {
            "lr": config.lr,
            "betas": phase.betas or config.betas,
            "weight_decay": config.weight_decay,
        }
        parts = [{"params": parameters, "factor": factor} for parameters, factor in groups]
        return torch.optim.AdamW(parts, **options, fused=True)

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self.stages[self.place]

    @property
    def phases(self) -> Mapping[str, Phase]:
        """What its steps consist of."""
        return self.stage.phases

    @property
    def settings(self) -> TrainingConfig:
        """The settings of the present stage."""
        return self.configs[self.place]

    @property
    def done(self) -> int:
        """Steps of the present stage that are done."""
        return self.step - self.start

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that determines the course of this training: settings, seed, source, and every voxel it sees."""
        return sha256_json(
            {
                # A source counts by its content, wherever it lies.
                "training": self.config.model_dump(mode="json", exclude={"init"}),
                **({} if self.source is None else {"init": self.source.fingerprint()}),
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
        """Stages up to the last one's end, or a request to stop; the model's weights are then the averaged, or best."""
        self._run_stage(stop, advance)
        while self.place + 1 < len(self.stages):
            self._next_stage()
            self._run_stage(stop, advance)
        self._adopt_average()

    def _run_stage(self, stop: Request, advance: Callable[[int, dict[str, float]], None]) -> None:
        """Steps up to the stage's end, an early stop, or a request to stop."""
        config = self.settings
        start, before = time.perf_counter(), self.seconds
        self.model.train()
        while self.done < config.steps and not self.stopped:
            self._one_step()
            last = self.done == config.steps
            advance(self.step, self._flush() if last or self.done % config.log_every == 0 else {})
            if config.validate_every and (last or self.done % config.validate_every == 0):
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

    def _next_stage(self) -> None:
        """Keep what the stage has led to, let the model prepare the next one, and begin it.

        Nothing is written: a training that is resumed at this point does it again, from the last step's checkpoint.
        """
        self._adopt_average()
        following = self.stages[self.place + 1]
        self.model.eval()
        torch.manual_seed(derive(self.seed, "stage", following.name))
        self.model.begin_stage(following.name, fitted_to(self.train))
        self.ranks.share_weights(self.model)
        self._enter(self.place + 1)
        self.start, self.stale, self.stopped, self.best, self.best_value = self.step, 0, False, {}, math.inf
        self.average = [tensor.detach().clone() for tensor in self.live]
        logger.info("stage %s begins after step %d", following.name, self.step)

    def _one_step(self) -> None:
        mine, numbers = self.update()
        self.watch.add(self.step, [self.train.ids[row] for row in mine], numbers)

    def update(self) -> tuple[list[int], dict[str, Tensor]]:
        """One step of every phase, without a look at its numbers; the cases of this process, and the numbers."""
        config, ranks = self.settings, self.ranks
        batches = self._batches(cases := self._cases(self.step))
        numbers: dict[str, Tensor] = {}
        for name, phase in self.phases.items():
            if self.done % phase.every:
                continue
            said = [self._backward(name, batch, place) for place, batch in batches.items()]
            terms = said[0] if len(said) == 1 else _means(said)
            average_gradients(ranks, self.moving[name])
            norm = torch.nn.utils.clip_grad_norm_(self.moving[name], config.clip or math.inf, foreach=True)
            optimiser = self.optimisers[name]
            for group in optimiser.param_groups:
                group["lr"] = phase_rate(config, phase, self.done) * group["factor"]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            numbers |= {self._prefix(name) + key: value for key, value in {**terms, "gradient": norm}.items()}
        ranks.average_buffers(self.model.shared_buffers())
        if self.live:
            decay = min(config.ema, (1 + self.done) / (10 + self.done))
            get_ema_multi_avg_fn(decay)(self.average, [tensor.detach() for tensor in self.live], self.step)
        self.step += 1
        return [row for number in self._own for row in self._rows(cases, number)], numbers

    def _backward(self, name: str, batch: Batch, place: tuple[int, ...]) -> dict[str, Tensor]:
        """Add one batch's share of the gradient of a phase; the terms of its loss."""
        torch.manual_seed(derive(self.seed, "phase", name, *place))
        with self.ranks.autocast():
            terms = self.model.loss(name, batch)
        loss = terms["loss"] if self.config.accumulate == 1 else terms["loss"] / self.config.accumulate
        # Only this phase's gradients: the others' parameters stay untouched without being frozen.
        loss.backward(inputs=self.moving[name])
        return {key: value.detach() for key, value in terms.items()}

    @property
    def _own(self) -> range:
        """The batches of a step that are this process's, by their numbers among those of all processes."""
        return range(self.ranks.rank, self.config.accumulate * self.ranks.count, self.ranks.count)

    def _rows(self, cases: Sequence[int], number: int) -> Sequence[int]:
        """The cases of a batch of a step."""
        return cases[number * self.config.batch_size : (number + 1) * self.config.batch_size]

    def _batches(self, cases: Sequence[int]) -> dict[tuple[int, ...], Batch]:
        """This process's batches of a step, whose gradients are averaged, by what their draws follow.

        Batches, and what is drawn for each, are the same whether one process has ``accumulate`` of them or each of as
        many processes has one: how many machines a training has changes its sums by rounding alone.
        """
        config = self.settings
        epoch = self.step * self._cases_per_step // len(self.train)
        batches = {}
        for number in self._own:
            # The first one draws as the only batch of a step does.
            place = (epoch, self.step, 0, *([number] if number else []))
            batch = self.data.batch(self._rows(cases, number), self.done / config.steps, self.ranks.device)
            if config.augment is not None:
                batch = augmented(batch, config.augment, torch_rng(self.seed, "augment", *place))
            batches[place] = batch
        if isinstance(self.data, CachedDataset) and self.done + 1 < config.steps:
            coming = self._cases(self.step + 1)
            self.data.expect([self._rows(coming, number) for number in self._own], self.ranks.device)
        return batches

    @property
    def _cases_per_step(self) -> int:
        return self.config.batch_size * self.config.accumulate * self.ranks.count

    def _cases(self, step: int) -> list[int]:
        """The cases of a step, of all processes."""
        return batch_indices(len(self.train), self._cases_per_step, step, self.seed)

    def _prefix(self, phase: str = "") -> str:
        """What stands before logged numbers: the stage and the phase, each where there are several."""
        parts = [self.stage.name] if len(self.stages) > 1 else []
        parts += [phase] if phase and len(self.phases) > 1 else []
        return "".join(f"{part}/" for part in parts)

    def _flush(self) -> dict[str, float]:
        """Bring the numbers of the last steps to the CPU, all at once, refuse what is not finite, and log the means."""
        values = self.watch.take()
        if not values:
            return {}
        record = self.ranks.mean({name: sum(series) / len(series) for name, series in values.items()})
        self._record({**record, self._prefix() + "lr": learning_rate(self.settings, self.done - 1)})
        return record

    def _sound(self) -> None:
        """Refuse weights, averages and buffers that are not finite, so that none is ever kept."""
        state = [*self.model.state_dict().values(), *self.average]
        if not all_finite(state):
            names = listed([self.train.ids[row] for row in self._cases(max(self.step - 1, 0))])
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
        first, size, monitor = next(iter(self.phases)), self.config.batch_size, self.stage.monitor
        self._swap()
        self.model.eval()
        total = 0.0
        for start in range(0, len(self.validation), size):
            rows = range(start, min(start + size, len(self.validation)))
            # The same draws every time, so that two looks differ by the weights alone.
            torch.manual_seed(derive(self.seed, "validation", start))
            with self.ranks.autocast():
                terms = self.model.loss(first, self.validation.batch(rows, 1.0).to(self.ranks.device))
            loss = (terms.get("monitor", terms["loss"]) if monitor is None else terms[monitor]).item()
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
            if self.settings.patience:
                self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.stale += 1
        self._swap()
        self.model.train()
        self._record({self._prefix() + "validation": value})
        self.stopped = 0 < self.settings.patience <= self.stale

    def _swap(self) -> None:
        """Exchange live and averaged weights."""
        for tensor, average in zip(self.live, self.average, strict=True):
            tensor.data, average.data = average.data, tensor.data

    def _adopt_average(self) -> None:
        """Make the averaged, or with early stopping the best, weights the model's own."""
        with torch.no_grad():
            for tensor, average in zip(self.live, self.average, strict=True):
                tensor.copy_(average)
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
                "stage": self.stage.name,
                "model": self.model.state_dict(),
                "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
                "average": self.average,
                "best": self.best,
                **{name: getattr(self, name) for name in _SCALARS},
            },
        )

    def begin(self) -> None:
        """Prepare the first step: the model's own start, the same weights everywhere, averages equal to them."""
        self.model.initialize(fitted_to(self.train))
        if self.source is not None:
            self.source.apply(self.model)
        self.ranks.share_weights(self.model)
        self.average = [tensor.detach().clone() for tensor in self.live]

    def load(self) -> bool:
        """Go on from the checkpoint; False if there is none."""
        if self.out is None:
            return False
        state = load_checkpoint(self.out, self.fingerprint, self.ranks.device, self.conditions)
        if state is None:
            return False
        try:
            self._enter([stage.name for stage in self.stages].index(state["stage"]))
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


def _means(said: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every term over the batches that have it."""
    names = dict.fromkeys(name for terms in said for name in terms)
    return {name: torch.stack([terms[name].float() for terms in said if name in terms]).mean() for name in names}
