"""The anomaly pipeline end to end, through the command line, on a tiny simulated cohort."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgen import io
from medgen.anomaly.config import HEAT_SCORES
from medgen.anomaly.scores.catalogue import registered
from medgen.config import load_config
from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import DataError, TrainingError
from medgen.pipelines.anomaly.cohort import split
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.pipelines.anomaly.stages import pipeline
from medgen.transforms.affine_registration import register_affine
from medgen.volume import Volume
from tests.builders.intervals import check as check_intervals
from tests.builders.printed_numbers import unknown
from tests.builders.run_outputs import undeclared, unlike_the_run
from tests.builders.tracked_run import Tracked

CONFIG = Path(__file__).parents[3] / "configs" / "tiny" / "anomaly.yaml"


def medgen(monkeypatch, capsys, *arguments):
    """Exit code, standard output and error of the ``medgen`` command; the people of new scans are not known."""
    from medgen.pipelines.cli.app import main

    # The cohort says who is a man or a woman, so that its models ask for it.
    arguments = (*arguments, *(["--unadjusted"] if arguments[:2] == ("anomaly", "score") else []))
    monkeypatch.setattr(sys, "argv", ["medgen", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cohort"
    simulate(folder, n=14, seed=0, spacing=8.0)
    table = rows(folder / "manifest.csv")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*table[0], "Sex"])
        writer.writeheader()
        writer.writerows({**row, "Sex": "FM"[number % 2]} for number, row in enumerate(table))
    return folder


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    """One finished run, shared by the tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        out = tmp_path_factory.mktemp("runs") / "anomaly"
        patch.setattr(sys, "argv", ["medgen", "anomaly", "run", str(CONFIG), f"data={cohort}", f"out={out}", "-q"])
        from medgen.pipelines.cli.app import main

        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return out


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_everything_it_promises(finished):
    assert undeclared(finished, pipeline()) == []
    assert unlike_the_run(finished) == []
    for name in (
        "report.html",
        "metrics.json",
        "config.yaml",
        "manifest.csv",
        "splits.csv",
        "failures.csv",
        "scans.csv",
    ):
        assert (finished / name).is_file(), name
    assert (finished / "findings.csv").is_file()
    assert (finished / "model" / "artifact.json").is_file()
    assert not (finished / "checkpoints").exists()
    names = {row["case"] for row in rows(finished / "scans.csv")}
    assert {io.stem(path) for path in (finished / "heatmaps").iterdir()} == names
    assert rows(finished / "failures.csv") == []
    # Pseudo-healthy scans are written for the scans that the report shows, healthy and implanted.
    shown = {io.stem(path) for path in (finished / "pseudo-healthy").iterdir()}
    assert shown == {io.stem(path) for path in (finished / "difference").iterdir()}
    assert shown < names
    kinds = [row["kind"] for row in rows(finished / "scans.csv") if row["case"] in shown]
    assert sorted(kinds) == ["foreign", "healthy", "healthy", "hyperintense", "hypointense"]


def test_the_text_for_a_methods_section_has_the_numbers_of_the_run(finished):
    said = (finished / "methods.md").read_text(encoding="utf-8")
    metrics = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))
    split = rows(finished / "splits.csv")
    test = [row for row in split if row["part"] == "test"]
    assert f"development: {len(split) - len(test)} scans" in said
    assert f"test: {len(test)} scans" in said
    assert f"{metrics['calibration_subjects']} healthy subjects" in said
    assert f"(z {metrics['threshold']:.2f})" in said
    assert f"{metrics['models'][0]['parameters']} parameters" in said
    assert "trained for 30 steps" in said
    for channel in metrics["channels"]:
        assert f"Score `{channel}`" in said
    assert "hyperintense, hypointense and foreign" in said
    assert "methods.md" in (finished / "report.html").read_text(encoding="utf-8")


def test_no_subject_is_on_both_sides_of_the_split(finished):
    parts = {}
    for row in rows(finished / "splits.csv"):
        parts.setdefault(row["part"], set()).add(row["subject"])
    assert set(parts) == {"fold-1", "fold-2", "test"}
    assert sum(len(part) for part in parts.values()) == len(set.union(*parts.values())) == 14
    assert {row["subject"] for row in rows(finished / "scans.csv")} == parts["test"]


def test_heatmaps_lie_on_the_native_grid_and_are_nan_outside_the_scored_region(finished, cohort):
    case = next(row["case"] for row in rows(finished / "scans.csv") if row["kind"] == "healthy")
    scan = io.read(next((cohort / "images").glob(f"{case}*")))
    heatmap = io.read(finished / "heatmaps" / f"{case}.nii.gz", allow_nan=True)
    np.testing.assert_allclose(heatmap.grid.affine, scan.grid.affine, atol=1e-6)
    assert heatmap.grid.shape == scan.grid.shape
    assert np.isnan(heatmap.data[0, 0, 0, 0])
    assert np.isfinite(heatmap.data).mean() > 0.1


def test_the_metrics_hold_every_row_with_its_interval_and_the_controls(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    names = {row["name"] for row in metrics["voxel"]}
    assert {"fused", "zscore (raw)", "zscore (z)", "pca (z)", "blur (raw)", "residual (z)", "nll (z)"} <= names
    for row in metrics["voxel"]:
        assert row["ap"]["low"] <= row["ap"]["estimate"] <= row["ap"]["high"]
    cheap = {name for name, entry in registered("scan").items() if not entry.costly}
    assert {row["name"] for row in metrics["scan"]} == {*HEAT_SCORES, *cheap}
    assert 0.3 < metrics["controls"]["zero amplitude"]["estimate"] < 3
    assert 0.3 < metrics["controls"]["permuted masks"]["estimate"] < 3
    fused = next(row for row in metrics["voxel"] if row["name"] == "fused")
    assert fused["ap"]["estimate"] > 2 * metrics["prevalence"]


def test_the_smallest_lesions_are_tabulated_by_region(finished):
    table = rows(finished / "detectability.csv")
    assert {row["region"] for row in table} == {
        "left near the surface",
        "right near the surface",
        "left deep",
        "right deep",
    }
    assert len(table) == 4 * 2 * 2
    assert sum(int(row["subjects"]) for row in table) > 0
    numbers = json.loads((finished / "metrics.json").read_text())["detectability"]
    assert [int(row["detected"]) for row in table] == [cell["detected"] for cell in numbers["cells"]]
    assert len(numbers["smallest"]) == 4 * 2
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert "Minimum detectable lesion" in report


def test_the_heatmaps_of_a_run_are_evaluated_the_same_from_inside_and_from_outside(finished, monkeypatch, capsys):
    code, printed, _ = medgen(
        monkeypatch, capsys, "anomaly", "evaluate", finished / "heatmaps", finished / "truth", "--json", "-q"
    )
    assert code == 0
    assert "scans.csv" in printed
    numbers = json.loads(printed)["metrics"]
    inside = json.loads((finished / "metrics.json").read_text())
    assert (numbers["subjects"], numbers["healthy"]) == (inside["subjects"], inside["healthy"])
    assert numbers["group_sizes"]["kind"] == inside["kinds"]
    # Every metric and every interval of the files, and the scan scores are those of the tables.
    ours, theirs = inside["own_grid"]["methods"][0], numbers["methods"][0]
    assert {**ours, "name": ""} == {**theirs, "name": ""}
    for row in inside["scan"]:
        if row["name"] in theirs["scan"]:
            for what in ("AUROC", "AP"):
                assert theirs["scan"][row["name"]][what]["estimate"] == pytest.approx(row[what.lower()]["estimate"])
    # Centred only, at the scans' own spacing: heat on the native grid is that on the model grid.
    assert theirs["voxel"]["AP"]["estimate"] == pytest.approx(inside["voxel"][0]["ap"]["estimate"], rel=0.1)


def by_hand(table, column, value):
    """The p-value as a reader computes it, from the text of the files alone."""
    return (1 + sum(float(row[column]) >= float(value) for row in table)) / (1 + len(table))


def test_every_p_value_follows_from_the_printed_score_and_the_calibration_table(finished):
    table, scored = rows(finished / "calibration.csv"), rows(finished / "scans.csv")
    metrics = json.loads((finished / "metrics.json").read_text())
    assert len(table) == metrics["calibration_subjects"] == 10
    assert {row["subject"] for row in table}.isdisjoint({row["subject"] for row in scored})
    names = [column.removeprefix("p_") for column in scored[0] if column.startswith("p_")]
    assert {"top", "max", "mean", "cluster"} < set(names)
    assert "p" not in scored[0]
    for row in scored:
        for name in names:
            assert float(row[f"p_{name}"]) == by_hand(table, name, row[name]), (row["case"], name)
    listed = rows(finished / "findings.csv")
    candidates = rows(finished / "candidates.csv")
    assert {row["subject"] for row in candidates} <= {row["subject"] for row in table}
    for row in listed:
        assert float(row["p_max"]) == by_hand(table, "max", row["peak"])
        hotter = sum(float(line["weight"]) for line in candidates if float(line["heat"]) >= float(row["peak"]))
        expected = (hotter + int(row["finding"])) / (1 + len(table))
        assert float(row["expected_false"]) == pytest.approx(expected, abs=1e-12)
        assert expected <= metrics["false_findings"]["false_findings"] + 1e-9
    # A family-wise finding exactly where p(max) is at or below the target; scans.csv counts those of findings.csv.
    counts = Counter(row["case"] for row in listed)
    strong = Counter(row["case"] for row in listed if row["family_wise"] == "True")
    for row in scored:
        assert int(row["findings"]) == counts[row["case"]]
        assert int(row["family_wise"]) == strong[row["case"]]
        assert (strong[row["case"]] > 0) == (float(row["p_max"]) <= metrics["target_fpr"] + 1e-12)
    assert len({bool(counts[row["case"]]) for row in scored}) == 2


def test_what_is_found_is_the_same_in_every_file(finished):
    """The headline, the table by group and the scans: an implant is found up to the level of its strongest finding."""
    found = json.loads((finished / "metrics.json").read_text())["findings"]
    table = rows(finished / "sensitivity.csv")
    implanted = [row for row in rows(finished / "scans.csv") if row["kind"] != "healthy"]
    levels = [row["expected_false_on_implant"] for row in implanted]
    for line in table:
        own = [
            value
            for value, row in zip(levels, implanted, strict=True)
            if line["by"] == "all" or (line["by"] == "kind" and row["kind"] == line["group"])
        ]
        if line["by"] in ("all", "kind"):
            assert int(line["scans"]) == len(own)
            at = float(line["expected_false"]) + 1e-9
            assert int(line["found"]) == sum(value != "" and float(value) <= at for value in own)
    everything = [share["found"] for share in found["groups"][0]["shares"]]
    assert everything == [int(line["found"]) for line in table if line["by"] == "all"]
    assert everything == sorted(everything)
    assert everything[-1] > 0


def test_the_scores_of_a_scan_can_be_read_off_its_file(finished):
    for row in rows(finished / "scans.csv"):
        heatmap = io.read(finished / "heatmaps" / f"{row['case']}.nii.gz", allow_nan=True)
        assert float(row["max"]) == np.nanmax(heatmap.data)
        assert float(row["mean"]) == pytest.approx(np.nanmean(heatmap.data), abs=1e-5)
    for row in rows(finished / "findings.csv"):
        heatmap = io.read(finished / "heatmaps" / f"{row['case']}.nii.gz", allow_nan=True)
        voxel = tuple(int(row[f"voxel_{axis}"]) for axis in "ijk")
        assert float(row["peak"]) == heatmap.data[0][voxel]
        assert float(row["half_peak_extent_ml"]) > 0


def test_every_interval_holds_its_estimate(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert check_intervals(metrics) == []
    broken = json.loads((finished / "metrics.json").read_text())
    broken["scan"][0]["auroc"] |= {"estimate": 0.585, "low": 0.592, "high": 0.75}
    assert len(check_intervals(broken)) == 1


def test_every_number_of_the_report_is_in_a_file_of_the_run(finished, tmp_path):
    assert unknown(finished) == []
    # The grid that was chosen is told where the configuration leaves it open.
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["preprocess"]["shape"] == [20, 24, 20]
    # And the other way round: a number that no file holds is found.
    copied = shutil.copytree(finished, tmp_path / "run")
    page = (copied / "report.html").read_text(encoding="utf-8")
    (copied / "report.html").write_text(f"{page}<p>found in 0.7316529 of scans</p>", encoding="utf-8")
    assert unknown(copied) == ["0.7316529: found in 0.7316529 of scans"]


def test_the_report_says_what_the_metrics_hold(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    text = re.sub(r"<[^>]+>", " ", html.unescape((finished / "report.html").read_text(encoding="utf-8")))
    text = " ".join(text.split())
    found = metrics["findings"]
    own = next(share for share in found["groups"][0]["shares"] if share["level"] == found["level"])
    assert f"a finding is on {own['found']} of {metrics['implanted']} implants" in text
    assert f"is passed on {metrics['found_family_wise']} of {metrics['implanted']} implants" in text
    assert f"{len(found['missed'])} of {metrics['implanted']} implants have no finding on them" in text
    channels = ", ".join(metrics["channels"])
    assert f"scores of the heatmap {channels} " in text
    assert f"subjects in the calibration {metrics['calibration_subjects']} " in text
    # No docstring marks on the page, and the words of the leverage where it decides only.
    assert "``" not in text
    assert ":func:" not in text
    assert ("sets the family-wise threshold alone" in text) == metrics["leverage"]["decides"]


def test_a_finished_run_is_calibrated_again_without_a_scan_and_trains_nothing(
    finished, cohort, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    worst = max(rows(out / "calibration.csv"), key=lambda row: float(row["max"]))["subject"]
    case = next(row["case"] for row in rows(out / "splits.csv") if row["subject"] == worst)
    command = ["anomaly", "run", CONFIG, f"data={cohort}", f"out={out}", "-q", "--resume"]
    code, _, error = medgen(monkeypatch, capsys, *command, "exclude=[nobody]")
    assert code == 2
    assert "exclude: 'nobody' is no development case" in error
    everyone = [row["case"] for row in rows(out / "splits.csv") if row["part"] != "test"]
    code, _, error = medgen(monkeypatch, capsys, *command, f"exclude={json.dumps(everyone)}")
    assert code == 2
    assert "10 of 10 development scans leave 0 subjects; expected at least 4 for 2 folds; exclude fewer" in error
    code, _, error = medgen(monkeypatch, capsys, *command, f"exclude={case}")
    assert code == 2
    assert f"expected a list of case ids, such as 'exclude=[\"{case}\"]'" in error
    code, _, error = medgen(monkeypatch, capsys, *command, "training.steps=7")
    assert code == 2
    assert "differs from the first start in: training" in error

    def untrained(*_, **__):
        raise AssertionError("a model was trained")

    monkeypatch.setattr("medgen.pipelines.anomaly.stages.train.fit", untrained)
    code, _, _ = medgen(monkeypatch, capsys, *command, f"exclude=[{case}]")
    assert code == 0
    table = rows(out / "calibration.csv")
    assert len(table) == 9
    assert worst not in {row["subject"] for row in table}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["excluded"] == [case]
    before = json.loads((finished / "metrics.json").read_text())
    assert metrics["threshold"] != before["threshold"]
    assert f"left out of the calibration</abbr></dt><dd>{case}" in re.sub(
        r"\s*\n\s*", "", (out / "report.html").read_text(encoding="utf-8")
    )


def test_registrations_are_not_repeated_after_an_interruption(cohort, tmp_path, monkeypatch, capsys):
    made = []
    command = ["anomaly", "run", CONFIG, f"data={cohort}", f"out={tmp_path / 'run'}", "preprocess.align=affine"]

    def counted(moving, fixed, fixed_mask=None, *, start=None):
        made.append(moving)
        return register_affine(moving, fixed, fixed_mask, start=start)

    def interrupted(*_, **__):
        raise TrainingError("stopped here")

    monkeypatch.setattr("medgen.transforms.kept_registrations.register_affine", counted)
    monkeypatch.setattr("medgen.pipelines.anomaly.stages.train.fit", interrupted)
    for attempt in ((), ("--resume",)):
        _, _, error = medgen(monkeypatch, capsys, *command, "-q", *attempt)
        assert "stopped here" in error
        # Ten development scans twice for the template, then all fourteen.
        assert len(made) == 34, attempt
        assert len(list((tmp_path / "run" / "checkpoints" / "registrations").iterdir())) == 34


def test_the_report_is_one_file_with_the_tables_and_the_limits(finished):
    text = (finished / "report.html").read_text(encoding="utf-8")
    for words in ("not for clinical use", "Finding the voxels", "fused", "zscore", "realised FPR", "exchangeable"):
        assert words in text
    assert "data:image/png;base64," in text
    assert 'src="http' not in text


def test_new_scans_are_scored_and_bad_ones_are_listed(finished, cohort, tmp_path, monkeypatch, capsys):
    good = sorted((cohort / "images").iterdir())[0]
    scan = io.read(good)
    data = np.array(scan.data, dtype=np.float32)
    center = np.rint(scan.grid.to_voxel(scan.grid.center)).astype(int)
    i, j, k = center + np.array([3, 2, 2])
    # Below one voxel in a hundred: more would move the percentiles that the scan is scaled by.
    data[0, i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 1] += 2 * data.max()
    changed = tmp_path / "changed.nii.gz"
    io.write(Volume(data, scan.grid), changed)
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(changed.read_bytes()[:500])
    out = tmp_path / "scored"
    model = finished / "model"
    code, printed, _ = medgen(
        monkeypatch, capsys, "anomaly", "score", good, changed, bad, "--model", model, "--out", out, "-q"
    )
    assert code == 1
    assert "not scored" in printed
    scored = {row["case"]: row for row in rows(out / "scans.csv")}
    assert set(scored) == {io.stem(good), "changed"}
    assert float(scored["changed"]["max"]) > float(scored[io.stem(good)]["max"])
    failures = rows(out / "failures.csv")
    assert [row["case"] for row in failures] == ["bad"]
    code, _, message = medgen(
        monkeypatch, capsys, "anomaly", "score", bad, "--model", model, "--out", tmp_path / "none", "-q"
    )
    assert code == 2
    assert str(bad) in message
    assert not (tmp_path / "none").exists()
    heatmap = io.read(out / "heatmaps" / "changed.nii.gz", allow_nan=True)
    hottest = np.unravel_index(np.nanargmax(heatmap.data[0]), heatmap.grid.shape)
    assert np.abs(np.array(hottest) - (i, j, k)).max() <= 4
    pages = {path.stem: html.unescape(path.read_text(encoding="utf-8")) for path in sorted((out / "cases").iterdir())}
    assert set(pages) == set(scored)
    assert "changed: comparison" in pages["changed"]
    pseudo = io.read(out / "pseudo-healthy" / "changed.nii.gz", allow_nan=True)
    difference = io.read(out / "difference" / "changed.nii.gz", allow_nan=True)
    np.testing.assert_allclose(difference.data, data - pseudo.data, atol=1e-3)
    assert np.isnan(pseudo.data[0, 0, 0, 0])
    # The models have seen no such spot, so it is missing in what they rebuild.
    assert difference.data[0, i, j, k] > 0.5 * (data.max() - scan.data.max())
    for row in rows(out / "findings.csv"):
        assert "of the field" in row["region"]
        assert row["region"] in pages[row["case"]]
        assert row["channels"].startswith(row["channel"])
    assert any(row["case"] == "changed" for row in rows(out / "findings.csv"))
    assert re.search(r"changed: p \(max\) = [\d.]+.*, p \(top\) = [\d.]+.*, \d+ findings?[:,]", printed)
    assert "Findings are listed up to 0.5 expected false findings per healthy scan" in printed
    assert "changed: findings" in pages["changed"]


def test_another_level_lists_more_or_fewer_of_the_same_candidates(finished, cohort, tmp_path, monkeypatch, capsys):
    scan = io.read(sorted((cohort / "images").iterdir())[0])
    data = np.array(scan.data, dtype=np.float32)
    i, j, k = np.rint(scan.grid.to_voxel(scan.grid.center)).astype(int) + np.array([3, 2, 2])
    data[0, i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 1] += 2 * data.max()
    io.write(Volume(data, scan.grid), tmp_path / "changed.nii.gz")
    command = ["anomaly", "score", tmp_path / "changed.nii.gz", "--model", finished / "model", "-q", "--false-findings"]
    peaks = {}
    for level in ("0.1", "3"):
        code, printed, _ = medgen(monkeypatch, capsys, *command, level, "--out", tmp_path / level)
        assert code == 0
        assert f"Findings are listed up to {level} expected false findings" in printed
        listed = rows(tmp_path / level / "findings.csv")
        peaks[level] = [row["peak"] for row in listed]
        assert all(float(row["expected_false"]) <= float(level) + 1e-9 for row in listed)
    # Ten subjects: one finding at most at 1/11, the hottest of those that are listed at 3.
    assert peaks["0.1"] == peaks["3"][:1]
    assert len(peaks["3"]) >= len(peaks["0.1"]) == 1
    code, _, error = medgen(monkeypatch, capsys, *command, "0.05", "--out", tmp_path / "none")
    assert code == 2
    assert "0.05 expected false findings per healthy scan need at least 19 healthy scans (subjects)" in error


def test_scans_with_nan_and_a_lost_scale_are_scored_where_one_says_so(finished, cohort, tmp_path, monkeypatch, capsys):
    good = sorted((cohort / "images").iterdir())[0]
    scan = io.read(good)
    data = np.array(scan.data[0], dtype=np.float32)
    data[0, 0, 0] = np.nan
    image = nib.Nifti1Image(data, scan.grid.affine)
    image.header.set_sform(scan.grid.affine, 1)
    nib.save(image, tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[112:120] = bytes(8)  # scl_slope and scl_inter
    (tmp_path / "scan.nii").write_bytes(bytes(content))
    command = ["anomaly", "score", tmp_path / "scan.nii", "--model", finished / "model", "-q"]
    for number, flags in enumerate(([], ["--fill", "0"], ["--unscaled"])):
        code, _, message = medgen(monkeypatch, capsys, *command, *flags, "--out", tmp_path / str(number))
        assert code == 2
        assert str(tmp_path / "scan.nii") in message
    code, _, _ = medgen(monkeypatch, capsys, *command, "--fill", "0", "--unscaled", "--out", tmp_path / "out")
    assert code == 0
    assert io.read(tmp_path / "out" / "heatmaps" / "scan.nii.gz", allow_nan=True).grid.shape == scan.grid.shape
    code, _, message = medgen(monkeypatch, capsys, *command, "--fill", "nan", "--out", tmp_path / "no")
    assert code == 2
    assert "fill" in message


def test_a_model_abstains_from_what_is_no_such_scan_and_scores_the_rest(
    finished, cohort, tmp_path, monkeypatch, capsys
):
    good = sorted((cohort / "images").iterdir())[0]
    scan = io.read(good)
    noise, half = np.random.default_rng(0).normal(100, 20, scan.data.shape), np.array(scan.data, dtype=np.float32)
    half[..., half.shape[-1] // 2 :] = 0
    for name, data in (("noise", noise), ("half", half)):
        io.write(Volume(data.astype(np.float32), scan.grid), tmp_path / f"{name}.nii.gz")
    out, model = tmp_path / "scored", finished / "model"
    files = [good, tmp_path / "noise.nii.gz", tmp_path / "half.nii.gz"]
    # The cohort's sex is a covariate of the model; of these scans it is not known.
    command = ("anomaly", "score", "--unadjusted", "-q", "--model", model, "--out")
    code, printed, _ = medgen(monkeypatch, capsys, *command, out, *files)
    assert code == 1
    assert "noise: abstained: " in printed
    assert "half: abstained: share of the healthy scans' anatomy" in printed
    assert [row["case"] for row in rows(out / "scans.csv")] == [io.stem(good)]
    assert [(row["case"], row["stage"]) for row in rows(out / "failures.csv")] == [("noise", "gate"), ("half", "gate")]
    assert "Abstained" in (out / "report.html").read_text(encoding="utf-8")
    alone = tmp_path / "alone"
    code, _, _ = medgen(monkeypatch, capsys, *command, alone, files[1])
    assert code == 1
    # Empty tables would say that nothing was found.
    assert [row["stage"] for row in rows(alone / "failures.csv")] == ["gate"]
    assert not [name for name in ("scans.csv", "findings.csv", "findings.json") if (alone / name).exists()]
    # On request it is scored all the same, and the report says what it is.
    forced = tmp_path / "forced"
    code, printed, _ = medgen(monkeypatch, capsys, *command, forced, files[2], "--ungated")
    assert code == 0
    assert "half: outside the cohort, scored all the same: share of the healthy scans' anatomy" in printed
    row = rows(forced / "scans.csv")[0]
    assert (row["case"], row["p_max"], row["findings"]) == ("half", "", "0")
    assert row["doubt"]
    assert float(row["max"]) > 0
    # Hot places are there to look at, and nothing is claimed of them.
    for hot in rows(forced / "findings.csv"):
        assert hot["doubt"] == row["doubt"]
        assert hot["peak"]
        assert [hot[key] for key in ("p_max", "expected_false", "family_wise")] == [""] * 3
    page = (forced / "report.html").read_text(encoding="utf-8")
    assert "Outside the cohort" in page
    assert "so it has no p-value and no findings" in page.lower()
    assert "p (max) =" not in page
    told = json.loads((forced / "metrics.json").read_text())
    assert told["target_fpr"] == 0.2
    half = told["scans"]["half"]
    assert (half["p"], half["findings"]) == ({}, 0)
    rank = half["ranks"]["max"]
    said = f"more unusual than {rank['healthy_below']} of {rank['healthy']} healthy scans (max)"
    assert said in printed
    assert said in page


def test_scoring_never_removes_the_model_that_it_uses(finished, cohort, monkeypatch, capsys):
    scan = sorted((cohort / "images").iterdir())[0]
    command = ("anomaly", "score", scan, "--model", finished / "model", "--out", finished, "-q")
    code, _, message = medgen(monkeypatch, capsys, *command, "--overwrite")
    assert code == 2
    assert "the run reads it, and --overwrite would remove it" in message
    assert (finished / "model" / "artifact.json").is_file()


def test_a_refused_scoring_does_not_block_the_next(finished, cohort, tmp_path, monkeypatch, capsys):
    good, bad = sorted((cohort / "images").iterdir())[0], tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:300])
    command = ("--model", finished / "model", "--out", tmp_path / "scored", "-q")
    assert medgen(monkeypatch, capsys, "anomaly", "score", bad, *command)[0] == 2
    assert not (tmp_path / "scored").exists()
    code, printed, _ = medgen(monkeypatch, capsys, "anomaly", "score", good, *command)
    assert code == 0
    assert "heatmaps:" in printed


def test_a_run_shows_its_gate_and_lists_suspects(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["gate"]["abstained"]["estimate"] == 0
    assert metrics["gate"]["scans_passed"] == metrics["healthy"]
    limit = metrics["gate"]["limits"]["coverage"]
    assert limit["low"] < limit["healthy_min"] <= limit["healthy_max"]
    text = (finished / "report.html").read_text(encoding="utf-8")
    for words in ("Abstaining", "lowest allowed", "Contaminated training scans"):
        assert words in text
    # Ten subjects at 8 mm are too few and too coarse to tell artefacts from lesions, and the report says so.
    assert metrics["artefacts"] is None
    assert "Artefacts are not named: limits of 10 healthy subjects say too little" in text
    assert not (finished / "artefacts.csv").exists()
    header = (finished / "contamination.csv").read_text().splitlines()[0]
    assert header == "case,subject,scan_score,score,robust_z,peak_r,peak_a,peak_s"


def test_false_positive_rates_are_told_by_group(finished):
    table = rows(finished / "groups.csv")
    assert {(row["column"], row["group"]) for row in table} == {("sex", "female"), ("sex", "male")}
    subjects = {source: sum(int(row["subjects"]) for row in table if row["source"] == source)
                for source in ("test", "development, out of fold")}  # fmt: skip
    assert subjects == {"test": 4, "development, out of fold": 10}
    # The two highest of ten have p at or below 0.2, by construction.
    flagged = [int(row["flagged"]) for row in table if row["source"] != "test"]
    assert sum(flagged) == 2
    metrics = json.loads((finished / "metrics.json").read_text())
    assert [row["fpr"]["estimate"] for row in metrics["groups"]] == pytest.approx([float(row["fpr"]) for row in table])
    assert "Groups" in (finished / "report.html").read_text(encoding="utf-8")


def test_the_report_says_nothing_of_groups_without_such_columns():
    from medgen.report.anomaly.cohort import groups_section
    from medgen.report.html import Report

    report = Report("t")
    groups_section(report, [], 0.05)
    assert "Groups" not in report.html()


def test_a_finished_run_is_not_overwritten_by_accident(finished, cohort, monkeypatch, capsys):
    code, _, error = medgen(monkeypatch, capsys, "anomaly", "run", CONFIG, f"data={cohort}", f"out={finished}", "-q")
    assert code == 2
    assert "--overwrite" in error


def test_dry_run_says_what_it_would_cost_and_writes_nothing(cohort, tmp_path, monkeypatch, capsys):
    out = tmp_path / "never"
    code, printed, _ = medgen(
        monkeypatch,
        capsys,
        *("anomaly", "run", CONFIG, f"data={cohort}", f"out={out}", "--dry-run"),
        *("anomaly.scores=[selfsup_network]", "anomaly.network_steps=10000"),
    )
    assert code == 0
    assert "2 trainings of " in printed
    # Ten thousand steps take minutes on whatever this runs on.
    assert re.search(r"^selfsup_network: 2 trainings of its own, about \d+ min$", printed, re.MULTILINE)
    assert not out.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("anomaly.calibration.target_fpr=0.05", "5 % needs at least 19 healthy scans"),
        ("anomaly.smoothingg=1", "did you mean 'smoothing'"),
        ("anomaly.network_steps=0", "network_steps: Input should be greater than or equal to 1"),
        ("model.family=vea", "did you mean 'vae'?"),
        ("evaluation.kinds=[hyperintens]", "did you mean 'hyperintense'"),
        ("anomaly.fusion.channels=[nope]", "anomaly.fusion.channels: 'nope' is no score; choose some of"),
        (
            "anomaly.normative.covariates=[typo]",
            "cohort: no development scan has 'typo'; expected in anomaly.normative",
        ),
    ],
)
def test_user_errors_are_one_line_before_anything_is_trained(override, message, cohort, tmp_path, monkeypatch, capsys):
    out = tmp_path / "never"
    for plan in ("-q", "--dry-run"):
        code, _, error = medgen(
            monkeypatch, capsys, "anomaly", "run", CONFIG, f"data={cohort}", f"out={out}", override, plan
        )
        assert code == 2
        assert message in error
        assert len(error.strip().splitlines()) == 1
        assert not out.exists()


def test_test_scans_of_people_unlike_all_others_are_refused_before_anything_is_trained(cohort):
    config = load_config(AnomalyRunConfig, CONFIG, [f"data={cohort}", "anomaly.normative.covariates=[age]"])
    cases = load_cohort(cohort).cases
    manifest = Manifest("cohort", cohort, tuple(replace(case, attributes={"age": "50"}) for case in cases))
    held_out = {case.id for case in split(config, manifest)["test"]}

    def of_ages(others):
        older = [
            replace(case, attributes={"age": others if case.id in held_out else str(30 + number)})
            for number, case in enumerate(cases)
        ]
        return split(config, Manifest("cohort", cohort, tuple(older)))

    assert len(of_ages("40")["test"]) == len(held_out)
    with pytest.raises(DataError, match=r"cohort: every one of the 4 test scans is of a person unlike .*found age 95"):
        of_ages("95")


def test_scoring_with_a_damaged_model_is_refused(finished, cohort, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    shutil.copytree(finished / "model", model)
    weights = model / "weights-0.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    scan = sorted((cohort / "images").iterdir())[0]
    code, _, error = medgen(
        monkeypatch, capsys, "anomaly", "score", scan, "--model", model, "--out", tmp_path / "out", "-q"
    )
    assert code == 2
    assert "altered" in error


def test_a_scan_without_room_for_an_implant_is_named_before_anything_is_trained(monkeypatch, capsys, cohort, tmp_path):
    small = tmp_path / "small"
    shutil.copytree(cohort, small, ignore=shutil.ignore_patterns("manifest.*"))
    path = sorted((small / "images").iterdir())[0]
    image = io.read(path)
    data = np.zeros_like(image.data)
    middle = tuple(size // 2 for size in data.shape[1:])
    data[(0, *(slice(m - 1, m + 1) for m in middle))] = image.data.max() * (1 + np.arange(8).reshape(2, 2, 2) / 10)
    io.write(image.with_data(data), path)
    out = tmp_path / "run"
    code, _, said = medgen(monkeypatch, capsys, "anomaly", "run", CONFIG, f"data={small}", f"out={out}", "-q")
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert path.name.removesuffix(".nii.gz") in last
    assert "ml of a patient; expected at least" in last
    assert "radius_mm" in last
    assert not (out / "checkpoints" / "fold-0").exists()


def test_the_store_is_told_what_the_report_says_first(finished):
    run, numbers = Tracked.of(finished), json.loads((finished / "metrics.json").read_text())
    assert run.undeclared(pipeline()) == []
    voxel, own = next(row["ap"] for row in numbers["voxel"] if row["name"] == "fused"), run.numbers
    assert [own[f"test.voxel_ap{end}"] for end in ("", ".low", ".high")] == [
        voxel[name] for name in ("estimate", "low", "high")
    ]
    assert own["calibration.subjects"] == numbers["calibration_subjects"]
    assert {"seconds.train", "seconds.evaluate"} <= own.keys()
    said = run.tags["mlflow.note.content"]
    assert said.startswith("> At ")
    text = html.unescape(re.sub(r"<[^>]*>", "", (finished / "report.html").read_text(encoding="utf-8")))
    words = re.sub(r"[*`>]", "", said)
    assert [line for line in words.splitlines() if line.strip() and line.strip() not in text] == []


def test_the_store_is_told_which_scans_were_for_what(finished, cohort):
    run, manifest = Tracked.of(finished), load_cohort(cohort).with_hashes()
    parts = {entry["context"]: entry for entry in run.of_kind("dataset")}
    assert parts.keys() == {"training", "calibration", "test"}
    test = [row["case"] for row in rows(finished / "splits.csv") if row["part"] == "test"]
    assert parts["test"]["sha256"] == manifest.subset(test).digest()
    assert parts["test"]["facts"] == {"scans": len(test), "subjects": len(test)}
    assert parts["training"]["facts"]["scans"] == 14 - len(test)
    assert parts["training"]["sha256"] == parts["calibration"]["sha256"] != parts["test"]["sha256"]


def test_the_store_is_told_of_the_detector_the_tables_and_the_pictures(finished):
    run = Tracked.of(finished)
    (model,) = run.of_kind("model")
    artifact = json.loads((finished / "model" / "artifact.json").read_text())
    assert (model["name"], model["path"]) == ("medgen-anomaly-simulated", "model")
    assert model["sha256"] == artifact["sha256"] == run.tags["medgen.model.sha256"]
    assert {entry["name"] for entry in run.of_kind("table")} >= {"tables/scans.json", "tables/splits.json"}
    heat = [entry["step"] for entry in run.of_kind("image") if entry["key"] == "Heatmaps"]
    assert heat == list(range(len(heat)))
    assert len(heat) > 2
    # Files first: a version must not be there before what it is made of.
    order = [entry["kind"] for entry in run.entries if entry["run"] == run.top]
    assert order.index("model") > max(place for place, kind in enumerate(order) if kind == "file")


def test_registered_models_are_compared_promoted_and_packaged(finished, cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, out, _ = medgen(monkeypatch, capsys, "model", "promote", finished, "--json")
    assert (code, json.loads(out)["champion"]) == (0, "medgen-anomaly-simulated/1")
    store = finished.parent / "mlflow.db"
    code, out, _ = medgen(
        monkeypatch, capsys, "model", "compare", "medgen-anomaly-simulated@champion", finished, "--store", store
    )
    assert code == 0
    assert "test.voxel_ap: " in out
    assert "(not decided)" in out
    code, out, _ = medgen(
        monkeypatch,
        capsys,
        *("model", "package", finished, "--out", tmp_path / "served"),
        *("--scans", cohort / "images", "--heatmaps", tmp_path / "heat"),
    )
    assert code == 0
    assert (tmp_path / "served" / "MLmodel").is_file()
    code, _, said = medgen(monkeypatch, capsys, "model", "compare", "brains", finished)
    assert code == 2
    assert "NAME/NUMBER" in said
