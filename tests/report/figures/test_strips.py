"""Film strips and animations: sides, marks, one grey scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medgen.report.figures.strips import Frame, animation, film_strip
from medgen.report.html import png
from medgen.volume import Grid, Volume

GRID = Grid((20, 24, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
ORANGE = np.array([255, 140, 66])


def scan(value=1.0, side=None):
    data = np.full((1, *GRID.shape), 0.2, np.float32)
    data[0, 4:16, 4:20, 4:12] = 0.5
    if side == "right":
        # The first axis runs to the right.
        data[0, 16:, :, :] = value
    return Volume(data, GRID)


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def is_orange(picture):
    return (np.abs(picture - ORANGE) < 12).all(-1)


def test_the_patient_s_right_is_on_the_left_of_axial_slices():
    picture = pixels(png(film_strip([Frame(scan(1.0, "right"), None, "0") for _ in range(4)]))).mean(-1)
    column = picture[: picture.shape[0] // 3, : picture.shape[1] // 4]
    bright = np.argwhere(column > 240)
    dim = np.argwhere((column > 60) & (column < 200))
    assert bright[:, 1].mean() < dim[:, 1].mean()


def test_marked_steps_are_framed_and_the_legend_says_why():
    frames = [Frame(scan(), None, f"{n}", far=n == 0) for n in range(4)]
    marked = is_orange(pixels(png(film_strip(frames, far="far away"))))
    half = marked.shape[1] // 2
    assert marked[:, :half].sum() > 300
    # All but the legend, below, is in the first column.
    assert marked[: int(0.8 * len(marked)), half // 2 + 10 :].sum() == 0
    plain = [Frame(scan(), None, f"{n}") for n in range(4)]
    assert not is_orange(pixels(png(film_strip(plain)))).any()


def test_all_steps_have_one_grey_scale():
    dark, light = Frame(scan(0.6, "right"), None, "a"), Frame(scan(3.0, "right"), None, "b")
    alone, together = (pixels(png(film_strip(frames))).mean(-1) for frames in ([dark] * 4, [dark] * 3 + [light]))
    half = together.shape[1] // 2
    # What is brightest alone is grey beside what is brighter still; letters are white in both.
    assert np.percentile(alone[:, :half], 97) > np.percentile(together[:, :half], 97) + 60


def test_labels_alone_are_drawn_through_their_middle():
    labels = np.zeros((1, *GRID.shape), np.uint8)
    labels[0, 2:4, 2:4, 2:4] = 1
    found = pixels(png(film_strip([Frame(None, Volume(labels, GRID), "x")], label_names={1: "left"})))
    coloured = np.abs(found[..., 0] - found[..., 2]) > 60
    # In three slices and the legend; slices through the middle of the grid would miss it.
    assert coloured[: int(0.8 * len(found))].sum() > 100


def test_an_animation_goes_there_and_back_for_ever():
    frames = [Frame(scan(value, "right"), None, f"{value}", far=value > 2) for value in (1.0, 2.0, 3.0)]
    with Image.open(io.BytesIO(animation(frames))) as film:
        assert (film.format, film.n_frames, film.info["loop"]) == ("GIF", 4, 0)
        shown = []
        for number in range(4):
            film.seek(number)
            shown.append(np.asarray(film.convert("RGB")).astype(int))
    assert np.array_equal(shown[1], shown[3])
    assert not np.array_equal(shown[0], shown[2])
    assert [bool((np.abs(picture - ORANGE) < 25).all(-1).sum() > 200) for picture in shown] == [
        False,
        False,
        True,
        False,
    ]


def test_a_step_needs_something_to_draw():
    with pytest.raises(ValueError, match="an image or labels"):
        film_strip([Frame(None, None, "x")])
