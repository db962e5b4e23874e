"""``size=`` on the command line: planned with its reason, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medgen.data.simulation import simulate
from medgen.pipelines.cli import app
from medgen.runs.machine_sizes import said

TINY = Path(__file__).parents[3] / "configs" / "tiny" / "train_vae.yaml"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["medgen", "train", str(TINY), *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return int(str(ended.value.code or 0))


def test_the_plan_says_which_size_was_chosen_and_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    simulate(tmp_path / "cohort", n=4, seed=0, spacing=16.0)
    places = (f"data={tmp_path / 'cohort'}", f"out={tmp_path / 'run'}")
    given = (*places, "preprocess.shape=[64, 64, 64]", "preprocess.spacing=[4, 4, 4]", "--dry-run", "--device", "cpu")
    assert call(monkeypatch, "size=laptop", *given) == 0
    planned = capsys.readouterr().out
    assert said("laptop") in planned
    assert "grid: 48 x 48 x 48 voxels of (5.333, 5.333, 5.333) mm" in planned
    assert call(monkeypatch, *given) == 0
    plain = capsys.readouterr().out
    assert "size:" not in plain
    assert "grid: 64 x 64 x 64 voxels" in plain


def test_an_unknown_size_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "size=cluster") == 2
    found = capsys.readouterr().err.strip()
    assert found.endswith("size: expected laptop, workstation, gpu or gpu-large, found 'cluster'")
    assert "\n" not in found
