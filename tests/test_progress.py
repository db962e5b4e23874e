from __future__ import annotations

import io
import sys

import pytest

from medgen.progress import bars, step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "show"), [(io.StringIO(), True), (Terminal(), False)])
def test_nothing_is_drawn_where_no_one_looks(monkeypatch, stream, show) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with bars(show) as move:
        move("registering", 1, 2)
        move("training", 1, 2, "loss 0.5")
    assert stream.getvalue() == ""


def test_a_bar_says_what_how_far_and_the_note(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with bars(True) as move:
        move("registering", 2, 2)
        move("training", 1, 3)
        move("training", 2, 3, "loss 0.5")
        move("training", 3, 3)
    said = stream.getvalue()
    assert all(text in said for text in ("registering", "2/2", "training", "3/3", "loss 0.5"))


def test_a_step_is_said_to_people_alone(monkeypatch) -> None:
    seen, unseen = Terminal(), io.StringIO()
    for stream in (seen, unseen):
        monkeypatch.setattr(sys, "stderr", stream)
        step("calibrate", 3, 11)
    assert seen.getvalue() == "[3/11] calibrate\n"
    assert unseen.getvalue() == ""
