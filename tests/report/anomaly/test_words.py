"""The judging sentences of the anomaly reports: change the field, and the sentence must change with it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.evaluation.summary import Summary, VoxelRow
from medgen.anomaly.findings import Finding
from medgen.metrics.interval import Interval
from medgen.report.anomaly.words import compared_words, found_words, scan_words


def interval(estimate, low, high, n=10):
    return Interval(estimate, low, high, n)


def row(name, ap):
    score, _, form = name.partition(" (")
    nothing = interval(0.5, 0.4, 0.6)
    return VoxelRow(name, score, form.rstrip(")") or "heat", name != "fused", ap, nothing, nothing, nothing, {})


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
    with_finding=9,
    found_scans=7,
    found=interval(7 / 42, 0.07, 0.31),
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"found_scans": 1}, "**1 of 42 implants**"),
        ({"implanted": 40}, "**7 of 40 implants**"),
        ({"with_finding": 8}, "8 of 42 implanted scans have a finding"),
        ({"target_fpr": 0.1}, "at most 10 % of healthy scans"),
        ({"any_hot": interval(0.2, 0.025, 0.556)}, "2 of 10 have one (0.200 [0.025, 0.556])"),
        ({"found": interval(0.2, 0.1, 0.3)}, "(0.200 [0.100, 0.300])"),
    ],
)
def test_what_is_found_is_said_in_the_numbers_of_the_summary(change, words):
    assert words not in found_words(SUMMARY)
    assert words in found_words(replace(SUMMARY, **change))


ABOVE, AROUND, BELOW = interval(0.1, 0.05, 0.2), interval(0.1, -0.1, 0.2), interval(-0.1, -0.2, -0.05)


@pytest.mark.parametrize(
    ("raw", "z", "words", "kind"),
    [
        (ABOVE, ABOVE, "**better than the best baseline**, as published and with the same z", "good"),
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


FINDING = Finding(1, 0.2, 0.9, 5.0, 4.0, 0.05, (1, 2, 3), (0.0, 0.0, 0.0), region="left central, deep")
CALIBRATION = Calibration(np.zeros(19, dtype=np.int64), {"max": np.linspace(3, 4.5, 19)}, 4.5)


def result(findings=(), p_max=0.5, p_top=0.6, name="top"):
    return SimpleNamespace(findings=list(findings), p_values={"max": p_max, "top": p_top}, scan_score=name)


def test_the_verdict_on_a_scan_names_both_p_values_and_follows_them():
    text, kind = scan_words(result([FINDING], p_max=0.05, p_top=0.1), 0.05, CALIBRATION)
    assert kind == "bad"
    assert "hotter than all 19 healthy scans" in text
    assert (
        "At most 5 % of healthy scans have a voxel above the threshold of 4.50. p (max) = 0.050, p (top) = 0.100."
        in text
    )
    text, kind = scan_words(result(p_top=0.05), 0.05, CALIBRATION)
    assert kind == "bad"
    assert "the scan as a whole is unusual by top: p (max) = 0.500, p (top) = 0.050." in text
    text, kind = scan_words(result(), 0.05, CALIBRATION)
    assert (kind, text) == ("neutral", "Nothing unusual among the scored voxels: p (max) = 0.500, p (top) = 0.600.")
    text, _ = scan_words(result(name="max"), 0.05, CALIBRATION)
    assert text.endswith(": p (max) = 0.500.")
