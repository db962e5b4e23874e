"""Landmarks against another implementation, on scans whose scanners bent their intensities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d

from medgen.config import parse_config
from medgen.data.cases import Case, Manifest
from medgen.errors import ConfigError, DataError
from medgen.io import write
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.intensity_landmarks import PERCENTILES, fit_landmarks, standardised
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

GRID = Grid((24, 24, 24), np.diag([2.0, 2, 2, 1]))
INSIDE = np.linalg.norm(np.indices(GRID.shape) - 11.5, axis=0) < 10


def scan(seed: int, power: float = 1.0, gain: float = 100.0) -> Volume:
    """A ball of three tissues, as a scanner with another curve and gain shows it."""
    rng = np.random.default_rng(seed)
    tissue = rng.choice([0.3, 0.7, 1.0], GRID.shape, p=[0.2, 0.4, 0.4]) + 0.03 * rng.standard_normal(GRID.shape)
    image = np.where(INSIDE, gain * np.maximum(tissue, 0.05) ** power, 0)
    return Volume(image[None].astype(np.float32), GRID)


SCANS = [scan(0), scan(1, 1.4, 900.0), scan(2, 0.7, 30.0)]


def sorted_percentiles(values) -> np.ndarray:
    """Linear between order statistics, from their definition."""
    order = np.sort(values.astype(np.float64))
    place = np.array(PERCENTILES) / 100 * (order.size - 1)
    low = np.floor(place).astype(int)
    return order[low] + (place - low) * (order[np.minimum(low + 1, order.size - 1)] - order[low])


def test_landmarks_and_map_are_those_of_another_implementation() -> None:
    own = [sorted_percentiles(item.data[0][INSIDE]) for item in SCANS]
    expected = np.mean([interp1d([row[0], row[-1]], [10, 100])(row) for row in own], axis=0)
    landmarks = fit_landmarks(SCANS)
    np.testing.assert_allclose(landmarks, expected, rtol=1e-4)
    for item, row in zip(SCANS, own, strict=True):
        other = interp1d([0, *row], [0, *expected], fill_value="extrapolate")(item.data)
        np.testing.assert_allclose(standardised(item, landmarks).data, other, rtol=2e-3, atol=1e-2)


def test_scans_of_all_scanners_look_alike_and_order_is_kept() -> None:
    landmarks = fit_landmarks(SCANS)
    done = [standardised(item, landmarks) for item in SCANS]
    for item, before in zip(done, SCANS, strict=True):
        assert not item.data[0][~INSIDE].any()
        order = np.argsort(before.data[0][INSIDE], kind="stable")
        assert (np.diff(item.data[0][INSIDE][order]) >= 0).all()
    medians = [np.median(item.data[0][INSIDE]) for item in done]
    assert np.ptp(medians) < 1
    linear = [(np.median(i.data[0][INSIDE]) - np.percentile(i.data[0][INSIDE], 1)) / np.ptp(np.percentile(i.data[0][INSIDE], (1, 99))) for i in SCANS]  # fmt: skip  # noqa: E501
    assert np.ptp(linear) > 0.05


def test_coarse_integers_stay_monotone() -> None:
    coarse = SCANS[0].with_data(np.round(SCANS[0].data / 30).astype(np.int16))
    done = standardised(coarse, fit_landmarks([coarse])).data[0]
    levels = [float(np.median(done[coarse.data[0] == level])) for level in np.unique(coarse.data[0][INSIDE])]
    assert all(np.diff(levels) > 0)


def test_landmarks_are_of_the_training_scans_and_travel_with_the_recipe(tmp_path) -> None:
    cases = []
    for number, item in enumerate(SCANS):
        write(item, tmp_path / f"s{number}.nii.gz")
        cases.append(Case(f"s{number}", f"s{number}", (tmp_path / f"s{number}.nii.gz",)))
    wanted = {"shape": [24, 24, 24], "spacing": [2, 2, 2], "align": "center", "intensity": "nyul"}
    recipe = fit_preprocess(Manifest("train", tmp_path, tuple(cases)), wanted, 64)
    assert recipe.landmarks == fit_landmarks(SCANS)
    assert parse_config(Preprocess, recipe.model_dump(mode="json"), source="artifact") == recipe
    new = scan(9, 1.2, 5000.0)
    prepared = recipe.apply(new)
    assert "landmarks of their histogram" in prepared.steps[0]
    np.testing.assert_array_equal(prepared.cleaned.data, standardised(new, recipe.landmarks).data)
    assert prepared.scale[0][0] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [*range(11, 0, -1)], [0, *range(10)]])
def test_what_is_no_scale_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="each above the one before"):
        parse_config(Preprocess, {"shape": [8, 8, 8], "spacing": [1, 1, 1], "landmarks": wrong}, source="test")


def test_nyul_without_landmarks_or_with_negative_values_is_refused() -> None:
    recipe = Preprocess(shape=(8, 8, 8), spacing=(4, 4, 4), intensity="nyul")
    with pytest.raises(ConfigError, match="needs landmarks"):
        recipe.apply(SCANS[0])
    with pytest.raises(DataError, match="intensity=percentiles"):
        fit_landmarks([SCANS[0].with_data(np.where(INSIDE, SCANS[0].data - 60, 0).astype(np.float32))])
