"""The painting benchmark on a tiny cohort: tables, JSON and picture, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError
from medgen.pipelines.bench import painting

TINY = [
    "preprocess.shape=[16,24,16]",
    "preprocess.spacing=[12,10,12]",
    "model={family: flow, widths: [16], style: 2}",
    "sampling={solver_steps: 2}",
    "training={steps: 3, batch_size: 2}",
]


@pytest.mark.slow
def test_tables_hold_what_the_json_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "_JUDGE_STEPS", 5)
    simulate(tmp_path / "cohort", n=16, seed=0, spacing=8.0)
    summary = painting.run(tmp_path / "out", data=tmp_path / "cohort", seeds=[1], overrides=TINY)
    found = json.loads((tmp_path / "out" / "painting.json").read_text())
    (seed,) = found["seeds"]
    assert seed["training"] + seed["test"] == 16
    assert {own["name"] for own in seed["real"]} >= {"kid", "coverage", "ms_ssim"}
    text = (tmp_path / "out" / "painting.md").read_text()
    assert text in summary.lines
    assert f"{seed['detail'][0]:.4f}" in text
    assert f"{seed['dice'][1]:.3f}" in text
    assert f"{seed['nats'][0]:.3f} ± {seed['nats'][1]:.3f}" in text
    assert seed["nats"][1] > 0
    assert (tmp_path / "out" / "painting-1.png").read_bytes()[:4] == b"\x89PNG"


def test_other_families_and_small_cohorts_are_refused(tmp_path: Path) -> None:
    simulate(tmp_path / "cohort", n=3, seed=0, spacing=16.0)
    with pytest.raises(ConfigError, match="expected flow, found 'spade'"):
        painting.run(tmp_path, data=tmp_path / "cohort", seeds=[0], overrides=["model={family: spade}"])
    with pytest.raises(DataError, match="3 subjects with masks; expected at least 8"):
        painting.run(tmp_path, data=tmp_path / "cohort", seeds=[0])
