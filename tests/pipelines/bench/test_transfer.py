"""The transfer benchmark on a tiny cohort: table, cells that are kept, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import AuditError, ConfigError
from medgen.pipelines import train
from medgen.pipelines.bench import transfer
from medgen.pipelines.bench.cells import shipped
from medgen.training.config import InitConfig

TINY = [
    "preprocess={shape: [16, 24, 16], spacing: [12, 10, 12], center_on: foreground}",
    "model={family: vae, widths: [16, 16], latent: 2, codes: [[4, 2]]}",
    "training={steps: 2, batch_size: 2}",
    "device=cpu",
    "workers=1",
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    for name, seed in (("target", 0), ("other", 1)):
        simulate(folder / name, n=12, seed=seed, spacing=16.0)
        own = [*TINY, f"data={folder / name}", f"out={folder / ('run-' + name)}"]
        config = load_config(train.TrainRunConfig, shipped("vae"), own)
        train.run(config)
    return folder


def test_gains_are_over_random_weights_and_cells_are_kept(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = InitConfig(artifact=places / "run-other" / "model", other_people=True)
    ask = {"data": places / "target", "family": "vae", "scans": [2, 3], "seeds": [0, 1], "overrides": TINY}
    summary = transfer.run(tmp_path / "out", sources={"other": source}, **ask)
    cells = json.loads((tmp_path / "out" / "transfer.json").read_text())["cells"]
    assert [(cell["start"], cell["scans"], cell["seed"]) for cell in cells] == [
        (start, scans, seed) for seed in (0, 1) for scans in (2, 3) for start in ("scratch", "other")
    ]
    by = {(cell["start"], cell["scans"], cell["seed"]): cell for cell in cells}
    gains = [by["other", 2, seed]["psnr"] - by["scratch", 2, seed]["psnr"] for seed in (0, 1)]
    losses = [by["scratch", 2, seed]["loss"] - by["other", 2, seed]["loss"] for seed in (0, 1)]
    assert f"[{gains[0]:+.2f}, {gains[1]:+.2f}]" in summary.lines[0]
    assert f"[{losses[0]:+.4f}, {losses[1]:+.4f}]" in summary.lines[0]
    monkeypatch.setattr(transfer, "read_scans", None)
    assert transfer.run(tmp_path / "out", sources={"other": source}, **ask).lines == summary.lines
    # Another source under the same name is another cell.
    own = InitConfig(artifact=places / "run-target" / "model", other_people=True)
    with pytest.raises(TypeError):
        transfer.run(tmp_path / "out", sources={"other": own}, **ask)


def test_a_source_that_knows_the_held_out_is_refused(places: Path, tmp_path: Path) -> None:
    source = InitConfig(artifact=places / "run-target" / "model", other_people=True)
    with pytest.raises(AuditError, match=r"the very file of case .* held out for the benchmark"):
        transfer.run(
            tmp_path,
            data=places / "target",
            family="vae",
            sources={"own": source},
            scans=[2],
            seeds=[0],
            overrides=TINY,
        )


def test_sources_are_a_path_or_settings() -> None:
    found = transfer.read_sources(["a=x/model", "b={artifact: y, statistics: source}"])
    assert found == {"a": InitConfig(artifact="x/model"), "b": InitConfig(artifact="y", statistics="source")}
    for wrong in ("x/model", "scratch=x", "=x"):
        with pytest.raises(ConfigError, match="expected NAME=ARTIFACT"):
            transfer.read_sources([wrong])
    with pytest.raises(ConfigError, match="unknown key"):
        transfer.read_sources(["a={artifact: y, statistic: source}"])
