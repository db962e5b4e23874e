"""The benchmark end to end, through the command line, on a tiny simulated cohort."""

from __future__ import annotations

import csv
import json
import shutil
import sys

import numpy as np
import pytest

from medgen import io
from medgen.anomaly.comparison import measurement_file
from medgen.anomaly.comparison.measurement_file import MeasurementFile
from medgen.anomaly.evaluation.measure import HEALTHY
from medgen.data.simulation import simulate
from medgen.volume import Grid, Volume

CONTROLS = {"zero amplitude", "permuted masks"}


def medgen(*arguments):
    """Exit code of the ``medgen`` command."""
    from medgen.pipelines.cli.app import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    simulate(folder / "simulated", n=14, seed=0, spacing=8.0)
    grid = Grid((20, 24, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    lesion = np.zeros((1, 20, 24, 20), dtype=np.uint8)
    lesion[0, 5:9, 6:12, 7:10] = 1
    lesion[0, 8:12, 10:14, 8:10] = 1
    io.write(Volume(lesion, grid), folder / "lesions" / "lesion.nii.gz")
    # The template that such folders hold, which is no mask.
    io.write(Volume(np.ones_like(lesion), grid), folder / "lesions" / "ch2.nii.gz")
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    assert medgen("bench", "anomaly", out, "--data", data, "--quick", "-q") == 0
    return out


@pytest.mark.slow
def test_a_benchmark_writes_text_numbers_and_pictures(finished):
    numbers = json.loads((finished / "anomaly.json").read_text())
    (cohort,) = numbers["cohorts"]
    assert cohort["implanted"] == 16
    rows = {row["name"]: row for row in cohort["rows"]}
    assert {"fused", "zscore (raw)", "zscore (z)", "pca (raw)", "selfsup (raw)", "monai-vae (raw)"} <= set(rows)
    assert rows["monai-vae (raw)"]["role"] == "peer"
    assert 0 < rows["zscore (raw)"]["p_holm"] <= 1
    assert set(cohort["controls"]) == CONTROLS
    assert len(cohort["left_out"]) == 6
    found = {row["name"]: row for row in cohort["findings"]}
    assert set(found) == set(rows)
    for row in found.values():
        shares = [share["estimate"] for share in row["sensitivity"].values()]
        assert list(row["sensitivity"]) == ["0.25", "0.5", "1.0", "2.0"]
        assert 0 <= shares[0] <= shares[1] <= shares[2] <= shares[3] <= 1
        assert set(row["difference"]) == (set() if row["name"] == "fused" else {"0.5", "1.0"})
    assert found["fused"]["sensitivity"]["2.0"]["estimate"] > 0
    assert "lesion" in {cell["kind"] for cell in cohort["cells"]}
    assert numbers["speed"]["score_s"] > 0
    assert numbers["speed"]["restoration_s"] > 0
    assert 50 < numbers["speed"]["peak_mb"] < 10_000
    text = (finished / "anomaly.md").read_text()
    for words in (
        "numbers mean nothing",
        "### Finding the lesions",
        "fused - row at 0.5",
        "| expected false findings | implants found |",
        "### Controls",
        "p (Holm)",
        "monai-vae: 2 of 2 steps",
        "## Speed and memory",
    ):
        assert words in text
    assert str(finished) not in text
    for name in ("rows", "kinds"):
        picture = finished / f"anomaly-simulated-{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"({picture.name})" in text


@pytest.mark.slow
def test_pooled_numbers_of_one_seed_equal_those_of_its_run(finished):
    (cohort,) = json.loads((finished / "anomaly.json").read_text())["cohorts"]
    own = json.loads((finished / "simulated-0" / "metrics.json").read_text())
    rows = {row["name"]: row for row in cohort["rows"]}
    for row in own["voxel"]:
        assert rows[row["name"]]["ap"]["estimate"] == pytest.approx(row["ap"]["estimate"], abs=1e-9)
        assert rows[row["name"]]["auroc"]["estimate"] == pytest.approx(row["auroc"]["estimate"], abs=1e-9)
    for name in CONTROLS:
        assert cohort["controls"][name]["estimate"] == pytest.approx(own["controls"][name]["estimate"])
    assert cohort["any_hot"]["estimate"] == own["any_hot"]["estimate"]
    with (finished / "simulated-0" / "sensitivity.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["by"] == "all"]
    shares = cohort["calibrated"]["groups"][0]["shares"]
    assert [(share["level"], share["found"]) for share in shares] == [
        (float(line["expected_false"]), int(line["found"])) for line in lines
    ]


@pytest.mark.slow
def test_resuming_keeps_finished_runs_and_gives_the_same_numbers(finished, data, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "anomaly.md").unlink()
    # Peers are made again where their file lacks healthy scans, on the very scans of the run.
    scored = MeasurementFile.open(out / "simulated-0-peers.npz")
    items = [item for item in scored.measurements(scored.names) if item.kind != HEALTHY]
    assert len(items) < len(scored.facts)
    measurement_file.save(scored.path, items)
    left_out = (out / "simulated-0-left-out.npz").stat().st_mtime_ns
    record = (out / "simulated-0" / "outputs.json").stat().st_mtime_ns
    assert medgen("bench", "anomaly", out, "--data", data, "--quick", "-q") == 2
    assert not (out / "anomaly.md").exists()
    assert medgen("bench", "anomaly", out, "--data", data, "--quick", "-q", "--resume") == 0
    assert (out / "simulated-0" / "outputs.json").stat().st_mtime_ns == record
    assert (out / "simulated-0-left-out.npz").stat().st_mtime_ns == left_out
    before, after = (json.loads((folder / "anomaly.json").read_text()) for folder in (finished, out))
    assert after["cohorts"] == before["cohorts"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cohorts", "brains"], "found brains"),
        (["--seeds", "0,x"], "whole numbers"),
        (["--cohorts", "oasis", "--data", "nowhere"], "nowhere"),
    ],
)
def test_user_errors_are_one_line(arguments, message, tmp_path, capsys):
    out = tmp_path / "never"
    assert medgen("bench", "anomaly", out, "--quick", "-q", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
