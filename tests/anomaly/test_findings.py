from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medgen.anomaly.findings import COLUMNS, FindingsConfig, describe, find, millilitres, outline, summary
from medgen.prepared import Prepared
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


def test_the_outline_is_what_the_table_lists():
    config = FindingsConfig(min_volume_mm3=20)
    mask = outline(heatmap(), 4.0, config).data[0]
    listed = find(heatmap(), 4.0, np.zeros(4), config)
    assert mask.sum() * 9.0 == pytest.approx(sum(item.volume_mm3 for item in listed))
    assert mask[6, 7, 5] == 1
    assert mask[12, 3, 3] == 0
    assert outline(heatmap(), 10.0, config).data.sum() == 0


def test_channels_are_those_above_two_at_the_peak_strongest_first():
    heat = heatmap()
    foreground = np.isfinite(heat.data[0])
    prepared = Prepared(np.zeros(heat.data.shape, np.float32), foreground, heat.grid, heat.grid, ((0.0, 1.0),))
    maps = {name: np.zeros(heat.grid.shape, np.float32) for name in ("pca", "nll", "blur")}
    maps["pca"][6, 7, 5], maps["nll"][6, 7, 5], maps["blur"][6, 7, 5] = 3.04, 4.11, 1.9
    # Hotter elsewhere than at the peak: of no concern.
    maps["blur"][7, 7, 5] = 9
    first, second, _ = describe(find(heat, 4.0, np.zeros(4), FindingsConfig()), prepared, maps, None)
    assert (first.channel, first.channels) == ("nll", "nll 4.1, pca 3.0")
    assert second.channels == ""
    assert second.channel in maps


def test_a_scan_is_summed_up_in_one_line():
    maxima = np.array([1.0, 2.0, 8.0, 3.0])
    found = find(heatmap(), 4.0, maxima, FindingsConfig())
    named = [replace(item, region="left anterior superior, cortex") for item in found]
    first, second = summary(named[:1], maxima), summary(named[1:], maxima)
    assert first == "1 region: left anterior superior cortex, 0.22 ml, hotter than all 4 healthy scans"
    assert second.startswith("2 regions, the hottest: left anterior superior cortex, 0.072 ml, hotter than 3 of 4 ")
    assert summary([], maxima) == "no region above the threshold"


@pytest.mark.parametrize(
    ("volume", "text"),
    [(2140, "2.1 ml"), (34, "0.034 ml"), (123456, "120 ml"), (9.99, "0.01 ml"), (15000, "15 ml"), (0, "0 ml")],
)
def test_volumes_have_two_significant_digits(volume, text):
    assert millilitres(volume) == text
