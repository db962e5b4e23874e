"""The benchmark of families on a tiny cohort: table, cells that are kept, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError
from medgen.pipelines.bench import families, family_measures
from medgen.training.peak_memory import StepMemory

TINY = [
    "preprocess={shape: [16, 24, 16], spacing: [12, 10, 12], center_on: foreground}",
    "model={family: vae, widths: [16, 16], latent: 2, codes: [[4, 2]]}",
    "training={steps: 3, batch_size: 2}",
    "device=cpu",
    "workers=1",
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "cohort"
    simulate(folder, n=12, seed=0, spacing=14.0)
    return folder


def test_cells_are_kept_and_the_table_holds_them(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_JUDGE_STEPS", 4)
    monkeypatch.setattr(families, "step_memory", lambda *_: StepMemory(0, 3 << 20, 1))
    ask = {"data": cohort, "families": ["vae"], "seeds": [0, 1], "overrides": TINY}
    summary = families.run(tmp_path / "out", **ask)
    cells = json.loads((tmp_path / "out" / "families.json").read_text())["cells"]
    assert [cell["method"] for cell in cells] == ["real", "pca-12", "pca-24", "pca-64", "vae"] * 2
    assert all(cell["training"] + cell["test"] == 12 for cell in cells)
    text = (tmp_path / "out" / "families.md").read_text()
    assert text in summary.lines
    own = [cell for cell in cells if cell["method"] == "vae"]
    assert (
        f"| vae | mean | {own[0]['training']} + {own[0]['test']} | {(own[0]['psnr'] + own[1]['psnr']) / 2:.2f}" in text
    )
    assert all(0 < cell["nearest"] < 1 and cell["ap"] > cell["prevalence"] > 0 for cell in own)
    # Not computed again: nothing is prepared or trained.
    monkeypatch.setattr(families, "read_scans", None)
    assert families.run(tmp_path / "out", **ask).lines == summary.lines
    with pytest.raises(TypeError):
        families.run(tmp_path / "out", **{**ask, "seeds": [2]})


@pytest.mark.parametrize(
    ("model", "empty"),
    [
        ("{family: flow, widths: [16], style: 2}", {"psnr", "ap"}),
        ("{family: context, widths: [16]}", {"kid", "coverage", "nearest", "dice"}),
    ],
)
def test_what_a_family_does_not_offer_is_empty(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, empty: set[str]
) -> None:
    monkeypatch.setattr(families, "_JUDGE_STEPS", 4)
    name = model.split(",", maxsplit=1)[0].rsplit(maxsplit=1)[-1]
    own = [TINY[0], f"model={model}", *TINY[2:]]
    families.run(tmp_path, data=cohort, families=[name], seeds=[0], overrides=own)
    cell = json.loads((tmp_path / "families.json").read_text())["cells"][-1]
    missing = {key for key in (*family_measures.RECONSTRUCTION, *family_measures.SAMPLES, "ap") if cell[key] is None}
    assert empty <= missing
    assert ("dice" in missing) == (name != "flow")
    assert cell["mebibytes"] > 0


def test_scans_without_masks_do_not_take_the_judge_away(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "_JUDGE_STEPS", 2)
    monkeypatch.setattr(families, "step_memory", lambda *_: StepMemory(0, 3 << 20, 1))
    copy = shutil.copytree(cohort, tmp_path / "cohort")
    table = copy / "manifest.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows[:3]:
        row["mask"] = ""
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    families.run(tmp_path / "out", data=copy, families=["vae"], seeds=[0], overrides=TINY)
    cell = json.loads((tmp_path / "out" / "families.json").read_text())["cells"][-1]
    assert cell["training"] + cell["test"] == 9
    assert cell["nearest"] > 0


def test_options_of_sampling_are_heeded(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_JUDGE_STEPS", 2)
    monkeypatch.setattr(families, "step_memory", lambda *_: StepMemory(0, 3 << 20, 1))
    found = []
    for options in ("{}", "{temperature: 0.01}"):
        own = [*TINY, f"sampling={options}"]
        families.run(tmp_path, data=cohort, families=["vae"], seeds=[0], overrides=own)
        found.append(json.loads((tmp_path / "families.json").read_text())["cells"][-1])
    assert found[0]["psnr"] == found[1]["psnr"]
    assert found[0]["nearest"] < found[1]["nearest"]


def test_seconds_are_turned_into_steps(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_JUDGE_STEPS", 2)
    monkeypatch.setattr(families, "step_memory", lambda *_: StepMemory(0, 3 << 20, 1))
    clock, real = [0.0], families.fit

    def slow(model, train, training, **more):
        # Two seconds to begin with, half a second for each step.
        clock[0] += 2 + training.steps / 2
        return real(model, train, training.model_copy(update={"steps": 2}), **more)

    monkeypatch.setattr(families, "fit", slow)
    monkeypatch.setattr(families.time, "process_time", lambda: clock[0])
    families.run(tmp_path, data=cohort, families=["vae"], seeds=[0], seconds=32, overrides=TINY)
    cell = json.loads((tmp_path / "families.json").read_text())["cells"][-1]
    assert (cell["steps"], cell["seconds"]) == (60, 32.0)


def test_a_blob_is_found_and_a_copy_is_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    train, other = torch.rand((4, 1, 8, 8, 8), generator=generator), torch.rand((1, 1, 8, 8, 8), generator=generator)
    near = family_measures.nearest(torch.cat([2 * train[:1] + 1, other]), train)
    assert near[0] == pytest.approx(1, abs=1e-5)
    assert near[1] == pytest.approx(max(np.corrcoef(other.flatten(), scan.flatten())[0, 1] for scan in train), abs=1e-5)


def test_families_without_a_configuration_and_small_cohorts_are_refused(tmp_path: Path) -> None:
    simulate(tmp_path / "cohort", n=3, seed=0, spacing=16.0)
    ask = {"data": tmp_path / "cohort", "seeds": [0]}
    with pytest.raises(ConfigError, match=r"expected some of .*'vae'.*, found none"):
        families.run(tmp_path, families=[], **ask)
    with pytest.raises(ConfigError, match=r"expected some of .*'vae'.*, found 'nothing'"):
        families.run(tmp_path, families=["vae", "nothing"], **ask)
    with pytest.raises(DataError, match="3 subjects; expected at least 8"):
        families.run(tmp_path, families=["vae"], overrides=TINY, **ask)
