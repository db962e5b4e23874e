"""CT has fixed windows and no percentiles, PET starts at zero, and MR is scaled by each scan."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from medgen import io
from medgen.config import parse_config
from medgen.data.cases import Case, Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError, DataError
from medgen.pipelines.train_scans import recipe_of
from medgen.pipelines.train_settings import TrainRunConfig
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.modality import WINDOWS, window_words
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

GRID = {"shape": [16, 16, 16], "spacing": [2, 2, 2], "align": "center"}


def ball(seed: int, inside: float, air: float, spread: float, *, hot: float = 0.0) -> Volume:
    """A ball of 24 mm radius in air, of one tissue; for CT with fat around it."""
    rng = np.random.default_rng(seed)
    radius = np.linalg.norm(np.indices((32, 32, 32)) - 15.5, axis=0) * 2
    image = np.where(radius < 24, inside + spread * rng.standard_normal(radius.shape), air)
    if air < 0:
        image[(radius >= 20) & (radius < 24)] = -100
    image[radius < 8] += hot
    return Volume(image[None].astype(np.float32), Grid((32, 32, 32), np.diag([2.0, 2, 2, 1])))


def cohort(folder, scans: list[Volume]) -> Manifest:
    cases = []
    for number, scan in enumerate(scans):
        path = folder / f"{number}.nii.gz"
        io.write(scan, path)
        cases.append(Case(f"c{number}", f"c{number}", (path,)))
    return Manifest("cohort", folder, tuple(cases))


def tomograms(folder) -> Manifest:
    return cohort(folder, [ball(seed, 30 + 10 * seed, -1000, 8) for seed in range(3)])


@pytest.mark.parametrize("name", [*WINDOWS, "soft_tissue", "Brain"])
def test_windows_have_names(name) -> None:
    recipe = parse_config(Preprocess, {**GRID, "modality": "CT", "window": name}, source="test")
    assert recipe.window == WINDOWS[name.lower().replace("_", " ")]
    assert name.lower().replace("_", " ") in window_words(recipe.window)
    # What travels in the artifact is read back the same.
    assert parse_config(Preprocess, recipe.model_dump(mode="json"), source="test") == recipe


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"modality": "CT", "window": "liver"}, "one of brain, soft tissue, lung, bone"),
        ({"modality": "CT", "percentiles": [2, 98]}, "CT is never scaled by percentiles.*window"),
        ({"modality": "CT"}, "CT is scaled by a window, the same for all scans; set window"),
        ({"modality": "PET", "window": [0, 10], "percentiles": [2, 98]}, "PET is never scaled by percentiles"),
        (
            {"modality": "CT", "window": "brain", "brain": "extract"},
            "is for MR, and the modality is CT; set brain=keep",
        ),
        ({"modality": "CT", "window": "brain", "bias_field": "n4"}, "set bias_field=none"),
        ({"modality": "CT", "window": "brain", "intensity": "nyul"}, "set intensity=percentiles"),
        ({"modality": "US"}, "modality"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, message) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(Preprocess, {**GRID, **keys}, source="test")


def test_a_bleed_is_as_bright_in_every_tomogram(tmp_path, caplog) -> None:
    manifest = tomograms(tmp_path)
    with caplog.at_level(logging.INFO):
        recipe = fit_preprocess(manifest, {**GRID, "modality": "CT", "window": "brain"}, 64)
    for case, tissue in zip(manifest, (30, 40, 50), strict=True):
        prepared = recipe.apply(case.read_image())
        assert np.median(prepared.image[0, 6:10, 6:10, 6:10]) == pytest.approx(tissue / 80, abs=0.02)
    # Also where every key of the grid is given, no percentile of a scan is used.
    chosen = fit_preprocess(manifest, GRID, 64)
    assert chosen.modality == "CT"
    assert chosen.window is not None
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert fit_preprocess(manifest, {**GRID, "modality": "CT"}, 64).window == WINDOWS["soft tissue"]
    assert "window -160 to 240 HU (soft tissue)" in caplog.text


def test_percentiles_of_a_tomogram_are_refused_where_it_was_recognised(tmp_path) -> None:
    with pytest.raises(ConfigError, match="CT is never scaled by percentiles"):
        fit_preprocess(tomograms(tmp_path), {**GRID, "percentiles": [2, 98]}, 64)


def test_uptake_starts_at_zero_and_has_one_scale(tmp_path) -> None:
    manifest = cohort(tmp_path, [ball(seed, 2, 0, 0.2, hot=8 * seed) for seed in range(3)])
    recipe = fit_preprocess(manifest, {**GRID, "modality": "PET"}, 64)
    low, high = recipe.window
    assert low == 0
    assert 8 < high < 12
    assert {recipe.apply(case.read_image()).scale for case in manifest} == {((0, high),)}


def test_magnetic_resonance_is_scaled_by_each_scan_and_refuses_tomograms(tmp_path) -> None:
    manifest = cohort(tmp_path, [ball(seed, 300 * (seed + 1), 0, 40) for seed in range(2)])
    recipe = fit_preprocess(manifest, GRID, 64)
    assert (recipe.modality, recipe.window, recipe.brain) == ("MR", None, "keep")
    first, second = (recipe.apply(case.read_image()).scale[0] for case in manifest)
    assert second[0] > first[0] + 200
    with pytest.raises(DataError, match="Hounsfield units"):
        recipe.apply(ball(0, 40, -1000, 8))


def test_cohorts_of_both_are_refused_and_scans_of_both_have_no_modality(tmp_path) -> None:
    mixed = cohort(tmp_path, [ball(0, 300, 0, 40), ball(1, 40, -1000, 8), ball(2, 300, 0, 40)])
    said = (
        r"1\.nii\.gz: Hounsfield units, as CT has; of 3 scans looked at 1 look like CT and 2 do not; expected one mod"
    )
    with pytest.raises(DataError, match=said):
        fit_preprocess(mixed, GRID, 64)
    # Whoever says what they are is believed.
    assert fit_preprocess(mixed, {**GRID, "modality": "MR"}, 64).modality == "MR"
    both = np.concatenate([ball(0, 300, 0, 40).data, ball(1, 40, -1000, 8).data])
    case = Case("c", "c", (tmp_path / "both.nii.gz",), attributes={"channels": "2"})
    io.write(ball(0, 300, 0, 40).with_data(both), tmp_path / "both.nii.gz")
    assert fit_preprocess(Manifest("cohort", tmp_path, (case,)), GRID, 64).modality == "auto"


def test_windows_by_name_are_for_hounsfield_units(tmp_path) -> None:
    manifest = cohort(tmp_path, [ball(seed, 300, 0, 40) for seed in range(2)])
    with pytest.raises(ConfigError, match="window: lung is in Hounsfield units, which CT has, and the modality is MR"):
        fit_preprocess(manifest, {**GRID, "window": "lung"}, 64)
    assert fit_preprocess(manifest, {**GRID, "window": [100, 400]}, 64).window == (100, 400)


def test_a_training_scales_as_other_runs_do(tmp_path) -> None:
    tomograms(tmp_path)
    text = {"data": tmp_path, "preprocess": GRID, "model": {"family": "vae", "widths": (16, 16)}}
    config = parse_config(TrainRunConfig, text, source="test")
    chosen = recipe_of(config, load_cohort(tmp_path))
    assert (chosen.modality, chosen.window) == ("CT", fit_preprocess(load_cohort(tmp_path), GRID, 64).window)
    assert (chosen.shape, chosen.align, chosen.brain) == (config.preprocess.shape, "center", "keep")
    percentiles = {**text, "preprocess": {**GRID, "percentiles": [2, 98]}}
    with pytest.raises(ConfigError, match="CT is never scaled by percentiles"):
        recipe_of(parse_config(TrainRunConfig, percentiles, source="test"), load_cohort(tmp_path))
