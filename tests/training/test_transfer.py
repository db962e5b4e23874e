"""Starting from a trained model: what is taken, what stays, what moves slowly, and whom the source may know."""

import shutil

import pytest
import torch

from medgen.data.cases import Case, Manifest
from medgen.errors import ArtifactError, AuditError, ConfigError, TrainingError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.training.config import InitConfig, TrainingConfig
from medgen.training.trainer import fit
from medgen.training.transfer.source import Lineage, read_lineage, recorded, refuse_held_out
from medgen.training.transfer.start import Start, lineage_of, sentences

SHAPE = (8, 12, 8)
VAE = {"family": "vae", "shape": SHAPE, "widths": (16, 32), "latent": 2, "codes": ((4, 2), (2, 2))}
FLOW = {"family": "flow", "shape": SHAPE, "widths": (16, 32), "style": 2, "n_labels": 2}
CONFIG = TrainingConfig(steps=3, batch_size=2, precision="32", log_every=1, checkpoint_every=1, ema=0.0)


def scans(n=5, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    names = tuple(f"c{k}" for k in range(n))
    images = torch.rand((n, 1, *shape), generator=generator)
    labels = torch.randint(0, 3, (n, 1, *shape), generator=generator).to(torch.uint8)
    return Dataset(names, names, images, images > 0.1, labels)


def save(folder, model=VAE, seed=7, meta=None, **options):
    made = fit(build(model, seed=seed), scans(shape=model["shape"], seed=5, **options), CONFIG, seed=3, device="cpu")
    recipe = Preprocess(shape=model["shape"], spacing=(2, 2, 2))
    return TrainedModel([made.model], recipe, meta={} if meta is None else meta).save(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return save(tmp_path_factory.mktemp("flow") / "model", FLOW)


def run(init, model=VAE, steps=1, lr=1e-3, **options):
    config = CONFIG.model_copy(update={"steps": steps, "lr": lr, "init": init})
    return fit(build(model, seed=0), scans(shape=model["shape"]), config, seed=1, device="cpu", **options)


def test_a_path_alone_is_the_artifact():
    assert TrainingConfig.model_validate({"init": "runs/a/model"}).init == InitConfig(artifact="runs/a/model")
    assert TrainingConfig().init is None


def test_weights_and_the_buffers_they_are_fitted_to_come_from_the_source_and_the_rest_from_the_scans(source):
    """With a learning rate of next to nothing, what is there after a step is what it started from."""
    other = TrainedModel.load(source).models[0].state_dict()
    result = run(InitConfig(artifact=source), lr=1e-12)
    scratch = run(None, lr=1e-12).model.state_dict()
    state = result.model.state_dict()
    weights = {name for name, _ in result.model.named_parameters()}
    assert weights | {"block_codes.0.basis"} <= {*result.start.tensors}
    assert all(torch.allclose(state[name], other[name], atol=1e-6) for name in result.start.tensors)
    assert any(not torch.allclose(scratch[name], other[name], atol=1e-3) for name in weights)
    for name in ("linear.mean", "linear.basis"):
        assert torch.equal(state[name], scratch[name])
        assert not torch.allclose(state[name], other[name], atol=1e-3)
    assert result.start.mismatches == ()


def test_statistics_of_the_source_are_taken_where_they_are_asked_for(source):
    other = TrainedModel.load(source).models[0].state_dict()
    result = run(InitConfig(artifact=source, statistics="source"), lr=1e-12)
    assert torch.equal(result.model.state_dict()["linear.mean"], other["linear.mean"])
    assert "taken from the source where they fitted" in " ".join(sentences(result.start.record(result.model)))


def test_another_grid_is_no_mismatch_for_weights_and_a_line_for_statistics(source):
    larger = {**VAE, "shape": (12, 12, 12)}
    assert run(InitConfig(artifact=source), larger).start.mismatches == ()
    lines = run(InitConfig(artifact=source, statistics="source"), larger).start.mismatches
    assert "linear.mean: 1 x 8 x 12 x 8 in the source, 1 x 12 x 12 x 12 here, starts anew" in lines


def test_mismatches_have_a_line_each(source):
    start = Start.of(build({**VAE, "codes": ((4, 3), (2, 2))}, seed=0), InitConfig(artifact=source))
    assert "block_codes.0.basis: 2 x 64 in the source, 3 x 64 here, starts anew" in start.mismatches
    assert len({line.split(":")[0] for line in start.mismatches}) == len(start.mismatches)
    fewer = Start.of(build({**VAE, "codes": ((4, 2),)}, seed=0), InitConfig(artifact=source))
    assert any(line.startswith("block_codes.1.") and "not in this model" in line for line in fewer.mismatches)
    more = Start.of(build({**VAE, "blocks": 2}, seed=0), InitConfig(artifact=source, leave=("top.*",)))
    assert any(line.endswith("not in the source, starts anew") for line in more.mismatches)
    assert {"top.weight: left out by init.leave, starts anew", "top.bias: left out by init.leave, starts anew"} <= {
        *more.mismatches
    }


def test_frozen_weights_do_not_move_and_slow_ones_do(source):
    """Even under weight decay, and with averaged weights."""
    other = TrainedModel.load(source).models[0].state_dict()
    init = InitConfig(artifact=source, frozen=("encoder.*",), slow={"top.*": 1e-3})
    config = CONFIG.model_copy(update={"init": init, "weight_decay": 0.1, "ema": 0.9, "lr": 0.01})
    result = fit(build(VAE, seed=0), scans(), config, seed=1, device="cpu")
    moved = {
        name: float((own.detach() - other[name]).abs().max())
        for name, own in dict(result.model.named_parameters()).items()
    }
    assert {moved[name] for name in moved if name.startswith("encoder.")} == {0.0}
    assert 0 < moved["top.weight"] < 1e-4
    assert max(moved[name] for name in moved if name.startswith("decoder.")) > 5e-3
    record = result.start.record(result.model)
    said = " ".join(sentences(record))
    sizes = {name: own.numel() for name, own in result.model.named_parameters()}
    assert record["weights_frozen"] == sum(size for name, size in sizes.items() if name.startswith("encoder."))
    assert f"{record['weights_frozen']} weights stayed" in said
    assert "factor (0.001)" in said


def test_a_flow_takes_over_labels_and_starts_new_ones_at_nothing(flow):
    """A third label has no effect before training; the field of view keeps its weights behind it."""
    model = build({**FLOW, "n_labels": 3}, seed=0)
    start = Start.of(model, InitConfig(artifact=flow))
    old, new = TrainedModel.load(flow).models[0].state_dict()["network.stem.weight"], start.tensors
    stem = new["network.stem.weight"]
    assert torch.equal(stem[:, :32], old[:, :32])
    assert not stem[:, 32:40].any()
    assert torch.equal(stem[:, 40:], old[:, 32:])
    assert start.mismatches == ()
    fewer = Start.of(build({**FLOW, "n_labels": 1}, seed=0), InitConfig(artifact=flow))
    stem = fewer.tensors["network.stem.weight"]
    assert torch.equal(stem, torch.cat([old[:, :24], old[:, 32:]], dim=1))
    channels = Start.of(build({**FLOW, "in_channels": 2}, seed=0), InitConfig(artifact=flow))
    assert any(line.startswith("network.stem.weight: ") for line in channels.mismatches)


def test_a_resumed_training_is_bit_identical_and_another_source_is_refused(source, tmp_path):
    init = InitConfig(artifact=source, frozen=("encoder.*",), slow={"top.*": 0.1})
    straight = run(init, steps=3, out=tmp_path / "a").model.state_dict()

    def stop(numbers, step):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(init, steps=3, out=tmp_path / "b", log=stop)
    # The same content elsewhere is the same source.
    moved = shutil.copytree(source, tmp_path / "moved")
    again = run(init.model_copy(update={"artifact": moved}), steps=3, out=tmp_path / "b", resume=True)
    assert all(torch.equal(straight[name], own) for name, own in again.model.state_dict().items())
    other = save(tmp_path / "other", seed=8)
    for changed in (InitConfig(artifact=other), InitConfig(artifact=source), None):
        with pytest.raises(TrainingError, match="belongs to another training"):
            run(changed, steps=3, out=tmp_path / "b", resume=True)


def test_what_cannot_serve_is_refused_in_a_line(source, flow, tmp_path):
    def refused(kind, match, init, model=VAE):
        with pytest.raises(kind, match=match) as caught:
            run(init, model)
        assert "\n" not in str(caught.value)

    refused(ArtifactError, "no such folder", InitConfig(artifact=tmp_path / "nothing"))
    refused(ConfigError, "holds a model of the family flow, and vae is to be trained", InitConfig(artifact=flow))
    refused(ConfigError, "init.frozen: 'encodr.\\*' fits no weight", InitConfig(artifact=source, frozen=("encodr.*",)))
    refused(ConfigError, "init.leave: 'x' fits no tensor", InitConfig(artifact=source, leave=("x",)))
    refused(
        ConfigError, "nothing would be left to train in the phase 'all'", InitConfig(artifact=source, frozen=("*",))
    )
    refused(ConfigError, "no weight of it fits", InitConfig(artifact=source, leave=("*",)))
    altered = shutil.copytree(source, tmp_path / "altered")
    weights = altered / "weights-0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    refused(ArtifactError, "weights-0.safetensors", InitConfig(artifact=altered))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    cases = []
    for name in ("ann", "bob", "cem"):
        (folder / f"{name}.nii").write_bytes(name.encode())
        cases.append(Case(f"{name}-1", name, (folder / f"{name}.nii",)))
    return Manifest("cohort", folder, tuple(cases)).with_hashes()


def refuse(known, held_out, **settings):
    refuse_held_out(known, InitConfig(artifact="a", **settings), held_out, "test")


def test_a_source_that_knows_a_held_out_case_is_refused(cohort):
    first, *others = [case.id for case in cohort]
    known = Lineage.of_cases(cohort, [first])
    assert len(known.files) == 1
    refuse(known, cohort.subset(others))
    # By the name of the subject alone, by that of the case alone, by the content of the file alone.
    for own in (Lineage(subjects=known.subjects), Lineage(cases=known.cases), Lineage(files=known.files)):
        with pytest.raises(AuditError, match="held out for test"):
            refuse(own, cohort)
    refuse(Lineage(known.cases, known.subjects), cohort, other_people=True)
    with pytest.raises(AuditError, match="the very file of case"):
        refuse(known, cohort, other_people=True)


def test_a_source_that_does_not_say_is_refused_where_anybody_is_held_out(cohort):
    with pytest.raises(AuditError, match="does not say from whom"):
        refuse(None, cohort)
    refuse(None, cohort, other_people=True)
    refuse(None, Manifest("none", cohort.root, ()))


def test_who_the_source_of_a_source_knows_is_handed_on(source, tmp_path):
    grandparent = Lineage(frozenset({"old"}), frozenset({"ann"}), frozenset({"f" * 64}))
    parent = save(tmp_path / "parent", meta=recorded(grandparent))
    assert read_lineage(InitConfig(artifact=parent)) == grandparent
    start = Start.of(build(VAE, seed=0), InitConfig(artifact=parent))
    both = lineage_of(Lineage(frozenset({"new"})), start)
    assert both.cases == {"new", "old"}
    assert both.files == grandparent.files
    assert lineage_of(Lineage(frozenset({"new"})), None).cases == {"new"}
    # One that does not say makes a model that cannot say.
    assert lineage_of(Lineage(), Start.of(build(VAE, seed=0), InitConfig(artifact=source))) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source_cases": None}, "does not say from whom"),
        ({"source_spacing": [1.5, 2.0, 4.0]}, "on voxels of 1.5 x 2 x 4 mm"),
        ({"other_people": True}, "is the user's word"),
        ({"mismatches": []}, "every tensor fitted"),
        ({"mismatches": ["a: b", "c: d"]}, "2 tensors did not fit"),
        ({"buffers_measured": 4}, "4 buffers that describe scans were measured"),
        ({}, "no such case, subject or file is held out here"),
    ],
)
def test_sentences_follow_from_the_record(source, change, said):
    model = build(VAE, seed=0)
    record = {**Start.of(model, InitConfig(artifact=source)).record(model), "source_cases": 3, **change}
    assert said in " ".join(sentences(record))
    assert record["sha256"][:12] in sentences(record)[0]
