"""A recipe is tried alone: prepared scans, pictures, a table; a bad scan does not stop the others."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from medgen import io
from medgen.config import parse_config
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume
from pipelines.cli.app import app


@pytest.fixture(scope="module")
def brains() -> list[Volume]:
    drawer = SubjectDrawer(cohort_grid(7.0))
    return [drawer.draw(5, index).image for index in range(2)]


@pytest.fixture
def cohort(tmp_path, brains):
    folder = tmp_path / "cohort"
    folder.mkdir()
    for number, scan in enumerate(brains):
        io.write(scan, folder / f"s{number}.nii.gz")
    return folder


def table(out) -> dict[str, dict[str, str]]:
    with (out / "prepared.csv").open() as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_a_bad_scan_is_said_and_the_others_are_prepared(cohort, brains, tmp_path) -> None:
    (cohort / "s2.nii.gz").write_bytes(b"no scan")
    flat = brains[0].with_data(np.ones_like(brains[0].data))
    io.write(flat, cohort / "s3.nii.gz")
    out = tmp_path / "out"
    config = tmp_path / "run.yaml"
    config.write_text("data: elsewhere\npreprocess: {spacing: [8, 8, 8], align: center}\n")
    result = CliRunner().invoke(
        app, ["data", "prepare", str(cohort), str(out), "--config", str(config), "brain=extract", "clip=[0,2]"]
    )
    assert result.exit_code == 1, result.output
    assert "prepared: 2 of 4 scans" in result.output
    rows = table(out)
    assert list(rows) == ["s0", "s1", "s2", "s3"]
    for name, scan in zip(("s0", "s1"), brains, strict=True):
        assert rows[name]["refused"] == ""
        assert "stripped already" in rows[name]["steps"]
        assert "Centred on its f" in rows[name]["steps"]
        ends = f"Scaled by its percentiles: {rows[name]['black']} to {rows[name]['white']} become 0 to 1."
        assert rows[name]["steps"].endswith(f"voxels of 8 x 8 x 8 mm. {ends}")
        assert float(rows[name]["foreground_ml"]) == pytest.approx((scan.data > 0).sum() * 0.343, rel=0.05)
        image = io.read(out / "scans" / f"{name}.nii.gz")
        assert image.grid.spacing == pytest.approx((8, 8, 8))
        with Image.open(out / "mosaics" / f"{name}.png") as picture:
            assert picture.height > 400
    for name in ("s2", "s3"):
        assert rows[name]["refused"]
        assert rows[name]["steps"] == ""
        assert not (out / "scans" / f"{name}.nii.gz").exists()
        assert f"{name}: refused" in result.output
    recipe = parse_config(Preprocess, yaml.safe_load((out / "recipe.yaml").read_text()), source="recipe.yaml")
    assert (recipe.brain, recipe.modality, recipe.spacing) == ("extract", "MR", (8, 8, 8))
    np.testing.assert_allclose(io.read(out / "scans" / "s0.nii.gz").data, recipe.apply(brains[0]).image, atol=1e-6)


def test_nothing_is_written_where_no_scan_can_be_prepared(tmp_path) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    for number in range(2):
        io.write(Volume(np.ones((1, 8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4))), folder / f"s{number}.nii.gz")
    grid = ["shape=[8,8,8]", "spacing=[1,1,1]", "align=center", "modality=MR", "brain=keep"]
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["data", "prepare", str(folder), str(out), *grid])
    assert result.exit_code != 0
    assert "none of 2 scans could be prepared; the first reason: s0" in str(result.exception)
    assert not out.exists()


def test_a_recipe_that_cannot_be_is_refused_before_a_scan_is_read(cohort, tmp_path) -> None:
    result = CliRunner().invoke(
        app, ["data", "prepare", str(cohort), str(tmp_path / "out"), "modality=CT", "percentiles=[2,98]"]
    )
    assert "CT is never scaled by percentiles" in str(result.exception)


def test_registered_scans_are_written_where_the_grid_has_right_angles(cohort, brains, tmp_path) -> None:
    """Registered to a sheared copy of itself, the model grid in the scan's own world has no right angles."""
    shear = np.eye(4)
    shear[0, 1] = 0.06
    sheared = brains[0].resample(brains[0].grid.moved(shear))
    io.write(brains[0].with_data(sheared.data), cohort / "s3.nii.gz")
    out = tmp_path / "out"
    options = ["shape=[24,24,24]", "spacing=[8,8,8]", "align=affine", "modality=MR"]
    result = CliRunner().invoke(app, ["data", "prepare", str(cohort), str(out), *options])
    assert result.exit_code == 0, result.output
    grids = [io.read(out / "scans" / f"s{n}.nii.gz").grid for n in (0, 1, 3)]
    assert all(grid.same_as(grids[0]) for grid in grids)
    assert grids[0].spacing == pytest.approx((8, 8, 8))
    for row in table(out).values():
        assert (
            f"Registered to the mean of the cohort (affine): correlation {float(row['similarity']):.2f}" in row["steps"]
        )
