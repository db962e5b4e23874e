"""Several contrasts and single scores beside one another: each is what it is called, on the patient's side."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from medgen.report.figures.finding_slices import finding_slices
from medgen.report.figures.mosaic import LIMITS, comparison
from medgen.report.figures.panels import MOST, contrast_slices, score_maps
from medgen.report.figures.small_png import small_png
from medgen.report.figures.thumbnail import thumbnail
from medgen.report.html import png
from medgen.volume import Grid, Volume

# The first axis runs to the left: low i is the patient's right, which is drawn on the left.
GRID = Grid((24, 28, 20), np.diag([-2.0, 2.0, 2.5, 1.0]))
SPOT = (slice(3, 8), slice(10, 18), slice(6, 14))
INSIDE = GRID.to_world((5, 14, 10))


def scan(contrasts: int, bright: int) -> Volume:
    """Even tissue, with a bright spot on the patient's right in one contrast."""
    data = np.random.default_rng(0).uniform(0.45, 0.55, (contrasts, *GRID.shape)).astype(np.float32)
    data[bright][SPOT] = 1.0
    return Volume(data, GRID)


def spot(value: float) -> Volume:
    data = np.full(GRID.shape, np.nan, np.float32)
    data[SPOT] = value
    return Volume(data[None], GRID)


def pictures(axes: Axes) -> list[np.ndarray]:
    """What is drawn in a panel, the scan first."""
    return [np.asarray(image.get_array()) for image in axes.images]


def shows_the_spot(axes: Axes) -> bool:
    """Whether the left side of a panel's scan is clearly brighter than its right side."""
    grey = np.asarray(pictures(axes)[0], dtype=float)
    left, right = np.array_split(grey, 2, axis=1)
    return bool(np.nanmax(left) > 0.9 > np.nanmax(right))


def headings(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_every_contrast_is_drawn_under_its_name_with_the_heat_on_the_patients_side() -> None:
    figure = contrast_slices(scan(3, bright=2), ["T1", "T2", "FLAIR"], heatmap=spot(7.0), point=INSIDE, title="case")
    names = ["T1", "T2", "FLAIR"]
    hot = [f"{name} and heat" for name in names]
    assert headings(figure) == [*names, *names, *hot, *hot, "case"]
    *panels, bar = figure.axes
    assert len(panels) == 12
    assert bar.get_ylim() == LIMITS
    for row in (panels[:3], panels[3:6]):
        assert [shows_the_spot(axes) for axes in row] == [False, False, True]
        assert all(len(axes.images) == 1 for axes in row)
    for axes in panels[6:]:
        opacity = pictures(axes)[1][..., 3]
        left, right = np.array_split(opacity, 2, axis=1)
        assert left.max() > 0.5
        assert not right.any()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["scored region"]


def test_of_many_contrasts_the_first_are_drawn() -> None:
    figure = contrast_slices(scan(6, bright=0), list("abcdef"), heatmap=spot(7.0), point=INSIDE, views=["axial"])
    assert headings(figure)[:MOST] == list("abcd")
    assert len(figure.axes) == 2 * MOST + 1
    # Two views of so many are below one another.
    figure = contrast_slices(scan(6, bright=0), list("abcdef"), heatmap=spot(7.0), point=INSIDE)
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes[:-1]}) == 4
    with pytest.raises(ValueError, match="a name for each of 6 contrasts, found 2"):
        contrast_slices(scan(6, bright=0), ["a", "b"], heatmap=spot(7.0), point=INSIDE)


def test_the_maps_of_single_scores_share_the_scale_and_the_outline_of_the_heatmap() -> None:
    maps = {"heat": spot(8.0), "selfsup  4.0": spot(4.0), "nll  1.2": spot(1.2)}
    outlined = spot(1.0).with_data(np.nan_to_num(spot(1.0).data).astype(np.uint8))
    figure = score_maps(scan(2, 1), maps, contour=outlined, point=INSIDE, channel=1, heading="FLAIR", title="case")
    assert headings(figure) == ["FLAIR", *maps, "case"]
    plain, heat, selfsup, nll, bar = figure.axes
    assert bar.get_ylim() == LIMITS
    assert all(shows_the_spot(axes) for axes in (plain, heat, selfsup, nll))
    strongest = [pictures(axes)[1][..., 3].max() for axes in (heat, selfsup, nll)]
    assert strongest[0] > strongest[1] > strongest[2] == 0
    cyan = np.abs(
        np.round(mpl.image.imread(io.BytesIO(png(figure)))[..., :3] * 255).astype(int) - (0x38, 0xE8, 0xFF)
    ).max(axis=-1)
    columns = np.nonzero((cyan < 12).any(axis=0))[0]
    # In each of the four panels.
    assert (np.diff(columns) > 30).sum() >= 3
    with pytest.raises(ValueError, match="expected a map"):
        score_maps(scan(1, 0), {}, point=INSIDE)


def test_many_maps_go_over_several_rows_and_keep_their_size() -> None:
    sizes = []
    for count in (2, 9):
        figure = score_maps(scan(1, 0), {str(n): spot(5.0) for n in range(count)}, point=INSIDE)
        box = figure.axes[0].get_position()
        width, height = figure.get_size_inches()
        sizes.append((box.width * width, box.height * height))
    assert sizes[0] == pytest.approx(sizes[1])
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes[:-1]}) == 2


def test_a_finding_is_shown_in_its_own_contrast_and_in_all_where_that_is_not_known() -> None:
    given = {"heatmap": spot(7.0), "contour": spot(1.0), "names": ["T1", "T2", "FLAIR"]}
    image = scan(3, bright=2)
    points, captions = [INSIDE, INSIDE], ["1  here", "2  here"]
    figure = finding_slices(image, points=points, captions=captions, contrasts=[2, None], **given)
    known, unknown = figure.axes[:6], figure.axes[6:]
    assert [shows_the_spot(known[n]) for n in (0, 3)] == [True, True]
    assert "FLAIR" in {text.get_text() for text in known[0].texts}
    # Every contrast, then three views with the heat.
    assert [shows_the_spot(axes) for axes in unknown[:3]] == [False, False, True]
    names = [[t.get_text() for t in axes.texts if t.get_text() in given["names"]] for axes in unknown]
    assert names == [["T1"], ["T2"], ["FLAIR"], [], [], []]
    assert all(axes.get_position().x1 <= unknown[3].get_position().x0 for axes in unknown[:3])
    with pytest.raises(ValueError, match="a contrast for each of 2 points and 3 names, found 1 and 3"):
        finding_slices(image, points=points, captions=captions, contrasts=[2], **given)


def test_a_long_title_fits() -> None:
    figure = contrast_slices(scan(2, 1), ["T1", "FLAIR"], heatmap=spot(7.0), point=INSIDE, title="m" * 90)
    title = figure.texts[-1]
    assert title.get_text() == "m" * 90
    assert figure.get_size_inches()[0] > 9


def test_a_small_png_has_the_same_greys_and_nearly_the_same_colours() -> None:
    outlined = spot(1.0).with_data(np.nan_to_num(spot(1.0).data).astype(np.uint8))
    given = {"heatmap": spot(5.0), "contour": outlined, "point": INSIDE}
    figure = contrast_slices(scan(3, 2), ["T1", "T2", "FLAIR"], **given)
    whole, small = png(figure), small_png(figure)
    assert len(small) < 0.7 * len(whole)
    assert small == small_png(figure)
    before, after = (np.asarray(Image.open(io.BytesIO(own)).convert("RGB")).astype(int) for own in (whole, small))
    assert before.shape == after.shape
    grey = np.ptp(before, axis=-1) == 0
    assert np.abs(before - after)[grey].max() <= 2
    assert np.abs(before - after)[~grey].mean() < 2
    # The outline, a few of half a million pixels, keeps its colour.
    cyan = np.abs(before - (0x38, 0xE8, 0xFF)).max(axis=-1) < 2
    assert cyan.sum() > 100
    assert np.abs(before - after)[cyan].max() < 16


def test_the_comparison_and_the_thumbnail_show_the_contrast_that_is_asked_for() -> None:
    image = scan(2, bright=1)
    shown = {}
    for contrast in (0, 1):
        figure = comparison(
            image,
            heatmap=spot(7.0),
            expected=image,
            difference=image,
            point=INSIDE,
            channel=contrast,
            scan_label="this one",
        )
        assert headings(figure)[:4] == ["this one", "pseudo-healthy", "difference", "heat"]
        shown[contrast] = [shows_the_spot(axes) for axes in figure.axes[:4]]
    assert shown == {0: [False] * 4, 1: [True] * 4}
    cold = spot(np.nan)
    grey = [np.asarray(Image.open(io.BytesIO(thumbnail(image, cold, INSIDE, n))).convert("L")) for n in (0, 1)]
    halves = [[half.max() for half in np.array_split(picture.astype(int), 2, axis=1)] for picture in grey]
    assert abs(halves[0][0] - halves[0][1]) < 60 < halves[1][0] - halves[1][1]
