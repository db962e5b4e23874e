"""The reconstruction benchmark on a tiny cohort: table, cells that are kept, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError
from medgen.pipelines.bench import reconstruction

TINY = [
    "preprocess={shape: [16, 24, 16], spacing: [12, 10, 12], center_on: foreground}",
    "model={family: vae, widths: [16, 16], latent: 2, codes: [[4, 2]]}",
    "training={steps: 3, batch_size: 2}",
    "device=cpu",
    "workers=1",
]


def test_cells_are_kept_and_the_table_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path / "cohort", n=12, seed=0, spacing=8.0)
    ask = {"data": tmp_path / "cohort", "families": ["vae"], "seeds": [0, 1], "overrides": TINY}
    summary = reconstruction.run(tmp_path / "out", **ask)
    cells = json.loads((tmp_path / "out" / "reconstruction.json").read_text())["cells"]
    assert [cell["method"] for cell in cells] == ["pca-12", "pca-24", "pca-64", "vae"] * 2
    assert all(cell["training"] + cell["test"] == 12 for cell in cells)
    text = (tmp_path / "out" / "reconstruction.md").read_text()
    assert text in summary.lines
    own = [cell for cell in cells if cell["method"] == "vae"]
    assert (
        f"| vae | mean | {own[0]['training']} + {own[0]['test']} | {(own[0]['psnr'] + own[1]['psnr']) / 2:.2f}" in text
    )
    # Not computed again: nothing is prepared or trained.
    monkeypatch.setattr(reconstruction, "read_scans", None)
    assert reconstruction.run(tmp_path / "out", **ask).lines == summary.lines
    with pytest.raises(TypeError):
        reconstruction.run(tmp_path / "out", **{**ask, "seeds": [2]})


def test_families_that_do_not_reconstruct_and_small_cohorts_are_refused(tmp_path: Path) -> None:
    simulate(tmp_path / "cohort", n=3, seed=0, spacing=16.0)
    ask = {"data": tmp_path / "cohort", "seeds": [0]}
    with pytest.raises(ConfigError, match=r"expected some of .*'vae'.*, found 'dae'"):
        reconstruction.run(tmp_path, families=["vae", "dae"], **ask)
    with pytest.raises(DataError, match="3 subjects; expected at least 8"):
        reconstruction.run(tmp_path, families=["vae"], overrides=TINY, **ask)
