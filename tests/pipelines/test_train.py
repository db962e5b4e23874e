"""``medgen train`` end to end on tiny configurations."""

import html
import json
import shutil
from pathlib import Path

import pytest

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import ConfigError
from medgen.faults import FaultyDataError
from medgen.models.artifact import TrainedModel
from medgen.pipelines.train import PIPELINE, TrainRunConfig, run
from tests.builders.run_outputs import undeclared, unlike_the_run

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    simulate(folder / "cohort", n=4, seed=0, spacing=10.0)
    return folder / "cohort"


def load(name, cohort, out, *overrides):
    return load_config(TrainRunConfig, CONFIGS / name, [f"data={cohort}", f"out={out}", "device=cpu", *overrides])


@pytest.mark.slow
def test_a_run_leaves_what_every_run_leaves(cohort, tmp_path):
    summary = run(load("tiny/train_joint.yaml", cohort, tmp_path / "run"))
    assert summary.exit_code == 0
    for name in ("config.yaml", "manifest.csv", "splits.csv", "failures.csv", "metrics.json", "report.html"):
        assert (tmp_path / "run" / name).is_file(), name
    model = TrainedModel.load(tmp_path / "run" / "model")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model_sha256"] == model.sha256
    assert metrics["steps"] == 6
    assert "last.validation" in metrics
    assert model.models[0].settings.n_labels == 3
    assert len(model.meta["cases"]) == 3
    (fact,) = model.meta["facts"]
    assert metrics["facts"] == {"likelihood": "bound"} == {fact["name"]: fact["value"]}
    assert fact["unit"] == "nats per voxel"
    assert fact["sentence"] in html.unescape((tmp_path / "run" / "report.html").read_text())
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert undeclared(tmp_path / "run", PIPELINE) == []
    assert unlike_the_run(tmp_path / "run") == []


def test_bad_files_are_all_named_before_anything_is_written(cohort, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cohort, copy)
    spoilt = [sorted((copy / folder).glob("*.nii.gz"))[number] for folder, number in (("images", 0), ("masks", 2))]
    for path in spoilt:
        path.write_bytes(path.read_bytes()[:-9])
    (copy / "manifest.csv").unlink()
    with pytest.raises(FaultyDataError) as caught:
        run(load("tiny/train_joint.yaml", copy, tmp_path / "run"))
    assert [fault.file for fault in caught.value.faults] == [str(path) for path in spoilt]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.family=gan", "expected one of"),
        ("model.latnt=3", "did you mean 'latent'"),
        ("validation=0", "set both or neither"),
        ("training.stps=3", "did you mean 'steps'"),
    ],
)
def test_wrong_settings_are_refused_before_any_scan_is_read(cohort, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        run(load("tiny/train_vae.yaml", tmp_path / "nothing", tmp_path / "run", override))


@pytest.mark.slow
def test_a_cohort_on_disk_is_learnt_from_like_one_in_memory(cohort, tmp_path):
    cache = f"cache.folder={tmp_path / 'cache'}"
    for name, more in (("memory", ()), ("disk", (cache,)), ("again", (cache,))):
        assert run(load("tiny/train_joint.yaml", cohort, tmp_path / name, *more)).exit_code == 0
    memory, disk, again = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("memory", "disk", "again")
    )
    assert disk["model_sha256"] == again["model_sha256"]
    names = [key for key in memory if key.startswith("last.") and key.endswith("loss")]
    assert names
    assert [disk[name] for name in names] == pytest.approx([memory[name] for name in names], rel=0.05)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4
    with pytest.raises(ConfigError, match=r"cache\.gib"):
        load("tiny/train_joint.yaml", cohort, tmp_path / "bad", cache, "cache.gib=0")
