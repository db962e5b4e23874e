"""The first screen of a scored scan answers what was scored, by what, and what next."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from medgen.pipelines.anomaly.found_in_run import found_in_its_run
from medgen.report.anomaly.scored.opening import Scorer, next_steps, scan_facts
from medgen.volume import Grid, Volume

GRID = Grid((8, 9, 10), np.diag([1.0, 1.5, 2.0, 1.0]))


def result(**changed):
    return SimpleNamespace(
        **{"contrasts": ("T1",), "findings": [], "unlisted": [], "p_values": {"max": 0.172}, **changed}
    )


class Doubts(SimpleNamespace):
    def __bool__(self):
        return bool(self.why)


def scored(**changed):
    found = result(doubts=Doubts(refused=(), why=""), **changed)
    return SimpleNamespace(scan=Volume(np.zeros((1, *GRID.shape), dtype=np.float32), GRID), result=found)


def detector(healthy=28, gate="some gate"):
    share = SimpleNamespace(estimate=0.25, n=healthy)
    candidates = SimpleNamespace(share_with_finding=lambda _: share)
    return SimpleNamespace(
        calibration=SimpleNamespace(maxima=np.zeros(healthy), healthy=candidates),
        gate=gate,
        config=SimpleNamespace(findings=SimpleNamespace(false_findings=0.5)),
    )


def test_facts_say_what_was_scored_and_against_whom():
    facts = scan_facts(scored(), detector(), Scorer("OASIS"))
    assert facts["scan"] == "8 x 9 x 10 voxels of 1 x 1.5 x 2 mm"
    assert facts["compared with"] == "28 healthy subjects of OASIS"
    assert facts["is it such a scan"] == "yes: it passes the gate"
    assert facts["how sure"] == "p (max) = 0.172; 7 of 28 healthy have findings"
    assert scan_facts(scored(contrasts=("T1", "FLAIR")), detector(), Scorer())["scan"].endswith("mm, T1, FLAIR")
    assert scan_facts(scored(), detector(9), Scorer())["compared with"] == "9 healthy subjects"
    assert scan_facts(scored(), detector(gate=None), Scorer())["is it such a scan"].startswith("not asked")


@pytest.mark.parametrize(
    ("doubts", "fact", "step"),
    [
        (Doubts(refused=("noise too high",), why="outside the cohort"), "no: the gate refuses it", "Use a model of"),
        (Doubts(refused=(), why="likely motion"), "in doubt: likely motion", "Look at the scan for the artefact"),
    ],
)
def test_a_doubt_changes_facts_and_next_steps(doubts, fact, step):
    entry = scored()
    entry.result.doubts = doubts
    assert scan_facts(entry, detector(), Scorer())["is it such a scan"] == fact
    assert next_steps(entry.result, Scorer())[0].startswith(step)
    assert "how sure" not in scan_facts(entry, detector(), Scorer())


def test_next_steps_follow_the_findings_and_what_the_model_may_miss():
    entry = scored()
    assert next_steps(entry.result, Scorer()) == [
        "Read the scan as always: no finding does not show that it is healthy."
    ]
    entry.result.findings = [1, 2]
    assert next_steps(entry.result, Scorer())[0].startswith("Look at each of 2 findings")
    entry.result.findings, entry.result.unlisted = [], [1]
    assert next_steps(entry.result, Scorer())[0].startswith("Look at the hot place")
    assert next_steps(entry.result, Scorer("simulated"))[0].startswith("Practice only: ")
    assert next_steps(entry.result, replace(Scorer(), finds="It misses some."))[-1] == "It misses some."


def test_what_a_model_found_is_read_beside_it(tmp_path):
    (tmp_path / "model").mkdir()
    assert found_in_its_run(tmp_path / "model", 0.5) == ""
    shares = [{"level": 0.5, "found": 8}, {"level": 1.0, "found": 10}]
    groups = [{"by": "kind", "scans": 2, "shares": shares}, {"by": "all", "scans": 24, "shares": shares}]
    (tmp_path / "metrics.json").write_text(json.dumps({"findings": {"groups": groups}}))
    assert "16 of 24 implanted anomalies got no finding" in found_in_its_run(tmp_path / "model", 0.5)
    assert "14 of 24" in found_in_its_run(tmp_path / "model", 1.0)
    assert found_in_its_run(tmp_path / "model", 0.7) == ""
    # A number that somebody changed is not told.
    (tmp_path / "outputs.json").write_text(json.dumps({"files": {"metrics.json": "0" * 64}}))
    assert found_in_its_run(tmp_path / "model", 0.5) == ""
