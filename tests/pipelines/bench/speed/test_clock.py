"""Turns, exponents and floors of benchmarks of speed."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.pipelines.bench.speed.clock import clock_for, exponent, growing, in_turns, steepest
from medgen.pipelines.bench.speed.contest import Contender, Contest, Demand, Figure, Growth
from medgen.pipelines.bench.speed.measured import measured
from medgen.pipelines.bench.speed.roofline import Roofline, measure

ROOF = Roofline(1e9, 2e9, 1e10)


def test_every_round_begins_with_another_contender():
    order = []

    def clock(work, times):
        order.append(work())
        return 1.0

    contenders = [Contender(name, lambda name=name: name) for name in "abc"]
    seconds = in_turns(contenders, 4, clock)
    # One look at how long each takes, then four rounds.
    assert "".join(order[3:]) == "abc" + "bca" + "cab" + "abc"
    assert seconds == {name: [1.0] * 4 for name in "abc"}


def test_short_work_is_done_several_times_in_one_measurement():
    seen = []
    in_turns([Contender("a", lambda: None)], 3, lambda work, times: seen.append(times) or 0.001)
    assert seen == [1, 50, 50, 50]


def test_processor_time_is_that_of_the_work():
    clock = clock_for("cpu")
    numbers = np.random.default_rng(0).random(2_000_000)
    once, thrice = (min(clock(lambda n=n: [np.sort(numbers) for _ in range(n)], 1) for _ in range(3)) for n in (1, 3))
    assert 2 < thrice / once < 4.5


def test_exponent_is_the_slope_in_logarithms():
    amounts = [10.0, 100.0, 1000.0]
    seconds = [2 * amount**1.3 for amount in amounts]
    assert exponent(amounts, seconds) == pytest.approx(np.polyfit(np.log(amounts), np.log(seconds), 1)[0])
    assert steepest(amounts, [1.0, *seconds[1:]]) == pytest.approx(1.3)


def test_growth_prepares_outside_of_the_clock():
    made = []
    growth = Growth("x", "voxels", (1.0, 2.0), lambda amount: made.append(amount) or (lambda: amount))
    assert growing(growth, 3, lambda work, times: work()) == [1.0, 2.0]
    assert made == [1.0, 2.0]


def test_ratio_is_peer_over_medgen_round_by_round():
    # Twice as slow in every second round, both: the ratio stays.
    turns = {"own": iter([1.0, 1, 2, 1]), "peer": iter([4.0, 4, 8, 4])}
    contest = Contest(
        "x",
        (Contender("medgen", lambda: "own"), Contender("peer", lambda: "peer", 3.5)),
        demand=Demand(flops=0.5e9, bytes=0, of="sums"),
        equal=lambda: {"voxels": {"medgen": 8, "peer": 8}},
    )
    found = measured(contest, 3, lambda work, times: next(turns[work()]), ROOF)
    assert found["against"]["peer"] == {"ratio": 4.0, "low": 4.0, "high": 4.0, "goal": 3.5, "reached": True}
    assert found["floor"] == {"seconds": 0.5, "of": "sums", "times": 2.0}
    assert found["seconds"]["medgen"]["median"] == 1.0
    assert found["equal"] == {"voxels": {"medgen": 8.0, "peer": 8.0}}


@pytest.mark.parametrize(
    ("value", "better", "reached"), [(2.0, "less", True), (4.0, "less", False), (4.0, "more", True)]
)
def test_figure_is_held_against_its_goal(value, better, reached):
    assert measured(Figure("x", value, "s", 3.0, better), 3, clock_for("cpu"), ROOF)["reached"] is reached


def test_floor_is_the_longer_of_arithmetic_and_memory():
    assert ROOF.floor(Demand(flops=4e9, bytes=1e10, of="")) == 4.0
    assert ROOF.floor(Demand(flops=4e9, bytes=3e10, of="", bf16=True)) == 3.0


def test_peaks_are_measured(monkeypatch):
    monkeypatch.setattr("medgen.pipelines.bench.speed.roofline._SIDE", 256)
    monkeypatch.setattr("medgen.pipelines.bench.speed.roofline._COPIED", 1 << 22)
    roof = measure("cpu")
    # A laptop core of the last ten years does more than a billion operations, a gigabyte a second.
    assert roof.fp32 > 1e9
    assert roof.bytes > 5e8
