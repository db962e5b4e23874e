"""Colours of labels: the scan shows through, every part has an outline, and parts that touch are told apart."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.report.figures.colours import label_picture

MAP = np.zeros((24, 30), np.uint8)
MAP[4:14, 5:15] = 1
MAP[4:14, 15:26] = 2
MAP[18, 20] = 3


def test_the_inside_is_a_tint_and_what_bounds_background_is_an_outline() -> None:
    opacity = label_picture(MAP)[..., 3]
    any_label = MAP > 0
    # Independent of the code: what an erosion takes away bounds the background.
    rim = any_label & ~ndimage.binary_erosion(any_label)
    assert (opacity[~any_label] == 0).all()
    assert (opacity[rim] > 0.8).all()
    inside = np.zeros_like(any_label)
    inside[6:12, 7:13] = inside[6:12, 17:24] = True
    assert (opacity[inside] < 0.25).all()
    # Where two labels touch there is a line of one pixel, in the colour of one of them.
    assert (opacity[6:12, 14] > 0.8).all()
    assert (opacity[6:12, 15] < 0.25).all()


def test_colours_are_the_labels_own_and_labels_alone_are_solid() -> None:
    picture = label_picture(MAP, tint=1.0)
    assert (picture[6:12, 7:13, 3] == 1).all()
    colours = {value: {tuple(rgb) for rgb in picture[value == MAP][:, :3]} for value in (1, 2, 3)}
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == 3
