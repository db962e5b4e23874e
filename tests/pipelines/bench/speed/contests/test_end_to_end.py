"""Runs in processes of their own: what they cost, and what their journals say of their stages."""

from __future__ import annotations

import json

from medgen.pipelines.bench.speed.contests import end_to_end


def test_stages_are_the_children_of_the_run(tmp_path):
    lines = [
        {"kind": "start", "run": "r", "name": "anomaly", "parent": None, "time": 1000},
        {"kind": "start", "run": "a", "name": "train", "parent": "r", "time": 2000},
        {"kind": "start", "run": "b", "name": "train fold 1", "parent": "a", "time": 2100},
        {"kind": "end", "run": "b", "status": "FINISHED", "time": 3000},
        {"kind": "end", "run": "a", "status": "FINISHED", "time": 3500},
        {"kind": "metrics", "run": "r", "values": {}, "time": 3600},
        {"kind": "end", "run": "r", "status": "FINISHED", "time": 4000},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert end_to_end.stages_of(tmp_path) == {"train": 1.5}
