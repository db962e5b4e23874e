"""The value benchmark: gains over repetitions, the segmenter that is not ours, and the whole command, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.data.simulation import simulate
from medgen.errors import ConfigError, TrainingError
from medgen.pipelines.bench import peer_segmenter, value
from medgen.pipelines.bench.peer_segmenter import pseudo_labelled, train_peer
from medgen.synthesis.filtering.pool import SyntheticSet

TINY = [
    "preprocess={shape: [16, 24, 16], spacing: [12, 10, 12], align: center, center_on: foreground}",
    "test=0.4",
    "generators={deform: {pairs: 6, registration: {spacing: 6, iterations: 4, window: 5}}}",
    "consensus={members: 0}",
    "scans=3",
    "attempts=8",
    "filter={auditor: {steps: 10}, planted: 2, agreement_percentile: 0, volume_sd: 50, intensity_sd: 100}",
    "filter.centroid_factor=50",
    "fidelity.enabled=false",
    "audit={planted: 2, bootstrap: 100}",
    "value.segmenter={channels: [4, 8], steps: 4}",
    "value.bootstrap=100",
]


def rows(gain: float, spread: float) -> list[dict]:
    """Two repetitions, two seeds and twelve subjects; repetition 0 gains ``gain - spread``, 1 ``gain + spread``."""
    rng = np.random.default_rng(0)
    level = rng.normal(0.8, 0.05, 12)
    found = []
    for part in ("validation", "test"):
        for seed in range(2):
            for subject, own in enumerate(level):
                common = {"subjects": 5, "seed": seed, "part": part, "subject": f"s{subject:02d}"}
                found.append({**common, "arm": "standard", "backend": "", "repetition": 0, "dice": own - 0.02})
                found.append({**common, "arm": "self_training", "backend": "", "repetition": 0, "dice": own})
                for backend, more in (("deform", gain), ("other", gain / 2)):
                    for repetition, sign in enumerate((-1, 1)):
                        arm = f"standard+{backend}-r{repetition}"
                        dice = own + more + sign * spread
                        said = {"arm": arm, "backend": backend, "repetition": repetition, "dice": dice}
                        found.append({**common, **said})
    return found


def test_gains_are_over_the_best_ordinary_arm_and_repetitions_are_resampled() -> None:
    steady, other = value.gains_of(rows(0.01, 0.0), "own")
    assert (steady.ordinary, steady.backend, steady.chosen, other.chosen) == ("self_training", "deform", True, False)
    assert steady.difference.estimate == pytest.approx(0.01)
    assert steady.difference.low == pytest.approx(0.01)
    wide = value.gains_of(rows(0.01, 0.05), "own")[0]
    assert wide.repetitions == pytest.approx((-0.04, 0.06))
    assert wide.difference.low < 0 < wide.difference.high
    text = value.report([{**row, "segmenter": "own"} for row in rows(0.01, 0.05)], [wide], "medgen bench value OUT")
    assert "| own | 5 | **deform** | self_training | +0.0100 [" in text
    assert "-0.0400, +0.0600 |" in text


def test_the_peer_learns_and_its_randomness_is_its_seed() -> None:
    centres = torch.rand((4, 3), generator=torch.Generator().manual_seed(0)) * 6 + 9
    axes = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    labels = ((axes[None] - centres[:, :, None, None, None]).norm(dim=1, keepdim=True) < 6).to(torch.uint8) * 3
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1))
    real = SyntheticSet(labels.float() + 0.3 * noise, labels)
    trained = train_peer(real, None, (3,), 0, steps=24, device="cpu")
    again = train_peer(real, None, (3,), 0, steps=24, device="cpu")
    assert torch.equal(trained.probabilities(real.images), again.probabilities(real.images))
    said = pseudo_labelled(trained, real.images)
    both = 2 * ((said.labels == 3) & (labels == 3)).sum() / ((said.labels == 3).sum() + (labels == 3).sum())
    assert both > 0.6
    misled = train_peer(real, SyntheticSet(real.images, 3 - labels), (3,), 0, steps=24, device="cpu")
    assert (
        misled.probabilities(real.images)[:, 1][labels[:, 0] == 0].mean()
        > trained.probabilities(real.images)[:, 1][labels[:, 0] == 0].mean()
    )


def test_the_peer_refuses_scans_without_labels() -> None:
    class Bare:
        images = torch.zeros(2, 1, 8, 8, 8)
        labels = None

    with pytest.raises(TrainingError, match="expected scans with labels"):
        train_peer(Bare(), None, (1,), 0, steps=1, device="cpu")


def test_arms_that_are_not_ordinary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ordinary: expected some of .*, found 'deform'"):
        value.run(tmp_path, data=tmp_path, subjects=[5], repetitions=1, seeds=1, ordinary=["deform"])


@pytest.mark.slow
def test_the_command_makes_the_tables_and_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_segmenter, "STEPS", 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    simulate(tmp_path / "cohort", n=16, seed=0, spacing=12.0)
    ask = {"data": tmp_path / "cohort", "subjects": [4], "repetitions": 2, "seeds": 1, "ordinary": ["standard"]}
    summary = value.run(tmp_path / "out", overrides=TINY, device="cpu", **ask)
    assert "MONAI's loss and transforms, 2 steps." in summary.lines[0]
    found = json.loads((tmp_path / "out" / "value.json").read_text())
    assert {(gain["segmenter"], gain["backend"]) for gain in found["gains"]} == {("own", "deform"), ("peer", "deform")}
    assert all(len(gain["repetitions"]) == 2 for gain in found["gains"])
    first, second = (
        (tmp_path / "out" / f"n4-r{number}" / "synthetic" / "dataset.json").read_text() for number in (0, 1)
    )
    assert json.loads(first)["numTraining"] == json.loads(second)["numTraining"] == 3
    monkeypatch.setattr(value.augment, "run", None)
    monkeypatch.setattr(value, "train_peer", None)
    assert value.run(tmp_path / "out", overrides=TINY, device="cpu", **ask).lines == summary.lines
