"""The judging sentences of the anomaly reports: change the field, and the sentence must change with it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.evaluation.sensitivity import FalseFindings, Group, Sensitivity, Share
from medgen.anomaly.evaluation.summary import Summary, VoxelRow
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.findings.listing import Finding
from medgen.metrics.interval import Interval
from medgen.report.anomaly.words import (
    compared_words,
    found_kind,
    found_words,
    level_words,
    next_words,
    p_words,
    scan_words,
)


def interval(estimate, low, high, n=10):
    return Interval(estimate, low, high, n)


def row(name, ap):
    score, _, form = name.partition(" (")
    nothing = interval(0.5, 0.4, 0.6)
    return VoxelRow(name, score, form.rstrip(")") or "heat", name != "fused", ap, nothing, nothing, nothing, {})


def shares(at_half, untouched=0, level=0.5):
    found = {0.25: 5, 0.5: at_half, 1.0: 30}
    everything = [Share(key, value, interval(value / 42, 0.1, 0.9), untouched) for key, value in found.items()]
    healthy = (FalseFindings(level, interval(0.4, 0.1, 0.9), 3),)
    return Sensitivity(level, (Group("all", "all", 42, tuple(everything)),), healthy, ())


SUMMARY = Summary(
    subjects=10,
    healthy=10,
    implanted=42,
    prevalence=0.0046,
    kinds={"blob": 42},
    prevalence_by_kind={"blob": 0.0046},
    target_fpr=0.05,
    voxel=[
        row("fused", interval(0.35, 0.3, 0.4)),
        row("zscore (raw)", interval(0.05, 0.04, 0.06)),
        row("pca (z)", interval(0.1, 0.08, 0.13)),
    ],
    scan=[],
    best_raw="zscore (raw)",
    best_z="pca (z)",
    gain_raw=interval(0.3, 0.25, 0.35),
    gain_z=interval(0.25, 0.2, 0.3),
    ratio_raw=interval(7, 6, 8),
    ratio_z=interval(3.5, 3, 4),
    dice_at_threshold=interval(0.1, 0.05, 0.2),
    any_hot=interval(0.1, 0.0025, 0.445),
    findings=shares(21),
    found_family_wise=7,
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"findings": shares(20)}, "**20 of 42 implants** (0.476 [0.100, 0.900]); 5 at 0.25, 30 at 1."),
        ({"implanted": 40}, "**21 of 40 implants**"),
        ({"findings": shares(21, untouched=4)}, "Without the implants 4 of these places have one"),
        (
            {"findings": replace(shares(21), healthy=(FalseFindings(0.5, interval(0.6, 0.2, 1.1), 5),))},
            "healthy scans have 0.600 [0.200, 1.100] findings each; 5 of 10 healthy subjects have any",
        ),
        ({"target_fpr": 0.1}, "at most 10 % of healthy scans exceed anywhere"),
        ({"found_family_wise": 6}, "is passed on 6 of 42 implants"),
        ({"any_hot": interval(0.2, 0.025, 0.556)}, "and in 2 of 10 healthy subjects"),
    ],
)
def test_what_is_found_is_said_in_the_numbers_of_the_summary(change, words):
    assert words not in found_words(SUMMARY)
    assert words in found_words(replace(SUMMARY, **change))


def found(count, low, *, untouched=0):
    """A summary of 42 implants of which so many are found."""
    given = shares(count, untouched=untouched)
    group = given.groups[0]
    own = tuple(
        replace(share, share=interval(count / 42, low, 0.95)) if share.level == given.level else share
        for share in group.shares
    )
    return replace(SUMMARY, findings=replace(given, groups=(replace(group, shares=own), *given.groups[1:])))


@pytest.mark.parametrize(
    ("summary", "kind"),
    [
        (found(21, 0.3), "good"),
        (found(20, 0.3), "neutral"),
        (found(21, 0.0), "bad"),
        (found(21, 0.3, untouched=13), "bad"),
    ],
)
def test_the_headline_is_coloured_by_what_is_found(summary, kind):
    assert found_kind(summary) == kind


def test_what_to_do_next_names_the_model():
    assert "--model runs/a/model --out" in next_words("runs/a/model")


ABOVE, AROUND, BELOW = interval(0.1, 0.05, 0.2), interval(0.1, -0.1, 0.2), interval(-0.1, -0.2, -0.05)


@pytest.mark.parametrize(
    ("raw", "z", "words", "kind"),
    [
        (ABOVE, ABOVE, "**better than the best baseline**, as published and with the same z", "neutral"),
        (ABOVE, AROUND, "**not clearly** better than the best one given the same z", "neutral"),
        (AROUND, AROUND, "**No evidence**", "neutral"),
        (AROUND, ABOVE, "**No evidence**", "neutral"),
        (BELOW, AROUND, "**A simple baseline is better at ranking voxels**: zscore.", "bad"),
        (ABOVE, BELOW, "**A simple baseline is better at ranking voxels**: pca with normative z.", "bad"),
    ],
)
def test_better_is_said_only_of_intervals_that_exclude_zero(raw, z, words, kind):
    text, colour = compared_words(replace(SUMMARY, gain_raw=raw, gain_z=z))
    assert words in text
    assert colour == kind
    positive = raw.low > 0 and z.low > 0
    assert ("**better than the best baseline**" in text) == positive


FINDING = Finding(
    1, 0.2, 0.9, 5.0, 4.0, 0.05, 0.05, True, (1, 2, 3), (0.0, 0.0, 0.0), region="left central, deep", brightness=(2.5,)
)
FAINT = replace(FINDING, id=2, peak=4.2, p_max=0.2, expected_false=0.4, family_wise=False)
# 19 healthy subjects; the four hottest have one candidate above 4, the last one three.
HEALTHY = HealthyCandidates.of([[3.0]] * 15 + [[4.1], [4.2], [4.3], [4.5, 4.4, 4.3]], list(map(str, range(19))))
CALIBRATION = Calibration(np.zeros(19, dtype=np.int64), {"max": np.linspace(3, 4.5, 19)}, 4.5, HEALTHY)
CONFIG = AnomalyConfig()


def result(findings=(), p_max=0.5, p_top=0.6, name="top"):
    return SimpleNamespace(tails={}, findings=list(findings), p_values={"max": p_max, "top": p_top}, scan_score=name)


def levels(false_findings=0.5, target=0.05):
    return AnomalyConfig.model_validate(
        {"findings": {"false_findings": false_findings}, "calibration": {"target_fpr": target}}
    )


def test_the_level_is_said_with_how_it_came_out_in_the_calibration():
    text = level_words(HEALTHY, 0.5)
    assert text.startswith("Findings are listed up to 0.5 expected false findings per healthy scan.")
    rate, share = HEALTHY.rate(0.5), HEALTHY.share_with_finding(0.5)
    assert f"has {rate.estimate:.3f} [{rate.low:.3f}, {rate.high:.3f}]" in text
    assert f"{round(19 * share.estimate)} of 19 subjects have any" in text
    assert "up to 0.25 expected" in level_words(HEALTHY, 0.25)


def test_the_verdict_on_a_scan_names_its_levels_and_both_p_values():
    text, kind = scan_words(result([FINDING, FAINT], p_max=0.05, p_top=0.1), CONFIG, CALIBRATION)
    assert kind == "bad"
    assert text.startswith(
        "**Unusual: 2 findings, the strongest: left central, deep, brighter (+2.5 sd), 0.9 ml at half its peak"
    )
    assert "Listed up to 0.5 expected false findings per healthy scan" in text
    assert "1 of 2 passes the family-wise level: at most 5 % of healthy scans have a voxel above 4.50." in text
    assert text.endswith("p (max) = 0.050, p (top) = 0.100.")
    both, _ = scan_words(result([FINDING, replace(FAINT, family_wise=True)], p_max=0.05), levels(1), CALIBRATION)
    assert "2 pass the family-wise level" in both
    assert "Listed up to 1 expected" in both


def test_findings_below_the_family_wise_level_are_no_alarm():
    text, kind = scan_words(result([FAINT], p_max=0.2, p_top=0.3), CONFIG, CALIBRATION)
    assert (kind, "None passes the family-wise level. p (max) = 0.200" in text) == ("neutral", True)
    assert text.startswith("**Perhaps unusual: 1 finding")
    # Unless the scan as a whole is unusual.
    text, kind = scan_words(result([FAINT], p_max=0.2, p_top=0.05), CONFIG, CALIBRATION)
    assert kind == "bad"
    assert "But the scan as a whole is unusual by top: p (max) = 0.200, p (top) = 0.050." in text


def test_a_scan_without_findings_is_judged_as_a_whole():
    text, kind = scan_words(result(p_top=0.05), CONFIG, CALIBRATION)
    assert kind == "bad"
    assert text.startswith("**Unusual as a whole.** No finding stands out")
    assert "the scan as a whole is unusual by top: p (max) = 0.500, p (top) = 0.050." in text
    text, kind = scan_words(result(), CONFIG, CALIBRATION)
    assert (kind, text) == (
        "neutral",
        "**Ordinary: no finding.** Nothing is unusual among the scored voxels: p (max) = 0.500, p (top) = 0.600.",
    )
    text, _ = scan_words(result(name="max"), CONFIG, CALIBRATION)
    assert text.endswith(": p (max) = 0.500.")


def test_p_says_where_it_ends_and_what_a_tail_fit_adds():
    result = SimpleNamespace(p_values={"max": 0.05}, tails={})
    assert p_words(result, "max") == "p (max) = 0.050"
    result.tails["max"] = interval(0.004, 0.0003, 0.031, 19)
    assert p_words(result, "max") == (
        "p (max) = 0.050 (conformal, the smallest possible with 19; tail fit: 0.004 [0.0003, 0.031])"
    )
