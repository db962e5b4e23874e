"""Commands about cards: what they write, and one line for whatever is wrong with what they are given."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

import pytest
import yaml

from medgen.pipelines.cli import app
from tests.builders.run_records import RUNS, seal


@pytest.fixture
def place(tmp_path, monkeypatch):
    for kind, make in RUNS.items():
        make(tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Ended:
    """A command that has ended, as a shell sees it."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return self.stdout + self.stderr


def call(*words):
    before, out, err = sys.argv, StringIO(), StringIO()
    sys.argv = ["medgen", "card", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = app._run()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
    return Ended(code, out.getvalue(), err.getvalue())


def refused(*words):
    """The one line on stderr of a command that ends with 2."""
    ended = call(*words)
    assert ended.exit_code == 2, ended.output
    (line,) = ended.stderr.splitlines()
    assert "Traceback" not in line
    return line


def filled(kind, place):
    ended = call("model", kind, "--licence", "MIT", "--contact", "us", "--out", f"{kind}.md")
    assert ended.exit_code == 0, ended.output
    return place / f"{kind}.md"


@pytest.mark.parametrize("kind", list(RUNS))
def test_a_model_card_agrees_with_its_run(kind, place):
    filled(kind, place)
    ended = call("lint", f"{kind}.md", "--run", kind)
    assert (ended.exit_code, ended.stdout) == (0, "1 card(s), no problem; 1 compared with the run that made it\n")


def test_a_card_in_its_run_finds_it_by_itself(place):
    card = filled("anomaly", place)
    text = card.read_text(encoding="utf-8").replace("threshold: 3.353", "threshold: 3.354")
    (place / "anomaly" / "model_card.md").write_text(text, encoding="utf-8")
    line = refused("lint", "anomaly/model_card.md")
    assert line == "anomaly/model_card.md: calibration.threshold: the card says 3.354, the run has 3.353"


def test_what_waits_for_its_authors_is_told_and_the_rest_compared(place):
    assert call("model", "train", "--out", "card.md").exit_code == 0
    text = (place / "card.md").read_text(encoding="utf-8").replace("seed: 7", "seed: 9")
    (place / "card.md").write_text(text, encoding="utf-8")
    ended = call("lint", "card.md", "--run", "train")
    assert ended.exit_code == 2
    lines = ended.stderr.splitlines()
    assert lines[:2] == [
        "card.md: field licence: still holds template text; fill it in",
        "card.md: field contact: still holds template text; fill it in",
    ]
    assert "card.md: seed: the card says 9, the run has 7" in lines


def test_a_run_without_its_numbers_is_one_line(place):
    card = filled("train", place)
    (place / "train" / "metrics.json").unlink()
    for words in (("lint", card, "--run", "train"), ("model", "train"), ("intended-use", "train")):
        assert "train: no metrics.json; expected the folder of a finished run" in refused(*words)


def test_a_changed_number_of_a_run_is_one_line(place):
    metrics = place / "anomaly" / "metrics.json"
    metrics.write_text(metrics.read_text().replace("0.62", "0.92"))
    line = refused("checklist", "claim", "anomaly")
    assert "anomaly/metrics.json: is not as the run wrote it" in line


def test_a_card_of_another_run_is_one_line(place):
    seal(place / "anomaly", run_id="8" * 32)
    assert "is the card of another run" in refused("lint", filled("train", place), "--run", "anomaly")


@pytest.mark.parametrize("front", ["card: model\nname: [", "- a list", "card: model\ncard: model"])
def test_broken_front_matter_is_one_line(front, place):
    (place / "card.md").write_text(f"---\n{front}\n---\n", encoding="utf-8")
    assert refused("lint", "card.md", "--run", "train").startswith("card.md: ")


@pytest.mark.parametrize("name", ["metrics.json", "model/artifact.json", "manifest.json"])
@pytest.mark.parametrize("content", ['{"scan": 3, "voxel": "a", "meta": [], "models": 7, "name": {}}', "[]", "{"])
def test_records_that_hold_something_else_are_one_line(name, content, place):
    (place / "anomaly" / name).write_text(content)
    seal(place / "anomaly")
    for words in (("model", "anomaly"), ("checklist", "metrics", "anomaly"), ("intended-use", "anomaly")):
        ended = call(*words)
        assert ended.exit_code in (0, 2), ended.output
        assert len(ended.stderr.splitlines()) == (1 if ended.exit_code else 0)
        assert "Traceback" not in ended.output


def test_nothing_is_overwritten(place):
    (place / "kept.md").write_text("mine")
    for words in (("model", "train"), ("intended-use", "train"), ("checklist", "claim", "train")):
        assert "kept.md: exists already; choose another name" in refused(*words, "--out", "kept.md")
    assert (place / "kept.md").read_text() == "mine"


def test_a_checklist_is_written_as_its_name_says(place):
    for ending in ("md", "csv", "json"):
        assert call("checklist", "claim", "anomaly", "--out", f"claim.{ending}").exit_code == 0
    assert (place / "claim.md").read_text(encoding="utf-8").startswith("# CLAIM 2024: anomaly\n")
    rows = list(csv.DictReader((place / "claim.csv").read_text(encoding="utf-8").splitlines()))
    items = json.loads((place / "claim.json").read_text(encoding="utf-8"))["items"]
    assert [row["item"] for row in rows] == [item["item"] for item in items] == [str(n) for n in range(1, 45)]
    assert [row["text"] for row in rows] == [item["text"] for item in items]
    assert "claim.pdf: ends with .pdf; expected .md, .csv or .json" in refused(
        "checklist", "claim", "anomaly", "--out", "claim.pdf"
    )


def test_an_intended_use_is_printed(place):
    ended = call("intended-use", "augment")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("# Intended use: generators of labelled scans of simulated\n")


def test_croissant_refuses_a_card_that_its_cohort_contradicts(place):
    from medgen.data.simulation import simulate

    simulate(place / "cohort", 1, seed=0, spacing=16.0)
    card = place / "cohort" / "card.md"
    about = ("--cohort", "cohort", "--url", "https://x.org", "--creator", "us", "--published", "2026-01-31")
    assert call("croissant", card, *about, "--out", "croissant.json").exit_code == 0
    assert len(json.loads((place / "croissant.json").read_text())["distribution"]) == 2
    made = {"accepted": 1, "rejected": 0, "acceptance": 1.0, "exported": 1, "artifact_sha256": "a" * 64}
    measured = {"verdict": "USE", "audit_valid": True, "shape": [9, 9, 9], "learnt_from": 3}
    for stamp, told in (("share", ""), ("internal use only", "do not publish these scans")):
        generators = {"deform": {**made, "stamp": stamp}}
        front = yaml.safe_dump({"measured": {**measured, "stamp": stamp, "generators": generators}})
        (place / "stamped.md").write_text(card.read_text().replace("---\n\n#", f"{front}---\n\n#"))
        ended = call("croissant", "stamped.md", *about)
        assert ended.exit_code == 0, ended.output
        assert told in ended.stderr
        assert bool(ended.stderr) == bool(told)
    card.write_text(card.read_text().replace("1: CSF", "1: bone"))
    assert "labels: the card says" in refused("croissant", card, *about)
