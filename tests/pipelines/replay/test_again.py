"""Runs made again from their records: byte for byte here, refused where scans or models are others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medgen.audit.record import find_record
from medgen.config import load_config, parse_config
from medgen.data.simulation import simulate
from medgen.errors import AuditError, DataError
from medgen.pipelines import train
from medgen.pipelines.anomaly.score import score
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.augment.study import spaced
from medgen.pipelines.replay import again
from medgen.pipelines.replay.again import differences, replay_run
from medgen.pipelines.train_settings import TrainRunConfig
from medgen.preprocessing.recipe import Preprocess
from medgen.runs.outputs import CONFIG, write_outputs_record
from tests.builders.noise_detector import noise_scan, save_noise_detector

TINY = Path(__file__).parents[3] / "configs" / "tiny"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "cohort"
    simulate(out, n=6, seed=0, spacing=8.0)
    return out


@pytest.fixture(scope="module")
def trained(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    settings = [f"data={cohort}", f"out={out}", "device=cpu", "training.steps=3"]
    train.run(load_config(TrainRunConfig, TINY / "train_vae.yaml", settings))
    return out


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the code were committed: tests are run also where it is being changed."""
    monkeypatch.setattr(again, "differences", lambda record: [])


def test_a_training_is_made_again_byte_for_byte(
    trained: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here(monkeypatch)
    found = replay_run(trained, data=[cohort], out=tmp_path / "again")
    assert [str(item) for item in found.differing] == []
    states = {item.file: item.state for item in found.files}
    assert states["model/weights-0.safetensors"] == states["model/artifact.json"] == states["report.html"] == "identical"
    assert found.tolerance is None
    assert any("equal bytes were asked for" in line for line in found.lines)
    assert (tmp_path / "again" / "trained" / "report.html").is_file()
    # Nothing is tracked of it: no store, no journal.
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["trained"]
    assert not (tmp_path / "again" / "trained" / "journal.jsonl").exists()


def test_a_run_that_would_come_out_otherwise_is_named(
    trained: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The record says other weights than its configuration makes."""
    import shutil

    here(monkeypatch)
    run = tmp_path / "trained"
    shutil.copytree(trained, run)
    settings = yaml.safe_load((run / CONFIG).read_text())
    settings["training"]["steps"] = 2
    (run / CONFIG).write_text(yaml.safe_dump(settings, sort_keys=False))
    write_outputs_record(run)
    found = replay_run(run, data=[cohort])
    assert "model/weights-0.safetensors" in {item.file for item in found.differing}
    assert any("of the range" in item.detail for item in found.differing)


def test_other_scans_are_refused(trained: Path, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="the cohort of the run is not here; say where it is with --data"):
        replay_run(trained)
    simulate(tmp_path / "other", n=6, seed=1, spacing=8.0)
    with pytest.raises(AuditError, match="is not the cohort that the run has read: digest"):
        replay_run(trained, data=[tmp_path / "other"])
    with pytest.raises(DataError, match="exists and is not empty"):
        replay_run(trained, data=[cohort], out=cohort)
    with pytest.raises(AuditError, match="is a part of a run"):
        replay_run(trained / "model")


def test_a_scoring_is_made_again_with_its_scans_and_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    model = save_noise_detector(tmp_path / "model")
    scan = noise_scan(tmp_path / "scans" / "new.nii.gz", seed=99)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    score([scan], model=model, out=tmp_path / "scored", device="cpu", viewers="none")
    found = replay_run(tmp_path / "scored", data=[tmp_path / "scans"], model=model)
    assert [str(item) for item in found.differing] == []
    assert {item.state for item in found.files if item.file.startswith("heatmaps/")} == {"identical"}
    with pytest.raises(AuditError, match="is not the model that the run has used"):
        replay_run(tmp_path / "scored", data=[tmp_path / "scans"], model=tmp_path / "scans")
    scan.write_bytes(noise_scan(tmp_path / "x.nii.gz", seed=1).read_bytes())
    with pytest.raises(AuditError, match="is not what the run has read"):
        replay_run(tmp_path / "scored", data=[tmp_path / "scans"], model=model)


def test_how_code_and_machine_differ_is_said(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = find_record(trained)
    monkeypatch.setattr(again, "machine", lambda: {"processor": "another", "architecture": "x"})
    monkeypatch.setattr(again.environment, "versions", lambda: {"torch": "9.9"})
    told = differences(record)
    assert any(line.startswith("processor: ") and line.endswith("another now") for line in told)
    assert any(line.startswith("torch: ") and line.endswith("9.9 now") for line in told)


def test_the_configuration_that_a_run_writes_means_what_the_run_did() -> None:
    """All of it is written down, and reading it again must not turn a choice that was left open into a made one."""
    given = load_config(AugmentRunConfig, TINY / "augment.yaml", ["data=x", "out=y"])
    written = parse_config(AugmentRunConfig, given.model_dump(mode="json"), "config.yaml")
    grid = Preprocess(shape=(8, 8, 8), spacing=(2.0, 3.0, 4.0))
    assert written == given
    assert spaced(written.value, grid) == spaced(given.value, grid)
    assert spaced(given.value, grid).augment.spacing == (2.0, 3.0, 4.0)
