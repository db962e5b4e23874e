"""Planted peaks: what is one candidate, what is two, and that nothing depends on the voxel size or on a threshold."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from medgen.anomaly.findings.candidates import LOWEST_PEAK, candidates_of
from medgen.volume import Grid, Volume


def heatmap(data, spacing=1.0):
    values = np.asarray(data, dtype=np.float32)
    return Volume(values[None], Grid(values.shape, np.diag([*np.broadcast_to(spacing, 3), 1.0])))


def profile(values, spacing=1.0):
    """A map that varies along its first axis only, as a line of voxels in a cold surrounding."""
    data = np.zeros((len(values), 5, 5))
    data[:, 2, 2] = values
    return heatmap(data, spacing)


@pytest.mark.parametrize(
    ("values", "peaks"),
    [
        # A bridge at half of the lower peak's height, and a hair below it.
        ([0, 5, 4, 2.0, 3, 4.0, 0], [1]),
        ([0, 5, 4, 1.9, 3, 4.0, 0], [1, 5]),
        # Too low to be candidates.
        ([0, 1.9, 0, 5, 0], [3]),
        # Equal heats: the first of the file.
        ([0, 4, 0, 4, 0], [1, 3]),
        ([0, 4, 4, 0], [1]),
        # Three on one plateau, the fourth apart.
        ([4, 3, 5, 3, 4.5, 0, 3], [2, 6]),
        ([0, 0, 0], []),
    ],
)
def test_a_peak_with_a_bridge_to_a_hotter_one_is_no_candidate(values, peaks):
    found = candidates_of(profile(values), separation_mm=0)
    assert sorted(found.voxels[:, 0].tolist()) == peaks
    assert (np.diff(found.heat) <= 0).all()


@pytest.mark.parametrize(("spacing", "peaks"), [(2.0, [1]), (2.6, [1, 5])])
def test_distances_are_those_of_the_scans_space(spacing, peaks):
    """Four voxels apart: 8 mm or 10.4 mm."""
    found = candidates_of(profile([0, 5, 0, 0, 0, 4, 0], (spacing, 1, 1)), separation_mm=10)
    assert found.voxels[:, 0].tolist() == peaks


def test_the_bridge_is_judged_above_the_scans_background():
    """All voxels hotter by 2: a bridge at 3.9 is 1.9 above the background, less than half of the 4 of the peak."""
    values = np.array([0, 5, 4, 1.9, 3, 4.0, 0])
    assert len(candidates_of(profile(values), 0).heat) == 2
    raised = profile(values).data + 2
    found = candidates_of(heatmap(raised[0]), 0)
    assert found.background == 2
    assert found.heat.tolist() == [7, 6]


def test_voxels_go_to_the_candidate_that_speaks_for_their_peak():
    found = candidates_of(profile([4, 3, 5, 3, 4.5, 0.5, 3, 1.5]), separation_mm=0)
    assert found.labels[:, 2, 2].tolist() == [1, 1, 1, 1, 1, 0, 2, 2]
    assert found.labels[:, 0, 0].sum() == 0


def test_a_large_lesion_with_many_peaks_is_one_candidate_and_two_lesions_are_two():
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing="ij"))
    noise = ndimage.gaussian_filter(rng.normal(size=(60, 60, 60)), 1.2)
    noise /= noise.std()
    large = np.linalg.norm(place - np.array([20, 30, 30]).reshape(3, 1, 1, 1), axis=0) <= 14
    small = np.linalg.norm(place - np.array([50, 30, 30]).reshape(3, 1, 1, 1), axis=0) <= 4
    data = 0.4 * noise + 6 * ndimage.gaussian_filter((large | small).astype(float), 1)
    peaks = (data == ndimage.maximum_filter(data, 3)) & (data > 4)
    assert peaks.sum() > 20
    found = candidates_of(heatmap(data), separation_mm=10)
    assert (found.heat > 4).sum() == 2
    inside = [found.labels[tuple(voxel)] for voxel in np.argwhere(large & (data > 4))]
    assert set(inside) == {found.labels[20, 30, 30]}


def by_brute_force(data, separation):
    """The same definition with a flood from every peak: no basins, no passes, isotropic voxels of 1 mm."""
    finite = np.isfinite(data)
    background = np.median(data[finite])
    values = np.where(finite, data, -np.inf)
    peaks = [tuple(v) for v in np.argwhere((values == ndimage.maximum_filter(values, 3)) & (values >= LOWEST_PEAK / 2))]
    chosen, spoken_for = [], {}
    for peak in sorted(peaks, key=lambda voxel: -values[voxel]):
        parts, _ = ndimage.label(values >= background + 0.5 * (values[peak] - background), np.ones((3, 3, 3)))
        bridged = values[parts == parts[peak]].max() > values[peak]
        near = any(np.linalg.norm(np.subtract(peak, other)) <= separation for other in chosen)
        spoken_for[peak] = bridged or near
        if not spoken_for[peak] and values[peak] > LOWEST_PEAK:
            chosen.append(peak)
    return chosen


def test_candidates_are_those_of_the_definition_taken_literally():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = ndimage.gaussian_filter(rng.normal(size=(22, 24, 20)), 1.3)
        data = (1.2 * data / data.std()).astype(np.float32)
        data[:3] = np.nan
        found = candidates_of(heatmap(data), separation_mm=6)
        expected = by_brute_force(data, 6)
        assert len(expected) > 5
        assert [tuple(voxel) for voxel in found.voxels.tolist()] == expected
        assert found.heat.tolist() == [data[voxel] for voxel in expected]
        # The hottest voxel of the scan is always a candidate: what the family-wise level judges is on the list.
        assert found.heat[0] == np.nanmax(data)


def test_nothing_scored_and_nothing_hot_is_no_candidate():
    for data in (np.full((4, 4, 4), np.nan), np.zeros((4, 4, 4))):
        found = candidates_of(heatmap(data), 10)
        assert found.heat.size == 0
        assert found.voxels.shape == (0, 3)
        assert not found.labels.any()


def test_a_scan_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    data = ndimage.gaussian_filter(rng.normal(size=(80, 104, 80)).astype(np.float32), 1)
    start = time.process_time()
    found = candidates_of(heatmap(data / data.std(), 2.0), 10)
    assert time.process_time() - start < 2
    assert len(found.heat) > 20
