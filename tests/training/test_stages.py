"""A training of several stages: who moves when, how fast, where it ends, and that it resumes to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medgen.errors import TrainingError
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.catalogue import build
from medgen.models.stages import Phase, Role, Stage, discriminators, stage_steps
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.training.schedule import learning_rate, phase_rate, stage_configs
from medgen.training.trainer import FitResult, Terminated, TrainingConfig, fit

SHAPE = (8, 8, 8)
CONFIG = TrainingConfig(steps=20, batch_size=2, precision="32", log_every=1, checkpoint_every=1, lr=0.01, ema=0.9)


class Staged(ScanModel):
    """A code per voxel, learnt first; then a prior of the codes and a critic that is moved every other step."""

    family = "staged"
    Settings = ModelConfig

    def __init__(self, **options: Mapping[str, Any]) -> None:
        super().__init__(ModelConfig(family="staged", shape=SHAPE))
        generator = torch.Generator().manual_seed(0)
        self.code = nn.Parameter(torch.rand(4, generator=generator))
        self.prior = nn.Parameter(torch.rand(4, generator=generator))
        self.critic = nn.Parameter(torch.rand(4, generator=generator))
        self.spread: Tensor
        self.book: Tensor
        # What begin_stage finds, and what every step of the first stage moves.
        self.register_buffer("spread", torch.zeros(4))
        self.register_buffer("book", torch.zeros(4))
        self.options, self.begun = options, list[str]()

    def stages(self) -> tuple[Stage, ...]:
        second = {
            "prior": Phase([self.prior]),
            "critic": Phase([self.critic], Role.DISCRIMINATOR, every=2, betas=(0.5, 0.9)),
        }
        return (
            Stage("codes", {"code": Phase([self.code])}, share=0.6, **self.options.get("codes", {})),
            Stage("priors", second, share=0.4, **self.options.get("priors", {})),
        )

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        mean = batch.image.mean() + 0.01 * torch.randn(())
        if phase == "code":
            if self.training:
                self.book.lerp_(self.code.detach(), 0.5)
            return {"loss": (self.code - mean).square().mean(), "progress": torch.tensor(batch.progress)}
        own = self.prior if phase == "prior" else self.critic
        loss = (own - self.code.detach() - self.spread - mean).square().mean()
        return {"loss": loss, "flat": (0 * loss + 1).detach()}

    def averaged_buffers(self) -> tuple[Tensor, ...]:
        return (self.book,)

    def begin_stage(self, name: str, dataset: Dataset) -> None:
        assert not self.training
        self.begun.append(name)
        self.spread.copy_(self.code.detach() * dataset.images.std() + torch.rand(4))


def dataset(n: int = 5, seed: int = 0) -> Dataset:
    names = tuple(f"c{seed}-{number}" for number in range(n))
    images = torch.rand((n, 1, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return Dataset(names, names, images, images >= 0)


def run(config: TrainingConfig = CONFIG, model: ScanModel | None = None, **options: Any) -> FitResult:
    return fit(Staged() if model is None else model, dataset(), config, seed=1, device="cpu", **options)


def state(result: FitResult) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in result.model.state_dict().items()}


def same(first: FitResult, second: FitResult) -> None:
    for name, tensor in state(first).items():
        assert torch.equal(tensor, state(second)[name]), name
    assert first.history == second.history


class Stop(Exception):
    """Ends a training as a killed process would, between two checkpoints."""


def stop_at(step: int) -> Any:
    def log(numbers: dict[str, float], now: int) -> None:
        if now == step:
            raise Stop

    return log


def test_steps_follow_the_shares() -> None:
    model = Staged()
    assert stage_steps(model.stages(), 20) == [12, 8]
    assert stage_steps(model.stages(), 2) == [1, 1]
    phases = model.stages()[0].phases
    many = [Stage(f"s{number}", phases, share=share) for number, share in enumerate((1e-6, 1, 1e-6))]
    assert stage_steps(many, 10) == [1, 8, 1]
    with pytest.raises(ValueError, match="3 stages need at least 3 steps"):
        stage_steps(many, 2)
    with pytest.raises(TrainingError, match=r"training\.steps: the 2 stages of staged need 2 steps"):
        run(CONFIG.model_copy(update={"steps": 1}))


def test_parts_that_are_not_trained_stay_as_they_are() -> None:
    start = state(FitResult(Staged(), [], 0, 0.0))
    seen = {}

    def log(numbers: dict[str, float], step: int) -> None:
        seen[step] = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    model = Staged()
    run(CONFIG.model_copy(update={"ema": 0.0}), model, log=log)
    assert torch.equal(seen[12]["prior"], start["prior"])
    assert torch.equal(seen[12]["critic"], start["critic"])
    assert not torch.equal(seen[12]["code"], start["code"])
    assert torch.equal(seen[20]["code"], seen[12]["code"])
    assert not torch.equal(seen[13]["prior"], start["prior"])
    # The critic moves in the first step of its stage and in every other one after it.
    moved = [not torch.equal(seen[step]["critic"], seen[step - 1]["critic"]) for step in range(13, 21)]
    assert moved == [True, False] * 4
    assert model.begun == ["priors"]


def test_a_stage_begins_with_the_averaged_weights_of_the_last_one() -> None:
    model = Staged()
    result = run(model=model)
    live = run(CONFIG.model_copy(update={"ema": 0.0}))
    assert not torch.equal(state(result)["code"], state(live)["code"])
    draws = torch.rand(4, generator=_generator_of_stage())
    torch.testing.assert_close(model.spread, model.code.detach() * dataset().images.std() + draws)


def _generator_of_stage() -> torch.Generator:
    from medgen.seeds import derive

    return torch.Generator().manual_seed(derive(1, "stage", "priors"))


def test_a_buffer_that_training_moves_is_averaged_and_the_critic_is_not() -> None:
    weights, books, critics = [], [], []

    def log(numbers: dict[str, float], step: int) -> None:
        critics.append(model.critic.detach().clone())
        if step <= 12:
            weights.append(model.code.detach().clone())
            books.append(model.book.clone())

    model = Staged()
    start = model.book.clone(), model.code.detach().clone()
    run(model=model, log=log)
    for series, first, name in ((books, start[0], "book"), (weights, start[1], "code")):
        mean = first
        for t, value in enumerate(series):
            decay = min(0.9, (1 + t) / (10 + t))
            mean = decay * mean + (1 - decay) * value
        torch.testing.assert_close(model.get_buffer(name) if name == "book" else model.code.detach(), mean)
    assert torch.equal(model.critic.detach(), critics[-1])


def test_schedules_are_those_of_the_stages() -> None:
    model = Staged(codes={"lr": 0.5, "warmup": 0.0}, priors={"patience": 3})
    first, second = stage_configs(model.stages(), CONFIG)
    assert (first.steps, first.lr, first.warmup) == (12, 0.5, 0.0)
    assert (second.steps, second.lr, second.warmup, second.patience) == (8, CONFIG.lr, CONFIG.warmup, 0)
    watched = CONFIG.model_copy(update={"validate_every": 1})
    assert stage_configs(model.stages(), watched)[1].patience == 3
    rates = [record["codes/lr"] for record in run(model=model).history if "codes/lr" in record]
    assert rates == [learning_rate(first, step) for step in range(12)]
    assert rates[0] == 0.5
    config = CONFIG.model_copy(update={"lr_discriminator": 0.5})
    phase = Phase([model.critic], Role.DISCRIMINATOR, factor=0.2, lr=3.0)
    expected = learning_rate(config.model_copy(update={"lr": 3.0}), 5) * 0.1
    assert phase_rate(config, phase, 5) == pytest.approx(expected)
    assert phase_rate(config, Phase([model.code]), 5) == learning_rate(config, 5)


def test_numbers_bear_the_names_of_stage_and_phase_and_progress_is_the_stages() -> None:
    history = run().history
    names = {name.rpartition("/")[0] for record in history for name in record if name != "step"}
    assert names == {"codes", "priors", "priors/prior", "priors/critic"}
    progress = [record["codes/progress"] for record in history if "codes/progress" in record]
    assert progress == pytest.approx([step / 12 for step in range(12)])
    assert [record["step"] for record in history] == list(range(1, 21))


@pytest.mark.parametrize("step", [1, 5, 11, 12, 13, 17, 20])
def test_a_resumption_in_any_stage_is_bit_identical(tmp_path: Any, step: int) -> None:
    options = {"out": tmp_path, "validation": dataset(3, 7), "config": CONFIG.model_copy(update={"validate_every": 2})}
    with pytest.raises(Stop):
        run(log=stop_at(step), **options)
    resumed = run(resume=True, **options)
    same(resumed, run(**{**options, "out": None}))
    # A finished training resumes to itself.
    same(run(resume=True, **options), resumed)


def test_a_stage_that_ends_early_hands_over_its_best_weights(tmp_path: Any) -> None:
    def model() -> Staged:
        # A rate that soon makes validation worse, and a second stage that never gets better than its first look.
        return Staged(codes={"lr": 0.6, "warmup": 0.0, "patience": 2}, priors={"patience": 3, "monitor": "flat"})

    config = CONFIG.model_copy(update={"steps": 100, "validate_every": 1, "ema": 0.0})
    validation, codes = dataset(3, 7), dict[int, Tensor]()
    first = model()

    def log(numbers: dict[str, float], step: int) -> None:
        codes[step] = first.code.detach().clone()

    result = run(config, first, validation=validation, log=log)
    looks = [record["codes/validation"] for record in result.history if "codes/validation" in record]
    assert 2 < len(looks) < 60
    assert len(looks) - 1 - looks.index(min(looks)) == 2
    assert torch.equal(first.code.detach(), codes[looks.index(min(looks)) + 1])
    later = [record["priors/validation"] for record in result.history if "priors/validation" in record]
    assert later == [1.0] * 4
    assert result.steps == len(looks) + 4
    with pytest.raises(Stop):
        run(config, model(), validation=validation, out=tmp_path, log=stop_at(len(looks) + 2))
    same(run(config, model(), validation=validation, out=tmp_path, resume=True), result)


def test_a_request_to_stop_at_the_end_of_a_stage_is_resumed(tmp_path: Any) -> None:
    import signal

    def log(numbers: dict[str, float], step: int) -> None:
        if step == 12:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Terminated):
        run(out=tmp_path, log=log)
    again = Staged()
    same(run(model=again, out=tmp_path, resume=True), run())
    assert again.begun == ["priors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "not a name"}, "letters, digits and underscores"),
        ({"share": 0.0}, "share above 0"),
        ({"phases": {"a": Phase([nn.Parameter(torch.zeros(1))], every=2)}}, "every=1"),
    ],
)
def test_stages_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    whole: dict[str, Any] = {"name": "a", "phases": {"a": Phase([nn.Parameter(torch.zeros(1))])}}
    with pytest.raises(ValueError, match=message):
        Stage(**{**whole, **change})


def test_parameters_belong_to_one_phase_and_stages_have_names_of_their_own() -> None:
    shared = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="in two phases"):
        Stage("a", {"a": Phase([shared]), "b": Phase([shared])})
    with pytest.raises(ValueError, match="to have parameters"):
        Phase([])
    stage = Stage("a", {"a": Phase([shared])})
    with pytest.raises(ValueError, match="different names"):
        stage_configs([stage, stage], CONFIG)


def test_a_model_that_gives_phases_has_one_stage_of_them() -> None:
    gan = build({"family": "vaegan", "shape": (8, 12, 8), "widths": [16], "latent": 4, "narrow": 2}, seed=0)
    (stage,) = gan.stages()
    assert list(stage.phases) == ["generator", "discriminator"]
    assert [phase.role for phase in stage.phases.values()] == [Role.MODEL, Role.DISCRIMINATOR]
    assert discriminators(gan.stages()) == {"discriminator"}


def test_accumulated_gradients_are_those_of_the_large_batch() -> None:
    class Plain(Staged):
        def stages(self) -> tuple[Stage, ...]:
            return (Stage("all", {"code": Phase([self.code, self.prior, self.critic])}),)

        def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
            powers = torch.stack([batch.image.mean((1, 2, 3, 4)) ** n for n in range(1, 5)], dim=1)
            said = torch.tanh(powers @ self.code) * self.prior.sum() + (powers * self.critic).sum(1)
            return {"loss": (said - batch.image.amax((1, 2, 3, 4))).square().mean()}

    config = CONFIG.model_copy(update={"steps": 6, "clip": 0.5})
    large = run(config.model_copy(update={"batch_size": 4}), Plain())
    small = run(config.model_copy(update={"batch_size": 1, "accumulate": 4}), Plain())
    for name, tensor in state(large).items():
        torch.testing.assert_close(state(small)[name], tensor, atol=1e-6, rtol=1e-5)
    for one, other in zip(large.history, small.history, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    assert not torch.allclose(state(large)["code"], state(FitResult(Plain(), [], 0, 0.0))["code"])
