from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.findings import COLUMNS, describe, find, millilitres, outline, summary
from medgen.preprocessing.prepared import PreparedScan, Template
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


def calibrated(threshold, *maxima):
    values = np.array(maxima or (0.0, 0.0, 0.0, 0.0))
    return Calibration(np.zeros(values.size, dtype=np.int64), {"max": values}, threshold)


def test_regions_are_measured_in_the_scans_own_space():
    found = find(heatmap(), calibrated(4.0, 1.0, 2.0, 8.0, 3.0))
    assert [item.id for item in found] == [1, 2, 3]
    first, second, third = found
    assert first.above_threshold_ml == pytest.approx(24 * 9.0 / 1000)
    assert first.peak == 9
    assert first.peak_voxel == (6, 7, 5)
    assert first.peak_ras == pytest.approx(tuple((AFFINE @ [6, 7, 5, 1])[:3]))
    assert second.peak_ras == pytest.approx(tuple((AFFINE @ [*second.peak_voxel, 1])[:3]))
    assert (first.p_max, second.p_max, third.p_max) == (1 / 5, 2 / 5, 2 / 5)
    assert tuple(first.row("case")) == COLUMNS


def test_the_extent_at_half_the_peak_is_that_of_the_blob_and_not_of_what_the_threshold_leaves():
    """A Gaussian blob on a raised background: the half-peak region is a ball of radius sigma sqrt(2 ln 2)."""
    sigma, spacing = 5.0, 1.0
    place = np.stack(np.meshgrid(*[np.arange(48) - 24.0] * 3, indexing="ij"))
    data = (0.5 + 4.5 * np.exp(-(place**2).sum(0) / (2 * sigma**2))).astype(np.float32)
    blob = Volume(data[None], Grid(data.shape, np.diag([spacing, spacing, spacing, 1.0])))
    ball = 4 / 3 * np.pi * (sigma * np.sqrt(2 * np.log(2))) ** 3 / 1000
    for threshold in (4.0, 3.0):
        (found,) = find(blob, calibrated(threshold))
        assert found.half_peak_extent_ml == pytest.approx(ball, rel=0.03)
        radius = sigma * np.sqrt(2 * np.log(4.5 / (threshold - 0.5)))
        assert found.above_threshold_ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.1)


def test_diagonal_neighbours_are_one_region():
    data = np.zeros((1, 6, 6, 6), dtype=np.float32)
    data[0, 2, 2, 2] = data[0, 3, 3, 3] = 5
    assert len(find(Volume(data, Grid((6, 6, 6), np.eye(4))), calibrated(4))) == 1


def test_nothing_above_the_threshold_is_no_finding():
    assert find(heatmap(), calibrated(10.0)) == []


def test_the_outline_is_what_the_table_lists():
    mask = outline(heatmap(), 4.0).data[0]
    listed = find(heatmap(), calibrated(4.0))
    assert mask.sum() * 9.0 / 1000 == pytest.approx(sum(item.above_threshold_ml for item in listed))
    assert all(mask[item.peak_voxel] == 1 for item in listed)
    assert outline(heatmap(), 10.0).data.sum() == 0


def test_positions_of_a_registered_scan_are_counted_from_the_templates_middle():
    """The template's organ fills voxels 4 to 15 along i, so its middle is at 9.5: a peak at 6 is left by 7 mm."""
    heat = heatmap()
    organ = np.zeros((20, 22, 18), dtype=bool)
    organ[4:16, 2:20, 2:16] = True
    # The patient lies rotated in the scanner and far from its origin; the template does not.
    model = Grid(heat.grid.shape, AFFINE)
    template = Template(
        Volume(np.zeros((1, *organ.shape), np.float32), Grid(organ.shape, np.diag([2.0, 2.0, 2.0, 1.0]))),
        Volume(organ[None], Grid(organ.shape, np.diag([2.0, 2.0, 2.0, 1.0]))),
    )
    prepared = PreparedScan(
        np.zeros(heat.data.shape, np.float32), np.isfinite(heat.data[0]), model, heat.grid, ((0.0, 1.0),)
    )
    first = describe(find(heat, calibrated(4.0)), prepared, {"pca": np.zeros(organ.shape, np.float32)}, template)[0]
    assert first.peak_template == (-7.0, -7.0, -7.0)
    assert first.region.startswith("left")
    assert first.position == "voxel 6, 7, 5; R -7, A -7, S -7 mm from the template's middle"
    assert replace(first, peak_template=None).position.endswith("mm from the scan's own origin")


def test_channels_are_those_above_two_at_the_peak_strongest_first():
    heat = heatmap()
    foreground = np.isfinite(heat.data[0])
    prepared = PreparedScan(np.zeros(heat.data.shape, np.float32), foreground, heat.grid, heat.grid, ((0.0, 1.0),))
    maps = {name: np.zeros(heat.grid.shape, np.float32) for name in ("pca", "nll", "blur")}
    maps["pca"][6, 7, 5], maps["nll"][6, 7, 5], maps["blur"][6, 7, 5] = 3.04, 4.11, 1.9
    # Hotter elsewhere than at the peak: of no concern.
    maps["blur"][7, 7, 5] = 9
    first, second, _ = describe(find(heat, calibrated(4.0)), prepared, maps, None)
    assert (first.channel, first.channels) == ("nll", "nll 4.1, pca 3.0")
    assert second.channels == ""
    assert second.channel in maps


def test_a_scan_is_summed_up_in_one_line():
    calibration = calibrated(4.0, 1.0, 2.0, 8.0, 3.0)
    found = find(heatmap(), calibration)
    named = [replace(item, region="left anterior superior, cortex") for item in found]
    first, second = summary(named[:1], calibration), summary(named[1:], calibration)
    assert first == (
        "1 region: left anterior superior cortex, 0.22 ml at half its peak (0.22 ml above the threshold), hotter than "
        "all 4 healthy scans"
    )
    assert second.startswith("2 regions, the hottest: left anterior superior cortex, 0.072 ml at half its peak")
    assert second.endswith("hotter than 3 of 4 healthy scans")
    smaller = [replace(named[0], above_threshold_ml=0.1)]
    assert "0.22 ml at half its peak (0.1 ml above the threshold)" in summary(smaller, calibration)
    assert summary([], calibration) == "no region above the threshold"


@pytest.mark.parametrize(
    ("volume", "text"),
    [(2.14, "2.1 ml"), (0.034, "0.034 ml"), (123.456, "120 ml"), (0.00999, "0.01 ml"), (15, "15 ml"), (0, "0 ml")],
)
def test_volumes_have_two_significant_digits(volume, text):
    assert millilitres(volume) == text
