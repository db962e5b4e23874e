"""What every model family must do. Families are found by themselves: a new file is tested with no edit here."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from medgen.models import families
from medgen.models.artifact import TrainedModel
from medgen.models.base import (
    Denoises,
    Discriminates,
    DrawsLabels,
    GenerativeModel,
    HasDecoder,
    HasLatent,
    HasLikelihood,
    HasVoxelLikelihood,
    HasVoxelMaps,
    LabelsScans,
    PaintsLabels,
    Reconstructs,
)
from medgen.models.catalogue import available, build, family_class, parse_settings
from medgen.models.families.wgan_gp import WassersteinModel
from medgen.models.sampling import overridden
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.system.memory import working_memory
from medgen.system.precision import bf16_works
from medgen.training.config import InitConfig
from medgen.training.trainer import TrainingConfig, fit
from medgen.training.transfer.start import Start

SHAPE = (16, 24, 16)
FAMILIES = available()


def offering(kind):
    """Families of a base class or protocol."""
    return [family for family in FAMILIES if issubclass(family_class(family), kind)]


# Answers that are one map, whatever the number of channels.
ONE_MAP = (
    "discriminator_distance",
    "anomaly_logits",
    "label_probabilities",
    *(name for family in FAMILIES for name in family_class(family).maps),
)
TRAINING = TrainingConfig(steps=4, batch_size=2, precision="32", log_every=1)


def tiny(family, **changes):
    return build({"family": family, "shape": SHAPE, **family_class(family).tiny, **changes}, seed=0)


def dataset(n=4, channels=1):
    generator = torch.Generator().manual_seed(0)
    names = tuple(f"c{k}" for k in range(n))
    smooth = torch.rand((n, channels, 4, 6, 4), generator=generator)
    images = torch.nn.functional.interpolate(smooth, size=SHAPE, mode="trilinear")
    labels = (images[:, :1] * 3).to(torch.uint8).clamp(max=2)
    return Dataset(names, names, images, torch.ones((n, 1, *SHAPE), dtype=torch.bool), labels)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny(request.param)


@pytest.fixture(params=offering(GenerativeModel))
def generative(request):
    return tiny(request.param)


def answers(model, data):
    """What a model says of scans through each deterministic protocol it offers."""
    x = data.images
    said = {}
    if isinstance(model, Reconstructs):
        said["reconstruct"] = model.reconstruct(x)
    if isinstance(model, HasVoxelLikelihood):
        said["voxel_nll"] = model.voxel_nll(x)
    if isinstance(model, HasVoxelMaps):
        said |= model.voxel_maps(x)
    if isinstance(model, HasLatent):
        said["code"] = model.encode(x)[0].detach()
    if isinstance(model, HasDecoder):
        said["decode"] = model.decode(model.encode(x)[0]).logvar.detach()
    if isinstance(model, LabelsScans):
        probability = model.label_probabilities(x)
        torch.testing.assert_close(probability.sum(1), torch.ones_like(probability[:, 0]))
        said["label_probabilities"] = probability[:, 1:2]
    if isinstance(model, Discriminates):
        said["discriminator_distance"] = model.discriminator_distance(x, x.flip(2))
    if isinstance(model, Denoises):
        said["denoise"] = model.denoise(x)
    if hasattr(model, "inpaint"):
        hole = torch.zeros_like(x[:, :1])
        hole[..., 4:9, 6:12, 4:9] = 1
        style = torch.full((len(x), model.settings.n_labels + 1, 2 * x.shape[1]), 0.1)
        said["inpaint"] = model.inpaint(x, hole, (x[:, :1] > 0.5).long(), style)
    if isinstance(model, PaintsLabels):
        labels = torch.zeros_like(x[:, :1], dtype=torch.long) if data.labels is None else data.labels.long()
        said["paint"] = model.paint(labels, model.encode_style(x)[0]).detach()
    return said


def prepared_phases(model, data):
    """Every phase by its name, in order, with what the model prepares for its stage done."""
    for place, stage in enumerate(model.stages()):
        if place:
            model.eval().begin_stage(stage.name, data)
        yield from stage.phases.items()


def test_every_family_offers_something(model):
    assert isinstance(model, GenerativeModel | DrawsLabels) or answers(model.eval(), dataset())


def test_settings_travel_as_plain_data(model):
    again = parse_settings(model.settings.model_dump(mode="json"))
    assert again == model.settings
    assert again.family == type(model).family


def test_stages_hold_every_parameter(model):
    trained = {id(p) for stage in model.stages() for phase in stage.phases.values() for p in phase.parameters}
    assert trained == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len({stage.name for stage in model.stages()}) == len(model.stages())


def test_every_phase_moves_its_parameters_and_no_others(model):
    data = dataset()
    model.initialize(data)
    batch = data.batch([0, 1], progress=0.9)
    for name, phase in prepared_phases(model, data):
        own = list(phase.parameters)
        model.train().zero_grad(set_to_none=True)
        torch.manual_seed(0)
        terms = model.loss(name, batch)
        assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
        terms["loss"].backward(inputs=own)
        moved = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
        assert moved <= {id(parameter) for parameter in own}
        assert len(moved) > 0.8 * len(own)
        assert all(torch.isfinite(p.grad).all() for p in own if p.grad is not None)


def test_validation_leaves_the_model_as_it_was(model):
    data = dataset()
    model.initialize(data)
    for name, _ in prepared_phases(model, data):
        model.eval()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with torch.no_grad():
            model.loss(name, data.batch([0, 1], progress=1.0))
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_training_lowers_what_validation_looks_at(model):
    data = dataset()
    config = TrainingConfig(steps=30, batch_size=4, precision="32", lr=2e-3, log_every=5, ema=0.9, validate_every=5)
    history = fit(model, data, config, seed=0, device="cpu", validation=data).history
    looked = {name for record in history for name in record if name.rpartition("/")[2] == "validation"}
    # One series for each stage: what they look at is not the same.
    assert len(looked) == len(model.stages())
    for name in looked:
        looks = [record[name] for record in history if name in record]
        # A game of two networks alone, begun at the principal components, may only not lead away from the scans:
        # what it learns is in the tests of its family.
        game = isinstance(model, WassersteinModel) and name in ("validation", "game/validation")
        assert looks[-1] < (1.1 if game else 1) * looks[0], name


def test_samples_have_the_shape_and_follow_the_generator(generative):
    model = generative
    fit(model, dataset(), TRAINING, seed=0, device="cpu")
    first, again, other = model.sample(3, gen(1)), model.sample(3, gen(1)), model.sample(3, gen(2))
    assert first.shape == (3, 1, *SHAPE)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    if hasattr(model, "sample_labelled"):
        image, labels = model.sample_labelled(3, gen(1))
        assert torch.equal(image, first)
        assert labels.shape == (3, *SHAPE)
        assert labels.dtype == torch.int64


def test_what_it_offers_has_the_promised_shapes(model):
    model.eval()
    x = dataset().images
    if isinstance(model, Reconstructs):
        assert model.reconstruct(x).shape == x.shape
        assert torch.equal(model.reconstruct(x), model.reconstruct(x))
    if isinstance(model, HasVoxelLikelihood):
        assert model.voxel_nll(x).shape == x.shape
    if isinstance(model, HasLatent):
        mean, logvar = model.encode(x)
        assert mean.ndim == 2
        assert mean.shape == logvar.shape
        assert len(mean) == len(x)
    if isinstance(model, HasLikelihood):
        likelihood = model.log_likelihood(x, samples=3, generator=gen())
        assert likelihood.shape == (len(x),)
        assert torch.equal(likelihood, model.log_likelihood(x, samples=3, generator=gen()))
        half = torch.zeros(len(x), 1, *SHAPE)
        half[:, :, : SHAPE[0] // 2] = 1
        assert not torch.equal(likelihood, model.log_likelihood(x, half, samples=3, generator=gen()))
        assert model.likelihood().kind in ("exact", "bound", "surrogate")
        assert model.likelihood().fact() in model.facts()
    for name, values in answers(model, dataset()).items():
        if name != "code":
            channels = 1 if name in ONE_MAP else x.shape[1]
            assert values.shape == (len(x), channels, *SHAPE), name
        assert values.dtype == torch.float32, name
    for name, values in answers(model, dataset()).items():
        assert torch.equal(values, answers(model, dataset())[name]), name


@pytest.mark.parametrize("family", offering(HasDecoder))
def test_gradients_reach_the_scan_through_code_and_decoder(family):
    model = tiny(family).eval()
    x = dataset().images.requires_grad_()
    decoded = model.decode(model.encode(x)[0])
    for output in (decoded.mean, decoded.logvar):
        (gradient,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("family", offering(Discriminates))
def test_a_discriminator_tells_nothing_from_itself(family):
    model = tiny(family).eval()
    x = dataset().images
    assert (model.discriminator_distance(x, x) == 0).all()
    assert (model.discriminator_distance(x, x + 0.5).mean((1, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("family", offering(DrawsLabels))
def test_drawn_labels_are_labels_and_follow_the_generator(family):
    model = tiny(family)
    fit(model, dataset(), TRAINING, seed=0, device="cpu")
    first, again = model.sample_labels(3, gen(1)), model.sample_labels(3, gen(1))
    assert first.shape == (3, 1, *SHAPE)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, model.sample_labels(3, gen(2)))
    assert 0 <= int(first.min()) <= int(first.max()) <= model.settings.n_labels


@pytest.mark.parametrize("family", offering(PaintsLabels))
def test_painted_scans_follow_labels_and_style(family):
    model = tiny(family)
    data = dataset()
    fit(model, data, TRAINING, seed=0, device="cpu")
    labels, style = data.labels.long(), model.encode_style(data.images)[0].detach()
    with torch.no_grad():
        first = model.paint(labels, style)
        assert not torch.equal(first, model.paint(labels.roll(1, 0), style))
        assert not torch.equal(first, model.paint(labels, style.roll(1, 0)))


def test_scans_do_not_see_each_other(model):
    model.eval()
    data = dataset()
    alone = answers(model, data.subset(["c1"]))
    for name, together in answers(model, data).items():
        torch.testing.assert_close(together[1:2], alone[name], atol=1e-4, rtol=1e-4)


def all_it_makes(model):
    made = answers(model, dataset())
    if isinstance(model, GenerativeModel):
        made["sample"] = model.sample(2, gen())
    if isinstance(model, DrawsLabels):
        made["labels"] = model.sample_labels(2, gen()).float()
    return made


def test_large_scans_are_made_and_seen_without_seams(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=gen(7)))
        model.eval()
        whole = all_it_makes(model)
        with working_memory(1):
            slabs = all_it_makes(model)
    assert whole
    for name, values in slabs.items():
        error = torch.linalg.vector_norm(values - whole[name]) / torch.linalg.vector_norm(whole[name])
        assert error < 1e-4, (name, error)


OPTIONS = [(family, option) for family in FAMILIES for option in family_class(family).Sampling.model_fields]


def drawn(model):
    """What a model makes of one seed by its options of sampling: scans, label maps, or images for label maps."""
    if isinstance(model, GenerativeModel):
        return model.sample(6, gen())
    if isinstance(model, DrawsLabels):
        return model.sample_labels(6, gen())
    labels = dataset().labels.long()
    return model.paint(labels, model.draw_style(labels, gen(1)), model.draw_noise(len(labels), gen(2)))


@pytest.mark.parametrize(("family", "option"), OPTIONS)
def test_every_option_of_sampling_changes_samples_and_travels_with_the_weights(family, option, tmp_path):
    model = fit(tiny(family), dataset(), TRAINING, seed=0, device="cpu").model.eval()
    usual = getattr(model.sampling, option)
    options = overridden(model.sampling, {option: 2 * usual if isinstance(usual, int) else 0.4}, family)
    # Training does not depend on it: a setting that it does depend on belongs to the model.
    assert option not in model.Settings.model_fields
    before, other = drawn(model), model.sampled_by(options)
    made = drawn(other)
    assert not torch.equal(made, before)
    assert torch.equal(drawn(model), before)
    TrainedModel([other], Preprocess(shape=SHAPE, spacing=(1.0, 1.0, 1.0))).save(tmp_path / "model")
    (again,) = TrainedModel.load(tmp_path / "model").models
    assert again.sampling == options
    torch.testing.assert_close(drawn(again), made, atol=1e-5, rtol=1e-4)


def test_it_comes_back_from_disk_unchanged(model, tmp_path):
    fit(model, dataset(), TRAINING, seed=0, device="cpu")
    kept = TrainedModel([model], Preprocess(shape=SHAPE, spacing=(1.0, 1.0, 1.0)))
    kept.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert loaded.sha256 == kept.sha256
    (again,) = loaded.models
    assert not again.training
    # The same numbers in another memory layout may round differently.
    before, after = answers(model.eval(), dataset()), answers(again, dataset())
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, atol=1e-4, rtol=1e-4)
    if isinstance(model, GenerativeModel):
        torch.testing.assert_close(again.sample(2, gen()), model.sample(2, gen()), atol=1e-5, rtol=1e-4)


def test_its_facts_are_plain_sentences_with_their_values(model):
    fit(model, dataset(), TRAINING, seed=0, device="cpu")
    facts = model.facts()
    assert len({fact.name for fact in facts}) == len(facts)
    for fact in facts:
        assert fact.text.endswith(".")
        changed = replace(fact, value="elsewhere" if isinstance(fact.value, str) else fact.value + 1)
        assert changed.text != fact.text
        assert json.loads(json.dumps(fact.record())) == fact.record()


@pytest.mark.parametrize("shape", [(17, 24, 16), (16, 9, 11)])
def test_shapes_need_not_be_even(model, shape):
    family = type(model).family
    odd = tiny(family, shape=shape).eval()
    names = ("a", "b")
    foregrounds = torch.ones((2, 1, *shape), dtype=torch.bool)
    scans = Dataset(names, names, torch.rand((2, 1, *shape), generator=gen()), foregrounds)
    for name, values in answers(odd, scans).items():
        assert name == "code" or values.shape == (2, 1, *shape)
    if isinstance(odd, GenerativeModel):
        assert odd.sample(1, gen()).shape == (1, 1, *shape)


def test_several_channels(model):
    data = dataset(channels=2)
    trained = fit(tiny(type(model).family, in_channels=2), data, TRAINING, seed=0, device="cpu").model
    for name, values in answers(trained.eval(), data).items():
        channels = 1 if name in ONE_MAP else 2
        assert name == "code" or values.shape == (4, channels, *SHAPE)
    if isinstance(trained, GenerativeModel):
        assert trained.sample(1, gen()).shape == (1, 2, *SHAPE)


@pytest.mark.skipif(not bf16_works("cpu"), reason="bfloat16 gives wrong numbers on this processor")
def test_losses_in_bfloat16_are_float32_and_near(model):
    data = dataset()
    model.initialize(data)
    batch = data.batch([0, 1], progress=0.5)
    for phase, _ in prepared_phases(model, data):
        torch.manual_seed(0)
        exact = model.loss(phase, batch)["loss"]
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model.loss(phase, batch)["loss"]
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_no_tensor_is_made_on_a_fixed_device(model):
    # On the meta device, any tensor that is made elsewhere on the way raises.
    data = dataset().batch([0, 1], progress=0.5).to("meta")
    moved = model.to("meta")
    scans = Dataset(("a", "b"), ("a", "b"), data.image, data.foreground.bool())
    for values in answers(moved, scans).values():
        assert values.device.type == "meta"


SCRATCH = '''
    """A family in one file: every voxel has its own Gaussian."""

    from typing import ClassVar, Literal

    import torch
    from torch import nn

    from medgen.models.losses import gaussian_nll
    from medgen.models.base import GenerativeModel, ModelConfig


    class ScratchSettings(ModelConfig):
        family: Literal["scratch"] = "scratch"


    class Scratch(GenerativeModel):
        family: ClassVar[str] = "scratch"
        Settings: ClassVar[type[ModelConfig]] = ScratchSettings

        def __init__(self, settings):
            super().__init__(settings)
            shape = (settings.in_channels, *settings.shape)
            self.mean, self.logvar = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

        def phases(self):
            return {"all": [self.mean, self.logvar]}

        def loss(self, phase, batch):
            return {"loss": gaussian_nll(batch.image, self.mean, self.logvar).mean()}

        @torch.no_grad()
        def sample(self, n, generator=None):
            noise = torch.randn((n, *self.mean.shape), generator=generator).to(self.mean.device)
            return self.mean + torch.exp(0.5 * self.logvar) * noise
'''

CONFIG = """
    data: cohort
    out: runs/scratch
    preprocess: {shape: [12, 14, 12], spacing: [16.0, 16.0, 16.0]}
    model: {family: scratch}
    training: {steps: 4, batch_size: 2, log_every: 2}
"""


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    (tmp_path / "scratch.py").write_text(textwrap.dedent(SCRATCH))
    (tmp_path / "scratch.yaml").write_text(textwrap.dedent(CONFIG))
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("medgen.models.families.scratch", None)
    vars(families).pop("scratch", None)


def test_a_new_file_and_a_yaml_are_a_family(scratch):
    """Trained, kept, loaded and sampled from through what the command line calls, with no other edit."""
    from medgen.config import load_config
    from medgen.data.simulation import simulate
    from medgen.pipelines import train as pipeline

    assert available() == sorted([*FAMILIES, "scratch"])
    simulate(scratch / "cohort", n=3, seed=0, spacing=10.0)
    overrides = [f"data={scratch / 'cohort'}", f"out={scratch / 'run'}", "device=cpu"]
    config = load_config(pipeline.TrainRunConfig, scratch / "scratch.yaml", overrides)
    summary = pipeline.run(config)
    assert summary.exit_code == 0
    (again,) = TrainedModel.load(scratch / "run" / "model").models
    assert again.sample(2, gen()).shape == (2, 1, 12, 14, 12)
    for check, family in itertools.product(
        (test_stages_hold_every_parameter, test_settings_travel_as_plain_data), ("scratch",)
    ):
        check(build({"family": family, "shape": SHAPE}))


def test_a_training_takes_every_weight_of_a_model_with_the_same_settings(model, tmp_path):
    recipe = Preprocess(shape=SHAPE, spacing=(2, 2, 2))
    source = tiny(model.family)
    with torch.no_grad():
        for tensor in source.state_dict().values():
            tensor.add_(1 if tensor.is_floating_point() else 0)
    init = InitConfig(artifact=TrainedModel([source], recipe).save(tmp_path / "model"))
    start = Start.of(model, init)
    assert start.mismatches == ()
    start.apply(model)
    other, own = source.state_dict(), model.state_dict()
    carried = {name for name, _ in model.named_parameters()} | {*start.tensors}
    assert all(torch.equal(own[name], other[name]) for name in carried)
    # Buffers that are measured are as they were.
    before = tiny(model.family).state_dict()
    assert all(torch.equal(own[name], before[name]) for name in {*own} - carried)
    assert {id(tensor) for tensor in model.carried_buffers()} >= {id(tensor) for tensor in model.averaged_buffers()}
