"""Every configuration that is shipped parses and plans; a new file is tested with no edit here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medgen.config import load_config, parse_config, read_yaml
from medgen.data.simulation import simulate
from medgen.pipelines import train
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.pipelines.anomaly.plan import plan as anomaly_plan
from medgen.pipelines.augment import value
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.augment.plan import plan as augment_plan
from medgen.pipelines.augment.value_config import ValueRunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS: dict[str, tuple[Any, Any]] = {
    "train": (train.TrainRunConfig, train.plan),
    "anomaly": (AnomalyRunConfig, anomaly_plan),
    "augment": (AugmentRunConfig, augment_plan),
    "value": (ValueRunConfig, value.plan),
    # Its part "run" is laid over the configuration of the simulated cohort.
    "bench": (AnomalyRunConfig, anomaly_plan),
}


def kind_of(path: Path) -> str:
    """The command that reads a file: its folder, or the first word of its name among the tiny ones."""
    return path.stem.partition("_")[0] if path.parent.name == "tiny" else path.parent.name


SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cohort"
    simulate(folder, n=16, seed=0, spacing=16.0)
    return folder


def test_there_are_files_of_every_kind() -> None:
    assert {kind_of(path) for path in SHIPPED} == set(KINDS)


def small(settings: dict[str, Any], cohort: Path, out: Path) -> dict[str, Any]:
    """The same on a small grid, for the 16 subjects that are there."""
    there = {"data": str(cohort), "out": str(out), "device": "cpu"}
    given: dict[str, Any] = {key: value for key, value in settings.items() if key != "cohort"} | there
    for key, most in (("labelled_subjects", 6), ("unlabelled_cases", 2)):
        if given.get(key) is not None:
            given[key] = min(given[key], most)
    if "shape" in given.get("preprocess", {}):
        given["preprocess"] = {**given["preprocess"], "shape": [16, 16, 16]}
    if "anomaly" in given:
        calibration = {**given["anomaly"].get("calibration", {}), "target_fpr": 0.25}
        given["anomaly"] = {**given["anomaly"], "folds": 2, "calibration": calibration}
    if "subjects" in given.get("value", {}):
        given["value"] = {**given["value"], "subjects": [2, 4], "real_only": []}
    return given


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_it_parses_and_plans(path: Path, cohort: Path, tmp_path: Path) -> None:
    kind, plan = KINDS[kind_of(path)]
    settings = read_yaml(path)
    if kind_of(path) == "bench":
        settings = {**read_yaml(CONFIGS / "anomaly" / "simulated.yaml"), **settings["run"]}
    else:
        load_config(kind, path)
    lines = plan(parse_config(kind, small(settings, cohort, tmp_path / "run"), source=path.name))
    assert any("training of" in line or "trainings of" in line or "segmenter" in line for line in lines)
    makes = kind is train.TrainRunConfig and settings["model"]["family"] not in ("context", "dae", "segmenter")
    assert any("a sample takes about" in line for line in lines) == makes
    assert not (tmp_path / "run").exists()
