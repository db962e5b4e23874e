"""The presets of a GPU fit into its memory and compile into one graph, as far as that is known without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.errors import ConfigError
from medgen.pipelines.bench import presets
from medgen.system.files import read_json


@pytest.mark.parametrize("family", presets.FAMILIES)
@pytest.mark.parametrize("case", presets.CASES, ids=lambda case: case[0])
def test_a_step_fits_into_the_machine(family: str, case: tuple[str, int, int, int]) -> None:
    found = presets.measured(family, *case)
    # 128³ in batches of two under 24 GB, 256³ one by one under 80.
    assert 0 < found.kept_gib < found.peak_gib < found.limit_gib * 1e9 / 2**30


@pytest.mark.parametrize("family", presets.FAMILIES)
def test_a_loss_is_one_graph(family: str) -> None:
    found = presets.graph_breaks(family)
    assert "all" in found
    assert not any(found.values())


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_graph_that_breaks_is_noticed() -> None:
    # It draws the number of its cuboids on the CPU.
    assert presets.graph_breaks("cevae")["all"]


def test_a_size_is_measured_in_the_precision_and_with_the_widths_that_it_gives() -> None:
    settings, training = presets.settings_under("vae", "gpu", 32)
    assert settings.shape == (32, 32, 32)
    assert (settings.model_dump()["widths"], training["precision"]) == ((64, 128), "bf16")


def test_the_page_has_a_row_for_every_family_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "CASES", (("gpu", 32, 2, 24), ("gpu-large", 32, 1, 0)))
    summary = presets.run(tmp_path, families=["context"])
    kept = read_json(tmp_path / "gpu.json")
    assert [item["size"] for item in kept["presets"]] == ["gpu", "gpu-large"]
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for item in kept["presets"]:
        assert f"| `context` | `{item['size']}` | 32³ | {item['batch']} |" in page
        assert f"{item['peak_gib']:.2f}" in page
    assert "**No GPU was used.**" in page
    assert "| `context` | all | 0 |  |" in page
    # Nothing fits into a machine without memory.
    assert summary.exit_code == 1
    with pytest.raises(ConfigError, match="no configuration train/nothing"):
        presets.run(tmp_path, families=["nothing"])
