"""``medgen anomaly evaluate`` through the command line, on heatmaps made for the purpose."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medgen import io
from medgen.volume import Grid, Volume

GRID = Grid((14, 12, 10), np.diag([2.0, 2.0, 3.0, 1.0]))


def evaluate(monkeypatch, capsys, *arguments):
    from medgen.pipelines.cli.app import main

    monkeypatch.setattr(sys, "argv", ["medgen", "anomaly", "evaluate", *map(str, arguments), "-q"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.fixture
def study(tmp_path):
    """Folders "good" and "weak" of heatmaps (two formats) and "truth/masks" with a table above it; 2 of 8 healthy."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(8):
        truth = np.zeros(GRID.shape, np.uint8)
        if number > 1:
            i, j, k = rng.integers(2, 7, size=3)
            truth[i : i + 3, j : j + 3, k : k + 3] = 3
        noise = rng.normal(size=GRID.shape)
        for name, strength, suffix in (("good", 3.0, "nii.gz"), ("weak", 1.0, "mha")):
            heat = (noise + strength * (truth > 0)).astype(np.float32)
            if name == "good":
                heat[0] = np.nan
            io.write(Volume(heat[None], GRID), tmp_path / name / f"scan.{number}.{suffix}")
        io.write(Volume(truth[None], GRID), tmp_path / "truth" / "masks" / f"scan.{number}.nii.gz")
        kind = "none" if number < 2 else ("blur", "shift")[number % 2]
        rows.append(f"scan.{number},s{number // 2},{kind},{4 + number},1.5\n")
    (tmp_path / "truth" / "manifest.csv").write_text("id,subject,kind,radius_mm,contrast\n" + "".join(rows))
    return tmp_path


def numbers(path):
    with path.open(newline="") as file:
        return {(row["method"], row["metric"]): row for row in csv.DictReader(file)}


def test_two_methods_side_by_side(study, monkeypatch, capsys):
    out = study / "out"
    code, printed, _ = evaluate(
        monkeypatch, capsys, study / "good", study / "truth" / "masks",
        "--against", study / "weak", "--out", out, "--json",
    )  # fmt: skip
    assert code == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == json.loads(printed)["metrics"]
    assert (metrics["scans"], metrics["healthy"], metrics["subjects"]) == (6, 2, 4)
    s, t = {}, []
    for name, suffix in (("good", "nii.gz"), ("weak", "mha")):
        maps = [io.read(study / name / f"scan.{n}.{suffix}", allow_nan=True).data.ravel() for n in range(2, 8)]
        s[name] = np.nan_to_num(np.concatenate(maps), nan=-99)
    masks = [io.read(study / "truth" / "masks" / f"scan.{n}.nii.gz").data.ravel() for n in range(2, 8)]
    t = np.concatenate(masks) > 0
    table = numbers(out / "metrics.csv")
    for row in metrics["methods"]:
        ap = row["voxel"]["AP"]
        assert ap["estimate"] == pytest.approx(average_precision_score(t, s[row["name"]]), rel=5e-3)
        assert ap["low"] <= ap["estimate"] <= ap["high"]
        assert row["voxel"]["AUROC"]["estimate"] == pytest.approx(roc_auc_score(t, s[row["name"]]), abs=1e-3)
        assert set(row["groups"]) == {"kind", "contrast", "radius"}
        assert set(row["groups"]["kind"]) == {"blur", "shift"}
        assert float(table[row["name"], "AP"]["estimate"]) == pytest.approx(ap["estimate"], rel=1e-5)
    assert metrics["prevalence"] == pytest.approx(t.mean())
    paired = metrics["paired"][0]
    assert paired["other"] == "weak"
    assert paired["difference"]["AP"]["low"] > 0
    assert paired["p_holm"] == paired["p"] == pytest.approx(2 / 2**3)  # three subjects with anomalies, one sign
    report = (out / "report.html").read_text(encoding="utf-8")
    for words in ("Against weak", "coverage", "Voxel AP by kind", "data:image/png;base64,"):
        assert words in report
    assert "good against weak" in printed
    assert "manifest.csv" in printed


def test_without_tables_each_file_is_a_subject_and_a_list_overrides(study, monkeypatch, capsys):
    (study / "truth" / "manifest.csv").unlink()
    masks = study / "truth" / "masks"
    code, printed, _ = evaluate(monkeypatch, capsys, study / "good", masks, "--json")
    assert code == 0
    assert "each file counts as a subject of its own" in printed
    assert json.loads(printed)["metrics"]["subjects"] == 8
    assert not (study / "out").exists()
    owners = study / "owners.csv"
    owners.write_text("scan,person\n" + "".join(f"scan.{n},p{n % 2}\n" for n in range(8)))
    code, printed, _ = evaluate(monkeypatch, capsys, study / "good", masks, "--subjects", owners, "--json")
    assert code == 0
    assert json.loads(printed)["metrics"]["subjects"] == 2
    owners.write_text("scan,person\nscan.1,p\n")
    code, _, error = evaluate(monkeypatch, capsys, study / "good", masks, "--subjects", owners)
    assert code == 2
    assert "no subject for scan.0" in error
    owners.write_text("scan,person\nscan.1,p\nscan.1,q\n")
    code, _, error = evaluate(monkeypatch, capsys, study / "good", masks, "--subjects", owners)
    assert code == 2
    assert "owners.csv:3: 'scan.1' has two subjects" in error


def test_a_scan_without_a_mask_is_healthy_only_if_told_so(study, monkeypatch, capsys):
    masks = study / "truth" / "masks"
    for number in range(2):
        (masks / f"scan.{number}.nii.gz").unlink()
    code, _, error = evaluate(monkeypatch, capsys, study / "good", masks)
    assert code == 2
    assert "scan.0.nii.gz, scan.1.nii.gz" in error
    assert "--unmatched-healthy" in error
    code, printed, _ = evaluate(monkeypatch, capsys, study / "good", masks, "--unmatched-healthy", "--json")
    assert code == 0
    assert json.loads(printed)["metrics"]["healthy"] == 2


def test_files_without_a_partner_and_other_grids_are_named_in_one_line(study, monkeypatch, capsys):
    masks = study / "truth" / "masks"

    def refused(*words, arguments=()):
        code, _, error = evaluate(monkeypatch, capsys, study / "good", masks, *arguments)
        assert code == 2
        assert len(error.strip().splitlines()) == 1
        for word in words:
            assert word in error

    (study / "weak" / "scan.3.mha").unlink()
    refused("weak", "no heatmap for scan.3.nii.gz", arguments=("--against", study / "weak"))
    path = study / "good" / "scan.4.nii.gz"
    kept = path.read_bytes()
    path.unlink()
    refused("no heatmap", "scan.4.nii.gz")
    io.write(Volume(np.zeros((1, 14, 12, 9), np.float32), Grid((14, 12, 9), GRID.affine)), path)
    refused("good/scan.4.nii.gz", "masks/scan.4.nii.gz", "14x12x9", "14x12x10")
    moved = GRID.affine.copy()
    moved[0, 3] = 1
    io.write(Volume(np.zeros((1, *GRID.shape), np.float32), Grid(GRID.shape, moved)), path)
    refused("other voxel positions", "masks/scan.4.nii.gz")
    io.write(Volume(np.full((1, *GRID.shape), np.nan, np.float32), GRID), path)
    refused("good/scan.4.nii.gz", "NaN in all voxels")
    path.write_bytes(kept)
    truth = masks / "scan.4.nii.gz"
    whole = truth.read_bytes()
    io.write(Volume(np.full((1, *GRID.shape), 0.5, np.float32), GRID), truth)
    refused("masks/scan.4.nii.gz", "fractional labels")
    truth.write_bytes(whole)
    io.write(Volume(np.zeros((1, *GRID.shape), np.float32), GRID), study / "good" / "scan.4.nrrd")
    refused("the same scan as")
    code, _, error = evaluate(monkeypatch, capsys, study / "absent", masks)
    assert code == 2
    assert "absent: no such folder" in error
