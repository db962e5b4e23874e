"""Typos are known without importing what a run needs, in the words of the configuration itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from medgen.errors import ConfigError
from medgen.pipelines.cli import known_keys

CONFIGS = Path(__file__).parents[3] / "configs"
OF = {
    "anomaly": "AnomalyRunConfig",
    "augment": "AugmentRunConfig",
    "value": "ValueRunConfig",
    "train": "TrainRunConfig",
}


def test_the_file_is_what_the_classes_say():
    written = json.loads((CONFIGS / "keys.json").read_text())
    assert known_keys.made() == written, "run python -m medgen.pipelines.cli.known_keys"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_shipped_configuration_is_refused(path):
    if path.parent.name in OF:
        known_keys.refuse_typos(OF[path.parent.name], yaml.safe_load(path.read_text()), "x")


@pytest.mark.parametrize(
    ("config", "values", "words"),
    [
        ("AnomalyRunConfig", {"trainning": {}}, "x: unknown key 'trainning'; did you mean 'training'?"),
        ("AnomalyRunConfig", {"anomaly": {"fusion": {"chanels": 1}}}, "'anomaly.fusion.chanels'; did you mean 'channels'"),
        ("AnomalyRunConfig", {"further": {"a": {"modell": {}}}}, "'further.a.modell'; did you mean 'model'?"),
        ("TrainRunConfig", {"model": {"family": "vae", "latnt": 3}}, "'model.latnt'; did you mean 'latent'?"),
        ("TrainRunConfig", {"preprocess": {"modality": "MRI"}}, "preprocess.modality: expected 'MR', 'CT', 'PET' or 'auto' (found 'MRI'); did you mean 'MR'?"),
        ("AugmentRunConfig", {"generators": {"defrom": {}}}, "'generators.defrom'; did you mean 'deform'?"),
        ("AugmentRunConfig", {"generators": {"shape+spade": {"painter": {"training": {"stepz": 3}}}}}, "did you mean 'steps'?"),
    ],
)  # fmt: skip
def test_typos_are_named_with_what_was_meant(config, values, words):
    with pytest.raises(ConfigError) as error:
        known_keys.refuse_typos(config, values, "x")
    assert words in str(error.value)


def test_what_the_file_does_not_know_is_left_to_the_class(monkeypatch):
    keys = dict(known_keys.known_keys())
    keys["TrainingConfig"] = {name: own for name, own in keys["TrainingConfig"].items() if name != "steps"}
    monkeypatch.setattr(known_keys, "known_keys", lambda: keys)
    known_keys.refuse_typos("TrainRunConfig", {"training": {"steps": 3}}, "x")
    with pytest.raises(ConfigError):
        known_keys.refuse_typos("TrainRunConfig", {"training": {"stepz": 3}}, "x")


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("trai", ["training."]),
        ("training.st", ["training.steps="]),
        ("model.family=vae", ["model.family=vae", "model.family=vaegan"]),
        ("preprocess.modality=C", ["preprocess.modality=CT"]),
        ("nothing.at", []),
    ],
)
def test_keys_are_completed(begun, found):
    assert known_keys.completions("AnomalyRunConfig", begun) == found
