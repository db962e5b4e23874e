from __future__ import annotations

import math

import pytest

from medgen.report.figures.dots import dot_panels

PANELS = {
    "blur": {"fused": [0.1, 0.2], "zscore": [0.05, math.nan]},
    "noise": {"fused": [0.3, 0.9], "zscore": [0.2, 0.1]},
}


def test_every_value_is_drawn_and_no_dot_lies_outside_of_its_panel():
    figure = dot_panels(PANELS, ["small", "large"], "AP", chance={"blur": [0.01, 0.02]}, title="t")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == list(PANELS)
    for axes, series in zip(panels, PANELS.values(), strict=True):
        dots = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        for name, values in series.items():
            assert dots[name] == pytest.approx(values, nan_ok=True)
        low, high = axes.get_ylim()
        assert low == 0
        assert high > 0.9
        assert high == panels[0].get_ylim()[1]


def test_panels_without_a_neighbour_below_carry_labels():
    figure = dot_panels({str(n): {"a": [0.1]} for n in range(7)}, ["only"])
    shown = [bool(axes.xaxis.get_tick_params()["labelbottom"]) for axes in figure.axes if axes.get_title()]
    assert shown == [False, False, True, True, True, True, True]


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="panels of 2 values"):
        dot_panels({"blur": {"fused": [0.1]}}, ["small", "large"])
