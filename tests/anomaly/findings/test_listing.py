from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.findings.candidates import candidates_of
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.findings.listing import COLUMNS, describe, find, millilitres, outline, summary
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


def calibrated(*scans, threshold=8.0):
    """Healthy scans by the heat of their candidates."""
    maxima = np.array([max(own, default=0.0) for own in scans])
    healthy = HealthyCandidates.of(scans, [str(number) for number in range(len(scans))])
    return Calibration(np.zeros(len(scans), dtype=np.int64), {"max": maxima}, threshold, healthy)


# Four healthy scans: with a level of 0.6 three candidates may be as hot, the new one's included.
CALIBRATION = calibrated([1.0], [2.0], [8.0, 4.5, 3.0], [3.0])


def listed(heat, level, calibration=CALIBRATION, target=0.2):
    candidates = candidates_of(heat, separation_mm=10)
    return find(heat, candidates, calibration.healthy, calibration.maxima, level, target), candidates


def test_findings_are_measured_in_the_scans_own_space():
    found, _ = listed(heatmap(), 0.9)
    assert [item.id for item in found] == [1, 2]
    first, second = found
    assert CALIBRATION.healthy.threshold(0.9) == 3.0
    assert first.above_threshold_ml == pytest.approx(24 * 9.0 / 1000)
    assert first.peak == 9
    assert first.peak_voxel == (6, 7, 5)
    assert first.peak_ras == pytest.approx(tuple((AFFINE @ [6, 7, 5, 1])[:3]))
    assert second.peak_ras == pytest.approx(tuple((AFFINE @ [*second.peak_voxel, 1])[:3]))
    assert (first.p_max, second.p_max) == (1 / 5, 2 / 5)
    assert (first.expected_false, second.expected_false) == (1 / 5, (1 + 2) / 5)
    assert tuple(first.row("case")) == COLUMNS


@pytest.mark.parametrize(("level", "peaks"), [(0.1, []), (0.5, [9]), (0.6, [9, 7]), (0.9, [9, 7]), (1.0, [9, 7, 4.5])])
def test_a_higher_level_lists_more_and_keeps_what_was_there(level, peaks):
    found, candidates = listed(heatmap(), level)
    assert [item.peak for item in found] == peaks
    assert candidates.heat.tolist() == [9, 7, 4.5]


def test_what_passes_the_family_wise_level_is_marked():
    found, _ = listed(heatmap(), 0.9)
    assert [item.family_wise for item in found] == [True, False]
    assert [item.family_wise for item in listed(heatmap(), 0.9, target=0.4)[0]] == [True, True]


def test_the_extent_at_half_the_peak_is_that_of_the_blob_and_not_of_what_the_threshold_leaves():
    """A Gaussian blob on a raised background: the half-peak region is a ball of radius sigma sqrt(2 ln 2)."""
    sigma, spacing = 5.0, 1.0
    place = np.stack(np.meshgrid(*[np.arange(48) - 24.0] * 3, indexing="ij"))
    data = (0.5 + 4.5 * np.exp(-(place**2).sum(0) / (2 * sigma**2))).astype(np.float32)
    blob = Volume(data[None], Grid(data.shape, np.diag([spacing, spacing, spacing, 1.0])))
    ball = 4 / 3 * np.pi * (sigma * np.sqrt(2 * np.log(2))) ** 3 / 1000
    for threshold in (4.0, 3.0):
        (found,), _ = listed(blob, 0.5, calibrated([threshold], [threshold]))
        assert found.half_peak_extent_ml == pytest.approx(ball, rel=0.03)
        radius = sigma * np.sqrt(2 * np.log(4.5 / (threshold - 0.5)))
        assert found.above_threshold_ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.1)


def test_the_extent_of_a_faint_finding_stays_on_its_own_side_of_the_pass():
    """Two blobs that run into each other below half their heights: each extent ends at the valley between them."""
    i = np.arange(60.0)[:, None, None]
    line = 4 * np.exp(-((i - 20) ** 2) / 60) + 3 * np.exp(-((i - 40) ** 2) / 60)
    data = np.broadcast_to(line, (60, 3, 3)).astype(np.float32).copy()
    found, candidates = listed(Volume(data[None], Grid(data.shape, np.eye(4))), 5.0)
    assert [item.peak_voxel[0] for item in found] == [20, 40]
    valley = 20 + int(line[20:40].ravel().argmin())
    for item in found:
        inside = np.argwhere(candidates.labels == item.id)[:, 0]
        assert (inside <= valley + 1).all() if item.id == 1 else (inside >= valley).all()
        assert item.half_peak_extent_ml <= len(inside) / 1000


def test_in_a_scan_that_is_hot_all_over_the_outline_stays_with_the_peak():
    """Everything lies above the threshold of 3; what is outlined is half as far above the 3.5 around it as the peak."""
    data = np.full((20, 8, 8), 3.5, dtype=np.float32)
    data[4, 4, 4], data[5, 4, 4], data[3, 4, 4] = 8, 6, 5
    # As hot, and bridged, but apart from the peak at that height.
    data[8, 4, 4] = 6
    hot = Volume(data[None], Grid(data.shape, np.eye(4)))
    (found,), candidates = listed(hot, 0.5)
    assert found.above_threshold_ml == pytest.approx(2 / 1000)
    assert np.argwhere(outline(hot, candidates, 1, 3.0).data[0])[:, 0].tolist() == [4, 5]


def test_nothing_hot_enough_is_no_finding():
    assert listed(heatmap(), 0.9, calibrated(*[[10.0, 10.0]] * 4))[0] == []
    assert listed(Volume(np.zeros((1, 4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4))), 1.0)[0] == []


@pytest.mark.parametrize(
    ("peak", "around", "dtype", "listed_too"),
    [
        # Exactly as hot as the lowest threshold: not above it.
        (2.0, -1.0, np.float32, False),
        (np.nextafter(np.float32(2), np.float32(3)), -1.0, np.float32, True),
        # A peak that is cooler than most of its scan, and whose heat is more in single precision than it is.
        (2.7, 3.5, np.float64, True),
    ],
)
def test_what_is_listed_has_a_voxel_above_the_threshold(peak, around, dtype, listed_too):
    data = np.full((40, 8, 8), around, dtype=dtype)
    data[10:30] = -1.0
    data[20, 4, 4] = peak
    if around > 0:
        # Most of the scan is hot, on one plateau that is a candidate of its own.
        data[:8], data[32:] = around, around
        data[8:10], data[30:32] = -1.0, -1.0
        data[9:31][data[9:31] < 0] = np.nan
    heat = Volume(data[None], Grid(data.shape, np.eye(4)))
    found, candidates = listed(heat, 20, calibrated([], [], [], []))
    assert (20, 4, 4) in [item.peak_voxel for item in found] or not listed_too
    assert all(item.above_threshold_ml > 0 and np.isfinite(item.mean) for item in found)
    assert len(found) == candidates.labels.max()


def test_the_outline_is_what_the_table_lists():
    found, candidates = listed(heatmap(), 0.9)
    mask = outline(heatmap(), candidates, len(found), 3.0).data[0]
    for item in found:
        assert (mask == item.id).sum() * 9.0 / 1000 == pytest.approx(item.above_threshold_ml)
        assert mask[item.peak_voxel] == item.id
    # A candidate that is not listed is not outlined.
    assert mask[12, 3, 3] == 0
    assert outline(heatmap(), candidates, 3, 3.0).data[0, 12, 3, 3] == 3
    assert outline(heatmap(), candidates, 0, 3.0).data.sum() == 0


def seen_as(heat, foreground, maps, template=None, brightness=None):
    """Findings with words, of a scan that lies on the model grid as it is."""
    found, candidates = listed(heat, 0.9)
    regions = outline(heat, candidates, len(found), 3.0)
    prepared = PreparedScan(np.zeros(heat.data.shape, np.float32), foreground, heat.grid, heat.grid, ((0.0, 1.0),))
    looks = np.zeros(heat.data.shape, np.float32) if brightness is None else brightness
    appearance = {"brightness": looks, "detail": np.zeros_like(looks)}
    return describe(found, regions, prepared, maps, appearance, template)


def test_positions_of_a_registered_scan_are_counted_from_the_templates_middle():
    """The template's organ fills voxels 4 to 15 along i, so its middle is at 9.5: a peak at 6 is left by 7 mm."""
    heat = heatmap()
    organ = np.zeros((20, 22, 18), dtype=bool)
    organ[4:16, 2:20, 2:16] = True
    # The patient lies rotated in the scanner and far from its origin; the template does not.
    template = Template(
        Volume(np.zeros((1, *organ.shape), np.float32), Grid(organ.shape, np.diag([2.0, 2.0, 2.0, 1.0]))),
        Volume(organ[None], Grid(organ.shape, np.diag([2.0, 2.0, 2.0, 1.0]))),
    )
    first = seen_as(heat, np.isfinite(heat.data[0]), {"pca": np.zeros(organ.shape, np.float32)}, template)[0]
    assert first.peak_template == (-7.0, -7.0, -7.0)
    assert first.region.startswith("left")
    # As a viewer of the scan says it, whether or not there is a template.
    moved = replace(first, peak_ras=(12.04, -3.5, 0.0), peak_voxel=(6, 7, 5))
    assert moved.position == "12.0 R, 3.5 P, 0.0 S mm; voxel 6, 7, 5"
    assert replace(moved, peak_template=None).position == moved.position


def test_channels_are_those_above_two_at_the_peak_strongest_first():
    heat = heatmap()
    maps = {name: np.zeros(heat.grid.shape, np.float32) for name in ("pca", "nll", "blur")}
    maps["pca"][6, 7, 5], maps["nll"][6, 7, 5], maps["blur"][6, 7, 5] = 3.04, 4.11, 1.9
    # Hotter elsewhere than at the peak: of no concern.
    maps["blur"][7, 7, 5] = 9
    first, second = seen_as(heat, np.isfinite(heat.data[0]), maps)
    assert (first.channel, first.channels) == ("nll", "nll 4.1, pca 3.0")
    assert second.channels == ""
    assert second.channel in maps


def test_the_words_are_about_the_part_above_the_threshold():
    heat = heatmap()
    brightness = np.full(heat.data.shape, 50, np.float32)
    # Of 24 voxels half are 4 sd darker and half 2: they lean by 3. What lies around does not count.
    brightness[0][5:8, 6:10, 4] = -4
    brightness[0][5:8, 6:10, 5] = -2
    maps = {"pca": np.zeros(heat.grid.shape, np.float32)}
    first, second = seen_as(heat, np.isfinite(heat.data[0]), maps, brightness=brightness)
    assert (first.brightness, first.unusual) == ((-3.0,), "darker (-3.0 sd)")
    assert first.row("case")["brightness_sd"] == "-3.00"
    assert second.unusual == "brighter (+50.0 sd)"
    assert first.to_plain()["unusual"] == first.unusual


def test_a_scan_is_summed_up_in_one_line():
    found, _ = listed(heatmap(), 0.9)
    named = [
        replace(item, region="left anterior superior, near the surface", brightness=(-2.0,), detail=(0.0,))
        for item in found
    ]
    first, both = summary(named[:1]), summary(named)
    assert first == (
        "1 finding: left anterior superior, near the surface, darker (-2.0 sd), 0.22 ml at half its peak, z 9.0, "
        "0.2 expected false; family-wise"
    )
    assert both == first.replace("1 finding:", "2 findings, the strongest:").replace("; family", "; 1 family")
    assert summary(named[1:]).endswith("z 7.0, 0.6 expected false; none family-wise")
    assert summary([]) == "no finding"


@pytest.mark.parametrize(
    ("volume", "text"),
    [(2.14, "2.1 ml"), (0.034, "0.034 ml"), (123.456, "120 ml"), (0.00999, "0.01 ml"), (15, "15 ml"), (0, "0 ml")],
)
def test_volumes_have_two_significant_digits(volume, text):
    assert millilitres(volume) == text
