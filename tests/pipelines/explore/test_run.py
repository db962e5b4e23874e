"""``medgen explore`` on a model of seconds: what it leaves, what it says, and what it refuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build, family_class
from medgen.pipelines.explore.run import PIPELINE, run
from medgen.preprocessing.dataset import prepare_dataset
from medgen.preprocessing.recipe import Preprocess
from tests.builders.run_outputs import undeclared

SHAPE, SPACING = (16, 24, 16), (12.0, 10.0, 12.0)
N = 8


def artifact(family, folder, data, cases, **settings):
    """A model of its starting weights, saved as a training saves it."""
    torch.set_num_threads(1)
    tiny = {**family_class(family).tiny, **settings}
    model = build({"family": family, "shape": SHAPE, **tiny}, seed=0)
    model.initialize(data)
    model.eval().finalize(data)
    recipe = Preprocess(shape=SHAPE, spacing=SPACING, center_on="foreground")
    return TrainedModel([model], recipe, meta={"cases": cases, "seed": 0}).save(folder)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A cohort with a column of ages, and models that know all but the last of its scans."""
    folder = tmp_path_factory.mktemp("scene")
    simulate(folder / "cohort", n=N, seed=0, spacing=10.0)
    table = folder / "cohort" / "manifest.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row |= {"age": str(30 + 5 * number), "sex": "FM"[number % 2], "site": "abc"[number % 3]}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest = load_cohort(table)
    recipe = Preprocess(shape=SHAPE, spacing=SPACING, center_on="foreground")
    cases = [case.id for case in manifest][:-1]
    data, _ = prepare_dataset(manifest.subset(cases), recipe, workers=1)
    artifact("joint", folder / "joint", data, cases, n_labels=3)
    artifact("maskvae", folder / "maskvae", data, cases, n_labels=3)
    artifact("dae", folder / "dae", data, cases)
    artifact("vae", folder / "elsewhere", data, ["nobody"])
    return folder, table, [case.id for case in manifest]


@pytest.fixture(scope="module")
def explored(scene, tmp_path_factory):
    folder, table, ids = scene
    out = tmp_path_factory.mktemp("out") / "explored"
    summary = run(
        folder / "joint",
        data=table,
        out=out,
        between=(ids[0], ids[-1]),
        along=("age", "sex"),
        components=1,
        steps=3,
        device="cpu",
        workers=1,
    )
    return summary, out, json.loads((out / "exploration.json").read_text())


def test_every_file_is_declared_and_there(explored):
    summary, out, _ = explored
    assert summary.exit_code == 0
    assert undeclared(out, PIPELINE) == []
    names = {"interpolation", "principal-1", "covariate-1", "covariate-2"}
    assert {path.stem for path in (out / "strips").glob("*.png")} == names
    assert {path.stem for path in (out / "animations").glob("*.gif")} == names
    with Image.open(out / "animations" / "interpolation.gif") as film:
        # Two pictures between the steps of the strip, there and back.
        assert film.n_frames == 2 * 7 - 2


def test_the_numbers_are_those_of_the_walks(explored, scene):
    _, out, found = explored
    folder, _, ids = scene
    sha256 = TrainedModel.load(folder / "joint").sha256
    assert found["model_sha256"] == sha256 == json.loads((out / "metrics.json").read_text())["model_sha256"]
    assert json.loads((out / "inputs.json").read_text())["model"]["sha256"] == sha256
    assert set(json.loads((out / "inputs.json").read_text())["inputs"]) == set(ids)
    assert list(found["training_distances"]) == ids[:-1]
    walks = {walk["name"]: walk for walk in found["walks"]}
    ends = walks["interpolation"]["steps"]
    assert [step["position"] for step in ends] == pytest.approx(np.linspace(0, 1, 7))
    assert [ends[0]["caption"], ends[-1]["caption"]] == [ids[0], ids[-1]]
    assert all(set(step["volumes_ml"]) == {"1", "2", "3"} for step in ends)
    assert sum(ends[0]["volumes_ml"].values()) > 100
    assert [step["position"] for step in walks["principal-1"]["steps"]] == pytest.approx(np.linspace(-2.5, 2.5, 7))
    # The 5th to the 95th percentile of the ages of the seven training scans.
    ages = np.percentile(30 + 5 * np.arange(N - 1), (5, 95))
    assert walks["covariate-1"]["steps"][0]["position"] == pytest.approx(ages[0])
    assert walks["covariate-1"]["steps"][-1]["position"] == pytest.approx(ages[1])
    sexes = walks["covariate-2"]["steps"]
    assert [sexes[0]["caption"], sexes[3]["caption"], sexes[-1]["caption"]] == ["F", "50 % M", "M"]


def test_the_report_and_the_console_say_what_was_found(explored):
    summary, out, found = explored
    page = (out / "report.html").read_text()
    assert page.count("data:image/gif") == 4
    assert page.count("data:image/png") >= 4
    assert "not the very files of the training" in page
    assert "7 of 7" in page
    assert any(line.startswith("Along age: ") and ", p = " in line for line in summary.lines)
    assert "further columns for --along: site, ventricle_scale" in summary.lines
    far = sum(step["far"] for step in found["walks"][0]["steps"][::3])
    assert summary.lines[0].endswith(f"{far} of 3 steps are far from the training scans")


def test_a_model_of_labels_alone_is_drawn(scene, tmp_path):
    folder, table, _ = scene
    run(folder / "maskvae", data=table, out=tmp_path / "out", components=0, steps=3, device="cpu", workers=1)
    (walk,) = json.loads((tmp_path / "out" / "exploration.json").read_text())["walks"]
    first, last = (sum(walk["steps"][end]["volumes_ml"].values()) for end in (0, -1))
    assert first != last
    picture = np.asarray(Image.open(tmp_path / "out" / "strips" / "interpolation.png").convert("RGB")).astype(int)
    # Labels are coloured: red and blue differ.
    assert (np.abs(picture[..., 0] - picture[..., 2]) > 60).sum() > 500


@pytest.mark.parametrize(
    ("model", "settings", "error", "message"),
    [
        ("dae", {}, ArtifactError, "a dae has no codes to walk between; expected a model of one of .*vae"),
        ("joint", {"between": ("nobody", "x")}, DataError, "no case 'nobody'; expected one such as"),
        ("joint", {"at": "nobody"}, DataError, "no case 'nobody'"),
        (
            "joint",
            {"along": ("heigth",)},
            DataError,
            "no column 'heigth' with values; it has age, sex, site, ventricle_scale",
        ),
        ("joint", {"along": ("site",)}, DataError, "3 different texts"),
        ("joint", {"steps": 1}, ConfigError, "steps"),
        ("elsewhere", {}, DataError, "holds none of the 1 cases that the model learnt from, such as 'nobody'"),
    ],
)
def test_what_cannot_be_explored_is_refused_before_anything_is_written(
    scene, tmp_path, model, settings, error, message
):
    folder, table, _ = scene
    with pytest.raises(error, match=message) as caught:
        run(folder / model, data=table, out=tmp_path / "out", device="cpu", workers=1, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_case_is_not_interpolated_with_itself(scene, tmp_path):
    folder, table, ids = scene
    with pytest.raises(ConfigError, match="expected two cases"):
        run(folder / "joint", data=table, out=tmp_path / "out", device="cpu", between=(ids[0], ids[0]))


def test_results_are_not_overwritten_unasked(explored, scene):
    _, out, _ = explored
    folder, table, _ = scene
    with pytest.raises(ConfigError, match="already holds results; pass --overwrite"):
        run(folder / "joint", data=table, out=out, device="cpu")


def test_the_command_ends_with_one_line(scene, tmp_path):
    folder, table, _ = scene
    command = [Path(sys.executable).parent / "medgen", "explore", folder / "dae", "--data", table, "--out", "out"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "has no codes to walk between" in line
