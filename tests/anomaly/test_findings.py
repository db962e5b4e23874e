from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.findings import COLUMNS, FindingsConfig, find
from medgen.volume import Grid, Volume

AFFINE = np.array([[0, -1.5, 0, 40], [2, 0, 0, -30], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def heatmap():
    data = np.full((20, 22, 18), -1.0, dtype=np.float32)
    data[:3] = np.nan
    data[5:8, 6:10, 4:6] = 5
    data[6, 7, 5] = 9
    data[14:16, 15:17, 10:12] = 7
    data[12, 3, 3] = 4.5
    return Volume(data[None], Grid(data.shape, AFFINE))


def test_regions_are_measured_in_the_scans_own_space():
    found = find(heatmap(), 4.0, np.array([1.0, 2.0, 8.0, 3.0]), FindingsConfig())
    assert [item.id for item in found] == [1, 2, 3]
    first, second, third = found
    assert first.volume_mm3 == pytest.approx(24 * 9.0)
    assert first.peak == 9
    assert first.peak_ras == pytest.approx(tuple((AFFINE @ [6, 7, 5, 1])[:3]))
    assert second.centroid_ras == pytest.approx(tuple((AFFINE @ [14.5, 15.5, 10.5, 1])[:3]))
    assert (first.p, second.p, third.p) == (1 / 5, 2 / 5, 2 / 5)
    assert tuple(first.row("case")) == COLUMNS


def test_small_regions_are_left_out_of_the_table():
    found = find(heatmap(), 4.0, np.zeros(4), FindingsConfig(min_volume_mm3=20))
    assert [item.peak for item in found] == [9, 7]


def test_diagonal_neighbours_are_one_region():
    data = np.zeros((1, 6, 6, 6), dtype=np.float32)
    data[0, 2, 2, 2] = data[0, 3, 3, 3] = 5
    assert len(find(Volume(data, Grid((6, 6, 6), np.eye(4))), 4, np.zeros(3), FindingsConfig())) == 1


def test_nothing_above_the_threshold_is_no_finding():
    assert find(heatmap(), 10.0, np.zeros(4), FindingsConfig()) == []
