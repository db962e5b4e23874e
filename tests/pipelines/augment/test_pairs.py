"""A pair by its full name, from the configuration to a scan that is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgen.audit.replay import replay
from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.pipelines.augment import run as augment
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.cli import app
from medgen.synthesis import load_backend
from medgen.synthesis.value.arms import Arm

TINY = Path(__file__).parents[3] / "configs" / "tiny" / "augment.yaml"
# The one pair that needs no training for its scans to pass a filter.
NAME = "deform+parent"
QUICK = "{pairs: 6, registration: {iterations: 4, spacing: 6.0}}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    simulate(folder / "cohort", n=8, seed=0, spacing=8.0)
    given = [
        f"data={folder / 'cohort'}",
        f"out={folder / 'run'}",
        "device=cpu",
        "generators.deform=null",
        "generators.joint=null",
        f"generators.{NAME}={{labels: {QUICK}}}",
        "consensus.members=0",
        "fidelity.enabled=false",
        "value.enabled=false",
        "scans=2",
    ]
    augment.run(load_config(AugmentRunConfig, TINY, given))
    return folder / "run"


def test_everything_bears_the_name_of_the_pair(finished: Path) -> None:
    assert load_backend(finished / "model" / NAME, "cpu").name == NAME
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["generators"]) == {NAME}
    assert metrics["audit"]["backends"][NAME]["stamp"] == "internal use only"
    assert "transformed patient scans" in metrics["audit"]["backends"][NAME]["reason"]
    config = load_config(
        AugmentRunConfig,
        TINY,
        ["generators.deform=null", f"generators.{NAME}={{}}", f"value.arms=[standard, standard+{NAME}]"],
    )
    assert Arm.parse(config.value.arms[1]).source == NAME


def test_a_scan_of_a_pair_is_made_again(finished: Path, tmp_path: Path) -> None:
    records = sorted((finished / "synthetic" / "provenance").glob("syn-*.json"))
    assert records
    record = json.loads(records[0].read_text())
    assert (record["facts"]["labels_from"], record["facts"]["painted_by"]) == ("deform", "parent")
    assert record["parents"]
    assert all(item.identical for item in replay(finished / "synthetic", tmp_path / "again", device="cpu"))


def test_an_unknown_pair_ends_with_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["medgen", "augment", "run", str(TINY), "generators.shape+water={}", "--dry-run"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "unknown key 'generators.shape+water'; did you mean 'shape+spade'?" in said
    assert "\n" not in said
