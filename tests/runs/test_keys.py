"""Keys of numbers: placeholders, intervals as three numbers, and nothing undeclared."""

from __future__ import annotations

import pytest

from medgen.metrics.interval import Interval
from medgen.runs.keys import Key, check_known, spread


def test_an_interval_without_limits_keeps_its_estimate() -> None:
    assert spread({"a": Interval(0.5, float("nan"), float("inf"), 2)}) == {"a": 0.5}


def test_a_number_that_no_key_declares_is_a_bug() -> None:
    keys = (Key("synthetic.accepted", "all"), Key("synthetic.accepted.<generator>", "of one"))
    check_known({"synthetic.accepted": 1, "synthetic.accepted.shape+flow": 2}, keys, "sample")
    with pytest.raises(KeyError, match=r"sample has a number 'synthetic.rejected'"):
        check_known({"synthetic.rejected": 1}, keys, "sample")


def test_a_dot_is_a_dot() -> None:
    assert not Key("test.voxel_ap", "").fits("test_voxel_ap")
