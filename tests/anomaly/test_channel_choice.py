from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medgen.anomaly.channel_choice import CONFIGURED, INDEPENDENT, Validated, choose
from medgen.metrics.interval import Interval

KINDS = ("twist", "ramp")


def scans(strength, n=24, seed=0):
    """Validation scans of n subjects; every score is noise plus its strength where the implant is."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(n):
        truth = rng.random(600) < 0.05
        z = {name: (rng.normal(size=600) + size * truth).astype(np.float16) for name, size in strength.items()}
        result.append(Validated(f"s{number // 2}", KINDS[number % 2], number % 3, z, truth))
    return result


def mean(fold, channels, z):
    return np.mean([z[name].astype(np.float32) for name in channels], axis=0)


def test_a_clearly_better_baseline_is_taken_and_named():
    choice = choose(scans({"nll": 0.3, "selfsup": 0.3, "zscore": 4.0}), ("nll", "selfsup"), mean, 500)
    assert choice.chosen == "zscore"
    assert choice.winner.baseline
    assert choice.winner.channels == ("zscore",)
    assert choice.winner.gain.low > 0
    assert "the baseline zscore is clearly better than the configured fusion of nll, selfsup" in choice.words


def test_the_configured_fusion_stays_where_nothing_is_clearly_better():
    strength = {"nll": 1.5, "selfsup": 1.5, "zscore": 0.2}
    choice = choose(scans(strength), ("nll", "selfsup"), mean, 500)
    assert choice.chosen == CONFIGURED
    assert choice.winner.channels == ("nll", "selfsup")
    assert choice.winner.gain.estimate == 0
    assert "no candidate is clearly better" in choice.words


def test_a_higher_estimate_alone_is_not_enough():
    # Few subjects and equal strength: one of the two is ahead by luck.
    for seed in range(4):
        choice = choose(scans({"nll": 1.0, "pca": 1.0, "zscore": 1.0}, n=4, seed=seed), ("nll",), mean, 500)
        assert choice.chosen == CONFIGURED


def test_all_that_has_learned_from_corruptions_is_left_out_of_the_independent_fusion():
    validated = scans({"nll": 1.5, "selfsup": 1.0, "selfsup_network": 1.0})
    by_name = {
        entry.name: entry for entry in choose(validated, ("selfsup", "nll", "selfsup_network"), mean, 100).candidates
    }
    assert by_name[INDEPENDENT].channels == ("nll",)
    assert INDEPENDENT not in {
        entry.name for entry in choose(validated, ("selfsup", "selfsup_network"), mean, 100).candidates
    }


def test_numbers_are_scikit_learns():
    validated = scans({"nll": 1.5, "selfsup": 1.0})
    choice = choose(validated, ("nll", "selfsup"), mean, 200)
    truth = np.concatenate([scan.truth for scan in validated])
    by_name = {entry.name: entry for entry in choice.candidates}
    maps = {
        CONFIGURED: [mean(0, ("nll", "selfsup"), scan.z).astype(np.float16) for scan in validated],
        INDEPENDENT: [scan.z["nll"] for scan in validated],
        "selfsup": [scan.z["selfsup"] for scan in validated],
    }
    for name, values in maps.items():
        expected = average_precision_score(truth, np.concatenate(values))
        assert by_name[name].ap.estimate == pytest.approx(expected, rel=0.01)
    assert choice.prevalence == pytest.approx(truth.mean())
    assert choice.kinds == KINDS
    assert (choice.scans, choice.subjects) == (24, 12)


def test_the_words_name_the_one_that_was_chosen_whoever_has_the_highest_estimate():
    choice = choose(scans({"nll": 0.3, "selfsup": 0.3, "zscore": 4.0}), ("nll", "selfsup"), mean, 200)
    first, winner, *rest = choice.candidates
    assert winner.name == "zscore"
    ahead = replace(rest[0], ap=Interval(0.99, 0.5, 1.0, 12), gain=Interval(0.5, -0.1, 0.9, 12), p=0.4)
    changed = replace(choice, candidates=(first, ahead, winner, *rest[1:]))
    assert "zscore is clearly better" in changed.words
    assert f"{ahead.name} is clearly better" not in changed.words
    assert f"Higher, but not clearly better than the configured fusion: {ahead.name}." in changed.words
    kept = replace(changed, chosen=CONFIGURED)
    assert "no candidate is clearly better" in kept.words
    assert f"Higher, but not clearly better than the configured fusion: {ahead.name}, zscore." in kept.words
