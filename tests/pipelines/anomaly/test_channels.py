"""A cohort of two contrasts, and scans that have one of them: each is compared with healthy scans like itself."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.config import parse_config, read_yaml
from medgen.data.simulation import simulate
from medgen.errors import ConfigError
from medgen.models.artifact import TrainedModel
from medgen.pipelines.anomaly.cohort import left
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.volume import Volume

CONFIG = Path(__file__).parents[3] / "configs" / "tiny" / "anomaly.yaml"


def medgen(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the ``medgen`` command."""
    from medgen.pipelines.cli.app import main

    monkeypatch.setattr(sys, "argv", ["medgen", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T1 as simulated, and a T2 in which what is bright is dark."""
    folder = tmp_path_factory.mktemp("data") / "cohort"
    simulate(folder, n=14, seed=0, spacing=8.0)
    lines = ["id,subject,image"]
    for path in sorted((folder / "images").glob("*.nii.gz")):
        scan = io.read(path)
        data = scan.data.astype(np.float32)
        second = np.where(data > 0, 1.1 * data.max() - data, 0)
        name = path.name.split(".")[0]
        io.write(Volume(second, scan.grid), folder / "images" / f"{name}_t2.nii.gz")
        lines.append(f"{name},{name},images/{path.name};images/{name}_t2.nii.gz")
    (folder / "two.csv").write_text("\n".join(lines) + "\n")
    (folder / "two.json").write_text(json.dumps({"name": "two", "channels": ["T1", "T2"]}))
    return folder


def test_scans_without_a_channel_are_compared_with_such_scans(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    few = ["training.steps=2", "detectability.enabled=false", "anomaly.validation.enabled=false", "-q"]
    few += ["evaluation.per_scan=1", "evaluation.kinds=[hyperintense]", "anomaly.fusion.channels=[zscore, texture]"]
    options = [f"data={cohort / 'two.csv'}", f"out={out}", *few]
    assert medgen(monkeypatch, "anomaly", "run", CONFIG, *options, "without=[[FLAIR]]") == 2
    assert "some of the contrasts T1, T2, found 'FLAIR'" in capsys.readouterr().err
    assert medgen(monkeypatch, "anomaly", "run", CONFIG, *options, "without=[[T2]]") == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["without"]["T2"]["channels"] == ["T1"]
    assert "Scans that lack contrasts" in (out / "report.html").read_text()
    alone = TrainedModel.load(out / "model-without" / "T2", "cpu")
    assert alone.meta["channels"] == ["T1"]
    assert all(model.settings.in_channels == 1 for model in alone.models)

    first, second = cohort / "images" / "sim-0000.nii.gz", cohort / "images" / "sim-0000_t2.nii.gz"
    scored = [tmp_path / "one", tmp_path / "both"]
    assert medgen(monkeypatch, "anomaly", "score", f"T1={first}", "--model", out / "model", "--out", scored[0]) == 0
    both = f"T2={second},T1={first}"
    assert medgen(monkeypatch, "anomaly", "score", both, "--model", out / "model", "--out", scored[1]) == 0
    said = [(folder / "report.html").read_text() for folder in scored]
    assert "The scans have no T2: they were scored by a detector" in said[0]
    assert "The scans have no" not in said[1]
    # The network was trained for nothing, which the first lines say; pictures show both contrasts where there are two.
    for text in (*said, (out / "report.html").read_text()):
        assert "The heatmap is made by 2 scores of equal weight" in text
        assert "The trained model vae carries no weight in it" in text
    assert ["Every contrast through the hottest voxel" in text for text in said] == [False, True]
    # Its p comes from the table of scans without T2, and that is another one.
    tables = [hottest(folder / "calibration.csv") for folder in (*scored, out)]
    assert tables[1] == tables[2] != tables[0]
    assert [next(iter((folder / "heatmaps").iterdir())).name for folder in scored] == ["sim-0000.nii.gz"] * 2

    capsys.readouterr()
    assert (
        medgen(monkeypatch, "anomaly", "score", f"T2={second}", "--model", out / "model", "--out", tmp_path / "x") == 2
    )
    message = capsys.readouterr().err
    assert "lacks T1; expected T1, T2, or these without T2; give the missing ones, or repeat the run" in message


def hottest(path: Path) -> list[str]:
    """The hottest voxel of every healthy scan."""
    with path.open(newline="") as file:
        return [row["max"] for row in csv.DictReader(file)]


def test_channels_without_names_are_numbers() -> None:
    assert left([["2"]], ["1", "2"]) == {("2",): (0,)}
    with pytest.raises(ConfigError, match="twice"):
        left([["T2", "T1"], ["T1", "T2"]], ["T1", "T2", "FLAIR"])
    with pytest.raises(ConfigError, match="but not all"):
        left([["T1"]], ["T1"])
    config = read_yaml(CONFIG) | {"without": [[2]]}
    assert parse_config(AnomalyRunConfig, config, "test").without == (("2",),)
