"""What is measured is kept, shown and said."""

from __future__ import annotations

import json

import pytest

from medgen.errors import ConfigError, DataError
from medgen.pipelines.bench.speed import run as speed
from medgen.pipelines.bench.speed.catalogue import benchmarks, entries_of
from medgen.pipelines.bench.speed.contest import Contender, Contest, Figure, Growth, Table
from medgen.pipelines.bench.speed.roofline import Roofline


@pytest.fixture
def fake(monkeypatch):
    """Benchmarks that take no time; returns what was asked for."""
    asked = []

    def entries(name):
        def made(settings):
            asked.append((name, settings))
            yield Contest(
                "sums",
                (Contender("medgen", lambda: sum(range(2000))), Contender("peer", lambda: sum(range(20000)), 2.0)),
                without=("other: not installed",),
            )
            yield Growth("sums", "cases", (1e4, 1e5), lambda amount: lambda: sum(range(int(amount))))
            yield Figure("start-up", 1.5, "s", 3.0)
            yield Table("stages", {"train": {"seconds": 3}})

        return made

    monkeypatch.setattr(speed, "entries_of", entries)
    monkeypatch.setattr(speed, "known", lambda: ["io", "score"])
    monkeypatch.setattr(speed.roofline, "measure", lambda device: Roofline(1e9, 1e9, 1e9))
    return asked


def test_page_file_and_picture(fake, tmp_path):
    summary = speed.run(tmp_path, benchmarks=["io", "score"], rounds=3)
    found = json.loads((tmp_path / "performance.json").read_text())
    assert set(found) == {"score", "io"}
    assert [name for name, _ in fake] == ["io", "score"]
    contest = found["io"]["entries"][0]
    assert contest["against"]["peer"]["ratio"] > 2
    page = (tmp_path / "performance.md").read_text()
    assert f"{contest['against']['peer']['ratio']:.3g}x" in page
    assert "Not compared: other: not installed" in page
    assert "| io: start-up | 1.5 s | ≤ 3 s | yes |" in page
    assert "performance-growth.png" in page
    assert (tmp_path / "performance-growth.png").stat().st_size > 1000
    assert any(line.startswith("io: start-up: 1.5 s (goal ≤ 3 s: reached)") for line in summary.lines)


def test_what_was_measured_of_others_stays(fake, tmp_path):
    speed.run(tmp_path, benchmarks=["io"], rounds=3)
    before = json.loads((tmp_path / "performance.json").read_text())["io"]
    speed.run(tmp_path, benchmarks=["score"], rounds=5)
    found = json.loads((tmp_path / "performance.json").read_text())
    assert found["io"] == before
    assert found["score"]["command"] == "medgen bench speed OUT --benchmarks score --rounds 5"


def test_the_page_says_what_the_file_says(fake, tmp_path):
    speed.run(tmp_path, benchmarks=["io"], rounds=3)
    found = json.loads((tmp_path / "performance.json").read_text())
    found["io"]["entries"][2] |= {"value": 7.25, "reached": False}
    found["io"]["quick"] = True
    page = speed.page.text(found, None)
    assert "| io: start-up, tried out with `--quick` | 7.25 s | ≤ 3 s | **no** |" in page
    assert "these figures mean nothing" in page
    assert "performance-growth.png" not in page


def test_a_file_of_something_else_is_refused(fake, tmp_path):
    (tmp_path / "performance.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"performance\.json.*another folder"):
        speed.run(tmp_path, benchmarks=["io"], rounds=3)
    assert (tmp_path / "performance.json").read_text() == "[1, 2]"


@pytest.mark.parametrize("text", ['{"io": {"entries": []}}', '{"io": 3}'])
def test_a_record_that_lacks_what_the_page_needs_is_refused(fake, text, tmp_path):
    (tmp_path / "performance.json").write_text(text)
    with pytest.raises(DataError, match="figures that this command has written"):
        speed.run(tmp_path, benchmarks=["score"], rounds=3)
    assert fake == []


def test_trying_out_does_not_replace_what_was_measured(fake, tmp_path):
    speed.run(tmp_path, benchmarks=["io"], rounds=3)
    before = (tmp_path / "performance.json").read_text()
    with pytest.raises(ConfigError, match="holds io measured without --quick"):
        speed.run(tmp_path, benchmarks=["io", "score"], rounds=3, quick=True)
    assert (tmp_path / "performance.json").read_text() == before
    summary = speed.run(tmp_path, benchmarks=["score"], rounds=3, quick=True)
    assert any("these figures mean nothing" in line for line in summary.lines)
    # The other way round is what trying out is for.
    assert not any("mean nothing" in line for line in speed.run(tmp_path, benchmarks=["score"], rounds=3).lines)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(fake, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a file is where a folder is expected"):
        speed.run(tmp_path / "file", benchmarks=["io"], rounds=3)
    assert fake == []


def test_every_benchmark_has_its_file():
    assert "train-step" in benchmarks()
    for name in benchmarks():
        assert callable(entries_of(name))
