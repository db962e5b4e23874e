"""The benchmark of artefacts on a tiny simulated cohort: what it counts adds up, and its page says it."""

from __future__ import annotations

import json

import pytest
import torch

from medgen.data.simulation import simulate
from medgen.errors import ConfigError
from medgen.implants.artefact import STRENGTHS
from medgen.implants.catalogue import artefacts
from medgen.pipelines.bench.artefacts import run

torch.set_num_threads(1)
SMALL = [
    "preprocess.shape=[16,20,16]",
    "preprocess.spacing=[10,10,10]",
    "anomaly.calibration.target_fpr=0.25",
    "anomaly.folds=2",
    "evaluation.per_scan=1",
    "evaluation.radius_mm=[20,20]",
    "anomaly.validation.radius_mm=[20,20]",
    "test=0.3",
]


def test_every_copy_is_counted_once_and_the_page_says_how(tmp_path):
    data, out = tmp_path / "cohort", tmp_path / "bench"
    simulate(data, n=6, seed=0, spacing=10.0)
    summary = run(out, data=data, cohort="simulated", acquired_mm=10.0, overrides=SMALL, progress=False)
    told = json.loads((out / "artefacts.json").read_text())
    assert {(cell["artefact"], cell["strength"]) for cell in told["cells"]} == {
        (kind, strength) for kind in artefacts() for strength in STRENGTHS
    }
    scans = told["subjects"]["test"]
    for cell in told["cells"]:
        named = round(cell["named"]["estimate"] * scans)
        assert cell["named"]["n"] == scans
        assert named + sum(cell["otherwise"].values()) <= scans
        assert cell["refused"] <= scans
    rates = told["rates"]
    assert rates["healthy development scans, by the limits of other subjects"]["n"] == told["subjects"]["development"]
    assert rates["the same with an implanted lesion"]["n"] == scans
    page = (out / "artefacts.md").read_text(encoding="utf-8")
    assert page.count("\n| bias |") == 2
    assert f"{told['limits']['bias']['limit']:.3g}" in page
    assert "--acquired-mm 10 --set preprocess.shape=[16,20,16]" in page
    total = sum(round(cell["named"]["estimate"] * scans) for cell in told["cells"])
    assert summary.lines[0] == f"{total} of {len(told['cells']) * scans} faulty copies are named"


def test_an_unknown_cohort_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected one of oasis, hippocampus, simulated, found 'brains'"):
        run(tmp_path, data=tmp_path, cohort="brains", acquired_mm=2.0, overrides=(), progress=False)
