"""What is said of a detector follows the detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from medgen.anomaly.artifact import from_artifact
from medgen.anomaly.evaluation.artefacts import ArtefactsConfig
from medgen.data.cases import Case, Manifest
from medgen.models.artifact import TrainedModel
from medgen.report.methods import anomaly
from medgen.report.methods.text import MethodsText
from tests.builders.noise_detector import save_noise_detector


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = save_noise_detector(tmp_path_factory.mktemp("model") / "model")
    return from_artifact(TrainedModel.load(folder), folder)


def told(tell, *arguments) -> str:
    text = MethodsText("Methods")
    tell(text, *arguments)
    return text.markdown


def changed(detector, **groups):
    """The detector with other settings of groups."""
    new = {name: getattr(detector.config, name).model_copy(update=values) for name, values in groups.items()}
    return replace(detector, config=detector.config.model_copy(update=new))


def test_the_calibration_is_told_with_its_numbers(detector):
    said = told(anomaly.calibration, detector)
    n = detector.calibration.healthy.n
    assert f"{n} healthy subjects" in said
    assert f"(z {detector.calibration.threshold:.2f})" in said
    assert f"`{detector.config.scan_score}`" in said
    assert "Vovk" in said
    other = told(
        anomaly.calibration,
        changed(detector, calibration={"target_fpr": 0.33}, findings={"false_findings": 1.75, "separation_mm": 22.0}),
    )
    for words in ("at 33 %", "at most 1.75 expected false findings", "at least 22 mm apart"):
        assert words in other
        assert words not in said


def test_the_gate_is_told_where_there_is_one(detector):
    assert "No scan was refused" in told(anomaly.calibration, replace(detector, gate=None))
    gated = replace(changed(detector, gate={"margin": 4.5}), gate=SimpleNamespace())
    assert "more than 4.5 standard deviations" in told(anomaly.calibration, gated)


def test_the_heatmap_is_told_with_its_scores_and_their_sources(detector):
    said = told(anomaly.heatmap, changed(detector, fusion={"channels": ("residual",)}))
    assert "Score `residual`" in said
    assert "Baur et al." in said
    other = told(anomaly.heatmap, changed(detector, fusion={"channels": ("zscore",)}, normative={"prior": 31.0}))
    assert "Score `zscore`" in other
    assert "Baur" not in other
    assert "shrunk as by 31 scans" in other
    assert "chosen on" not in told(anomaly.heatmap, replace(detector, chosen=""))
    assert "chosen on" in told(anomaly.heatmap, replace(detector, chosen="fused"))


def test_who_took_part(tmp_path):
    cases = tuple(Case(id=f"c{number}", subject=f"s{number // 2}", images=(Path("x"),)) for number in range(6))
    parts = {"development": Manifest("d", tmp_path, cases[:4]), "test": Manifest("t", tmp_path, cases[4:])}
    said = told(anomaly.subjects, parts, 3, ("c1",), 2)
    assert "development: 4 scans of 2 subjects; test: 2 scans of 1 subject" in said
    assert "3 folds" in said
    assert "1 development scan took no part" in said
    assert "2 scans could not be prepared" in said
    plain = told(anomaly.subjects, parts, 5, (), 0)
    assert "5 folds" in plain
    assert "took no part" not in plain
    assert "could not" not in plain


def test_a_scoring_says_how_many_were_refused_and_by_which_model():
    said = told(anomaly.scored, 3, 2, 1, "abcdef0123456789ff", True)
    assert "3 scans were scored" in said
    assert "abcdef0123456789)" in said
    assert "the gate refused 2 and 1 could not be read" in said
    assert "without p-values" in said
    alone = told(anomaly.scored, 1, 0, 0, "ab", False)
    assert "1 scan was scored" in alone
    assert "refused" not in alone


def test_faulty_copies_are_told_by_number_and_kind():
    said = told(anomaly.artefacts, ArtefactsConfig(per_scan=1), ["ghost", "spike"])
    assert "1 faulty copy of each test scan (ghost, spike)" in said
