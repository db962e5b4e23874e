"""Folds trained by workers elsewhere: the same run as if they had been trained here, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medgen.audit.verify import verify_run
from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import ConfigError
from medgen.pipelines.anomaly import run as pipeline
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.pipelines.anomaly.plan import plan
from medgen.runs.journal import entries

CONFIG = Path(__file__).parents[3] / "configs" / "tiny" / "anomaly.yaml"
CLUSTER = ("executor=slurm", "resources.submit_to=local", "resources.minutes=10")
# No evaluation beyond what every run has: it is the trainings that are compared.
BRIEF = ("detectability.enabled=false", "artefacts.enabled=false", "evaluation.per_scan=1", "training.steps=12")

pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cohort"
    simulate(folder, n=14, seed=0, spacing=8.0)
    return folder


@pytest.fixture(scope="module")
def runs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run with folds trained here and by jobs."""
    base = tmp_path_factory.mktemp("runs")
    for name, more in (("here", ()), ("jobs", CLUSTER)):
        pipeline.run(config(cohort, base / name, *more))
    return {name: base / name for name in ("here", "jobs")}


def config(cohort: Path, out: Path, *more: str) -> AnomalyRunConfig:
    return load_config(AnomalyRunConfig, CONFIG, [f"data={cohort}", f"out={out}", "device=cpu", *BRIEF, *more])


def curves(out: Path) -> Iterator[tuple[str, int, Any]]:
    """Part of the run, step and numbers of everything that trainings have logged."""
    names: dict[str, str] = {}
    for entry, _ in entries(out / "journal.jsonl"):
        if entry["kind"] == "start":
            names[entry["run"]] = entry["name"]
        elif entry["kind"] == "metrics" and "fold" in names[entry["run"]]:
            yield names[entry["run"]], entry["step"], tuple(sorted(entry["values"].items()))


@pytest.mark.slow
def test_a_run_is_the_same_wherever_its_folds_are_trained(runs: dict[str, Path]) -> None:
    here, jobs = runs["here"], runs["jobs"]
    for name in ("training.json", "calibration.csv", "candidates.csv", "scans.csv", "findings.csv", "splits.csv"):
        assert (here / name).read_bytes() == (jobs / name).read_bytes(), name
    weights = sorted(path.name for path in (here / "model").glob("weights-*"))
    assert len(weights) == 2
    for name in weights:
        assert (here / "model" / name).read_bytes() == (jobs / "model" / name).read_bytes(), name


@pytest.mark.slow
def test_losses_are_tracked_and_nothing_of_the_shards_is_left(runs: dict[str, Path]) -> None:
    def losses(out: Path) -> Counter[tuple[str, int, Any]]:
        return Counter(
            (name, step, tuple(pair for pair in values if pair[0] in ("loss", "nll", "lr")))
            for name, step, values in curves(out)
            if any(key == "loss" for key, _ in values)
        )

    assert losses(runs["here"])
    assert losses(runs["here"]) == losses(runs["jobs"])
    assert not (runs["jobs"] / "checkpoints").exists()
    assert verify_run(runs["jobs"], model=runs["jobs"] / "model").problems == ()


def test_a_plan_says_where_folds_would_be_trained(cohort: Path, tmp_path: Path) -> None:
    lines = plan(config(cohort, tmp_path / "run", *CLUSTER))
    assert any(line.startswith("trainings: 2 case(s) in 2 shard(s)") for line in lines)
    assert not any(line.startswith("trainings:") for line in plan(config(cohort, tmp_path / "run")))


def test_what_cannot_be_is_refused_before_anything_is_trained(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no sbatch here"):
        pipeline.run(config(cohort, tmp_path / "run", "executor=slurm"))
    assert not (tmp_path / "run").exists()
    with pytest.raises((ConfigError, ValidationError), match="expected executor=slurm or executor=dask"):
        config(cohort, tmp_path / "run", "resources.minutes=10")
