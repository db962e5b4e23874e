from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medgen.anomaly.calibration import p_value
from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.evaluation.leverage import leverage_of
from medgen.anomaly.evaluation.measure import HEALTHY, Measurement
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.config import load_config
from medgen.pipelines.anomaly.config import AnomalyRunConfig

TINY = Path(__file__).parents[3] / "configs" / "tiny" / "anomaly.yaml"
NOTHING = np.zeros((1, 1, 1), dtype=bool)


def scan(kind, hottest, hot_in_truth, threshold):
    flags = (int(hottest > threshold), 1, int(hot_in_truth > threshold))
    return Measurement(
        "c", "s", kind, 5.0, 1.0, NOTHING, NOTHING[0, 0], {}, {"max": hottest}, {"max": 0.5}, hot_in_truth, flags
    )


def example(outlier=5.89, target=0.05):
    """19 subjects, two scans of the last, whose hottest voxel is far above the others'; the next one is at 4.4."""
    maxima = np.append(np.linspace(3.0, 4.4, 18), outlier)
    subjects = [f"s{number:02d}" for number in range(19)] + ["s18"]
    cases = [f"case-{number:02d}" for number in range(20)]
    threshold = float(np.sort(maxima)[-1])
    found = Calibration(
        np.zeros(19, dtype=np.int64), {"max": maxima}, threshold, HealthyCandidates.of([[4.0]] * 19, subjects[:19])
    )
    scans = [scan("blob", 6.0, value, threshold) for value in (4.3, 4.5, 5.0, 6.0)]
    scans += [scan(HEALTHY, value, -np.inf, threshold) for value in (3.0, 4.6)]
    return leverage_of(found, subjects, cases, target, scans)


def test_the_calibration_without_the_subject_is_that_of_the_others():
    item = example()
    assert (item.subject, item.cases) == ("s18", ("case-18", "case-19"))
    assert (item.hottest, item.next_hottest, item.threshold) == (5.89, 4.4, 5.89)
    # 18 subjects certify 1/19 at best, so 5 % becomes 5.3 %.
    assert item.target_without == pytest.approx(0.053)
    assert item.threshold_without == 4.4
    assert p_value(np.linspace(3.0, 4.4, 18), 4.41) <= item.target_without
    assert (item.found, item.found_without, item.implanted) == (1, 3, 4)
    assert (item.healthy_without, item.healthy) == (1, 2)
    assert item.decides


def test_no_subject_decides_alone_where_none_is_an_outlier():
    assert not example(outlier=4.5).decides


def test_every_number_of_the_sentence_is_a_field():
    item = example()
    for change, words in (
        ({"subject": "s07", "cases": ("s07",)}, "alone: s07 has a voxel of z = 5.89"),
        ({"subject": "s07"}, "alone: s07 ("),
        ({"hottest": 7.125}, "a voxel of z = 7.12"),
        ({"next_hottest": 4.01}, "the next subject 4.01"),
        ({"threshold_without": 4.2}, "would be 4.20 (at 5.3 %)"),
        ({"threshold": 6.5}, "instead of 6.50"),
        ({"found_without": 2}, "by 2 instead of 1 of 4 implants"),
        ({"healthy_without": 0}, "by 0 of 2 healthy test scans"),
        ({"target_without": 0.05}, "would be 4.40 instead"),
    ):
        assert words not in item.words
        assert words in replace(item, **change).words


def test_the_advice_can_be_typed_as_it_stands():
    for cases in (("case-18", "case-19"), ("1125",), ("007", "1e3"), ("it's", "a b")):
        *overrides, flag = shlex.split(replace(example(), cases=cases).overrides)
        assert flag == "--resume"
        settings = load_config(AnomalyRunConfig, TINY, [*overrides, "data=cohort"])
        assert settings.exclude == cases
    assert load_config(AnomalyRunConfig, TINY, ["exclude=[1125]", "data=cohort"]).exclude == ("1125",)
    assert settings.anomaly.calibration.target_fpr == 0.053
