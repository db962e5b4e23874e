"""The walker over intervals finds what is wrong, wherever it is."""

from __future__ import annotations

from tests.builders.intervals import check, walk


def test_wrong_intervals_are_found_at_any_depth() -> None:
    good = {"estimate": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    above = {"estimate": 0.585, "low": 0.592, "high": 0.750}
    turned = {"estimate": 0.5, "low": 0.6, "high": 0.4}
    none = {"estimate": 0.5, "low": None, "high": None}
    metrics = {"a": [good, {"b": above}], "c": {"d": none, "e": [[turned]]}, "word": "USE"}
    assert [place for place, _ in walk(metrics)] == ["a.0", "a.1.b", "c.d", "c.e.0.0"]
    assert check(metrics) == ["a.1.b: 0.585 [0.592, 0.75]", "c.e.0.0: 0.5 [0.6, 0.4]"]
    assert check({"a": [good], "c": none}) == []
