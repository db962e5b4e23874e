"""Scans scored in shards: every file as if they had been scored one after the other, and a run that verifies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medgen.audit.verify import verify_run
from medgen.errors import ConfigError
from medgen.pipelines.anomaly import score as scoring
from medgen.pipelines.cli.app import app
from medgen.runs.cases.map_cases import Spread
from medgen.runs.cases.resources import Resources
from medgen.runs.journal import entries
from tests.builders.run_outputs import undeclared

# Workers import torch and draw pages anew; on a machine with other work that takes minutes.
pytestmark = pytest.mark.timeout(900)
CUBE = (12, 12, 12)


@pytest.fixture(scope="module")
def scans(write_cubes: Callable[[int, float], list[Path]]) -> list[Path]:
    """Scans of noise, of which one is damaged; the later ones have a brighter cube."""
    paths = write_cubes(5, 0.3)
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    return paths


@pytest.fixture(scope="module")
def whole(model: Path, scans: list[Path], runs: Path) -> tuple[Path, tuple[str, ...]]:
    """A scoring of all scans, one after the other."""
    summary = scoring.score(scans, model=model, out=runs / "in-turn", device="cpu", viewers="none", export=["bids"])
    assert summary.exit_code == 1
    return runs / "in-turn", summary.lines


def content(out: Path) -> dict[str, bytes]:
    """Every file but those that say when, where and as which run; of the pages what is not the run's id."""
    apart = re.compile(
        r"^(journal|outputs\.json|\.medgen|checkpoints/|config\.yaml|environment|code\.diff|report\.html|methods)"
    )
    found = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not apart.search(name)}


@pytest.mark.parametrize(
    "spread",
    [
        Spread("local", 2, 3),
        pytest.param(Spread("slurm", 2, 2, Resources(submit_to="local")), marks=pytest.mark.slow),
        pytest.param(Spread("dask"), marks=pytest.mark.slow),
    ],
    ids=["local", "slurm", "dask"],
)
def test_every_file_is_that_of_a_scoring_in_turn(
    spread: Spread, whole: tuple[Path, tuple[str, ...]], model: Path, scans: list[Path], runs: Path
) -> None:
    out = runs / f"spread-{spread.executor}-{spread.shards}"
    summary = scoring.score(scans, model=model, out=out, device="cpu", viewers="none", export=["bids"], spread=spread)
    before, after = content(whole[0]), content(out)
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == []
    assert [line for line in summary.lines if line.startswith("scan")] == [
        line for line in whole[1] if line.startswith("scan")
    ]
    assert undeclared(out, scoring.PIPELINE) == []
    assert not (out / "checkpoints").exists()
    assert verify_run(out, model=model, data=[scans[0].parent]).problems == ()
    said = [entry for entry, _ in entries(out / "journal.jsonl") if "shard.cases" in entry.get("values", {})]
    assert sum(entry["values"]["shard.cases"] for entry in said) == 5
    assert len({entry["step"] for entry in said}) == len(said) > 1


def test_a_scoring_that_was_interrupted_scores_only_what_is_missing(
    whole: tuple[Path, tuple[str, ...]], model: Path, scans: list[Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, spread = runs / "spread-stopped", Spread("local", 1, 5)
    told = {"model": model, "out": out, "device": "cpu", "viewers": "none", "export": ["bids"], "spread": spread}
    from medgen.pipelines.anomaly.scored.done_scans import DoneScans

    real = DoneScans.take

    def stopped(self: DoneScans, kept: Any) -> None:
        real(self, kept)
        if kept.case.name == "scan-01":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DoneScans, "take", stopped)
        with pytest.raises(KeyboardInterrupt):
            scoring.score(scans, **told)
    kept = out / "checkpoints" / "shards"
    before = {path.name for path in kept.glob("shard-*")}
    assert {"shard-00000", "shard-00001"} <= before < {f"shard-{n:05d}" for n in range(5)}
    with pytest.raises(ConfigError, match=r"divided into 5 shard\(s\), not 2"):
        scoring.score(scans, **{**told, "spread": Spread("local", 1, 2)}, resume=True)
    scoring.score(scans, **told, resume=True)
    assert content(out) == content(whole[0])
    begun = [
        entry["values"]["shard.begun"]
        for entry, _ in entries(out / "journal.jsonl")
        if "shard.begun" in entry.get("values", {})
    ]
    assert begun[-5:] == [0.0 if f"shard-{n:05d}" in before else 1.0 for n in range(5)]
    assert verify_run(out, model=model).problems == ()


def test_one_scan_is_not_spread_and_workers_need_something_to_do(
    scans: list[Path], model: Path, tmp_path: Path
) -> None:
    common = ["anomaly", "score", "--model", str(model), "--out", str(tmp_path / "x")]
    runner = CliRunner()
    for more, words in (
        ([str(scans[0]), "--executor", "local"], "one scan is not spread"),
        ([*map(str, scans), "--workers", "2"], "add --executor or --shards"),
        ([*map(str, scans), "--executor", "lokal"], "did you mean 'local'"),
        ([*map(str, scans), "--executor", "slurm"], "there is no sbatch here"),
    ):
        done = runner.invoke(app, [*common, *more])
        assert done.exit_code != 0
        assert words in f"{done.output} {done.exception}"
    assert not (tmp_path / "x").exists()
    planned = runner.invoke(app, [*common, *map(str, scans), "--shards", "2", "--dry-run", "--json"])
    assert "5 case(s) in 2 shard(s)" in json.loads(planned.stdout)["plan"][0]
    assert not (tmp_path / "x").exists()
