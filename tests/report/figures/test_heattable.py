import pytest

from medgen.report.figures.heattable import heat_tables


def test_cells_have_their_text_on_a_colour_of_their_share():
    figure = heat_tables(
        {"a": [[(0.0, "0/2"), (1.0, "2/2")]], "b": [[(0.5, "1/2"), (float("nan"), "")]]}, ["4"], ["-2", "2"]
    )
    first, second = figure.axes
    assert [text.get_text() for text in first.texts] == ["0/2", "2/2"]
    assert [text.get_color() for text in first.texts] == ["#24292f", "white"]
    values = second.images[0].get_array()
    assert values[0, 0] == 0.5
    assert bool(values.mask[0, 1])
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 1)


def test_missing_cells_are_refused():
    with pytest.raises(ValueError, match="1 rows of 2 cells"):
        heat_tables({"a": [[(0.0, "")]]}, ["4"], ["-2", "2"])
    with pytest.raises(ValueError, match="at least one panel"):
        heat_tables({}, [], [])
