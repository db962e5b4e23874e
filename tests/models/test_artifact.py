import json
import shutil

import numpy as np
import pytest
import torch

from medgen.errors import ArtifactError
from medgen.models.artifact import ARRAYS, MANIFEST, TrainedModel
from medgen.models.catalogue import build
from medgen.models.families.flow import FlowSampling
from medgen.preprocessing.recipe import Preprocess, Template
from medgen.system.files import sha256_json
from medgen.volume import Grid, Volume

SHAPE = (8, 10, 8)
SETTINGS = {"family": "vae", "shape": SHAPE, "widths": [16], "latent": 3, "codes": [[2, 2]]}


def trained(models=2):
    grid = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    rng = np.random.default_rng(0)
    image = Volume(rng.random((1, *SHAPE), dtype=np.float32), grid)
    template = Template(image, Volume(image.data > 0.5, grid))
    return TrainedModel(
        models=[build(SETTINGS, seed=seed) for seed in range(models)],
        preprocess=Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0)),
        template=template,
        arrays={"mu": rng.random((1, *SHAPE)), "p": np.arange(5)},
        meta={"kind": "anomaly", "target": 0.05, "nan": float("nan"), "list": [1, "ü"]},
    )


@pytest.fixture
def folder(tmp_path):
    return trained().save(tmp_path / "model")


def rewrite(folder, change):
    """Change the manifest and make its digest fit again: what a careful attacker would do."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    manifest.pop("sha256")
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": sha256_json(manifest)}))


def test_everything_comes_back(folder):
    before, after = trained(), TrainedModel.load(folder)
    assert after.sha256 == before.sha256
    assert after.preprocess == before.preprocess
    assert after.meta == {"kind": "anomaly", "target": 0.05, "nan": None, "list": [1, "ü"]}
    np.testing.assert_array_equal(after.arrays["mu"], before.arrays["mu"])
    assert set(after.arrays) == {"mu", "p"}
    np.testing.assert_array_equal(after.template.image.data, before.template.image.data)
    np.testing.assert_array_equal(after.template.grid.affine, before.template.grid.affine)
    for one, other in zip(before.models, after.models, strict=True):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [MANIFEST, ARRAYS, "weights-0.safetensors", "weights-1.safetensors"]
    )


def test_the_same_content_has_the_same_bytes(folder, tmp_path):
    TrainedModel.load(folder).save(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_memory_layout_is_no_content():
    model = trained()
    before = model.sha256
    for parameter in model.models[0].parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    assert model.sha256 == before


def test_saving_replaces_an_artifact_but_nothing_else(folder, tmp_path):
    trained(models=1).save(folder)
    assert len(TrainedModel.load(folder).models) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="is no artifact"):
        trained().save(tmp_path / "other")


def damage(folder, kind):
    weights, manifest = folder / "weights-1.safetensors", folder / MANIFEST
    if kind == "bit":
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif kind == "missing":
        weights.unlink()
    elif kind == "extra":
        (folder / "code.py").write_text("boom")
    elif kind == "text":
        manifest.write_text(manifest.read_text().replace("0.05", "0.06"))
    elif kind == "huge":
        manifest.write_text('{"format": "' + "x" * (17 << 20) + '"}')
    elif kind == "no json":
        manifest.write_text("{")
    elif kind == "no manifest":
        manifest.unlink()
    elif kind == "gone":
        shutil.rmtree(folder)
    elif kind == "folder":
        weights.unlink()
        weights.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bit", "weights-1.safetensors: was altered"),
        ("cut", "weights-1.safetensors: was altered"),
        ("missing", "weights-1.safetensors: is missing"),
        ("extra", "code.py: does not belong"),
        ("text", "artifact.json: was altered"),
        ("huge", "bytes of text, at most"),
        ("no json", "cannot be read as JSON"),
        ("no manifest", "no artifact.json"),
        ("gone", "no such folder"),
        ("folder", "cannot be read"),
    ],
)
def test_damage_is_refused_in_one_line(folder, kind, message):
    damage(folder, kind)
    with pytest.raises(ArtifactError, match=message) as caught:
        TrainedModel.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=3), "version 3, this medgen reads 1 and 2"),
        (lambda m: m.update(format="other"), "is not a medgen artifact"),
        (lambda m: m.pop("preprocess"), "'preprocess' is missing"),
        (lambda m: m.update(models=[]), "'models' is missing"),
        (lambda m: m.update(models=[1, 2]), "settings are no mapping"),
        (lambda m: m["models"][0].update(family="diffusion"), "expected one of .*joint, .*vae, vaegan"),
        (lambda m: m["models"][0].update(family="os"), "expected one of"),
        (lambda m: m["models"][0].update(latent=5), "tensor .* does not fit"),
        (lambda m: m["models"][0].update(depth=5), "unknown key 'depth'"),
        (lambda m: m["preprocess"].update(shape=3), "shape"),
        (lambda m: m["files"].update({"../../x": "0" * 64}), "lists other files"),
        (lambda m: m["models"].append(m["models"][0]), "weights-2.safetensors|one mapping for each model"),
        (lambda m: m["sampling"].pop(), "'sampling' is not one mapping for each model"),
        (lambda m: m.pop("sampling"), "'sampling' is missing"),
        (lambda m: m.update(sampling=[{}, 3]), "'sampling' is not one mapping for each model"),
        (lambda m: m["sampling"][0].update(temperatur=1), "unknown key 'temperatur'.*temperature"),
        (lambda m: m["sampling"][0].update(temperature=0), "temperature"),
    ],
)
def test_manifests_that_cannot_be_used_are_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ArtifactError, match=message) as caught:
        TrainedModel.load(folder)
    assert "\n" not in str(caught.value)


def as_first_version(manifest):
    """What the first form of manifests said, where options of sampling were settings of the model."""
    (options,) = manifest.pop("sampling")
    manifest["models"][0] |= {"sampling_steps": options["solver_steps"]}
    manifest["version"] = 1


def test_artifacts_of_the_first_version_keep_their_options_and_their_digest(tmp_path):
    settings = {"family": "flow", "shape": SHAPE, "widths": [16], "style": 2, "n_labels": 1}
    model = build(settings, seed=0).sampled_by(FlowSampling(solver_steps=5))
    new = TrainedModel([model], Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0)))
    rewrite(new.save(tmp_path / "old"), as_first_version)
    old = TrainedModel.load(tmp_path / "old")
    assert old.models[0].settings == model.settings
    assert old.models[0].sampling == FlowSampling(solver_steps=5)
    assert old.sha256 == json.loads((tmp_path / "old" / MANIFEST).read_text())["sha256"] != new.sha256
    assert TrainedModel.load(old.save(tmp_path / "again")).sha256 == old.sha256


def test_loading_leaves_the_random_stream_alone(folder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    TrainedModel.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_reserved_names_and_empty_ensembles_are_refused(tmp_path):
    model = trained()
    model.arrays["template.x"] = np.zeros(1)
    with pytest.raises(ArtifactError, match="reserved"):
        model.save(tmp_path / "a")
    with pytest.raises(ArtifactError, match="at least one model"):
        TrainedModel([], model.preprocess).save(tmp_path / "b")
    assert not list(tmp_path.iterdir())
