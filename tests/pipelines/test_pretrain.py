"""``medgen pretrain`` end to end, and that ``medgen train`` starts from what it leaves."""

import html
import json
import shutil
from pathlib import Path

import pytest

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError
from medgen.models.artifact import TrainedModel
from medgen.pipelines import train
from medgen.pipelines.pretrain import PIPELINE, run
from medgen.pipelines.pretrain_settings import PretrainRunConfig
from tests.builders.run_outputs import undeclared, unlike_the_run

CONFIG = Path(__file__).parents[2] / "configs" / "tiny" / "train_vae.yaml"
TINY = ["device=cpu", "workers=1", "training.steps=2", "training.validate_every=0", "validation=0"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    simulate(folder / "cohort", n=4, seed=0, spacing=16.0)
    return folder / "cohort"


def load(cohort, out, *overrides, kind=PretrainRunConfig):
    return load_config(kind, CONFIG, [f"data={cohort}", f"out={out}", *TINY, *overrides])


def test_a_pretrained_model_has_seen_label_maps_alone_and_a_training_starts_from_it(cohort, tmp_path):
    summary = run(load(cohort, tmp_path / "pre", "painting.scans=5"))
    assert summary.exit_code == 0
    assert undeclared(tmp_path / "pre", PIPELINE) == []
    assert unlike_the_run(tmp_path / "pre") == []
    artifact = TrainedModel.load(tmp_path / "pre" / "model")
    assert artifact.meta["kind"] == "pretrained"
    assert len(artifact.meta["cases"]) == 4
    metrics = json.loads((tmp_path / "pre" / "metrics.json").read_text())
    assert (metrics["painted"], metrics["label_maps"]) == (5, 4)
    said = "learnt from 5 scans that were painted with random contrasts on the label maps of 4 cases"
    assert any(said in line for line in summary.lines)
    assert said in html.unescape((tmp_path / "pre" / "report.html").read_text())
    source = f"training.init={tmp_path / 'pre' / 'model'}"
    config = load(cohort, tmp_path / "run", source, kind=train.TrainRunConfig)
    train.run(config)
    record = TrainedModel.load(tmp_path / "run" / "model").meta["init"]
    assert record["sha256"] == artifact.sha256
    assert record["mismatches"] == []


def test_intensities_of_the_cohort_do_not_matter(cohort, tmp_path):
    """The same label maps and fields of view under other intensities give the same model."""
    import nibabel as nib
    import numpy as np

    other = shutil.copytree(cohort, tmp_path / "other")
    for path in sorted((other / "images").glob("*.nii.gz")):
        image = nib.load(path)
        data = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(data > 0, 1 + data[::-1], 0).astype(np.int16), image.affine), path)
    (other / "manifest.csv").unlink()
    digests = set()
    for name, place in (("a", cohort), ("b", other)):
        run(load(place, tmp_path / name, "painting.scans=4", "preprocess.center_on=fov"))
        digests.add((tmp_path / name / "model" / "weights-0.safetensors").read_bytes())
    assert len(digests) == 1


def test_cases_without_label_maps_and_validation_are_refused(cohort, tmp_path):
    bare = shutil.copytree(cohort, tmp_path / "bare")
    shutil.rmtree(bare / "masks")
    (bare / "manifest.csv").unlink()
    with pytest.raises(DataError, match="painting needs label maps"):
        run(load(bare, tmp_path / "run"))
    with pytest.raises(ConfigError, match="painted scans are all for training"):
        load(cohort, tmp_path / "run", "validation=0.25", "training.validate_every=1")
