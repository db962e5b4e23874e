"""Codes of new scans: their moments, and how evenly they cover what is rare; and the balance of labelled scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from medgen.errors import DataError
from medgen.models.code_pool import CodePool, ShapeLimits, coverage_weights, shape_descriptors
from medgen.models.latent import aggregated_posterior
from medgen.synthesis.cohort.training_pairs import balanced_pairs, numbered
from medgen.synthesis.sources import Sources
from tests.builders.labelled_scans import blobs


@pytest.mark.parametrize("spread", [0.0, 0.6, 1.0])
def test_draws_have_the_moments_of_the_codes(spread: float) -> None:
    rng = torch.Generator().manual_seed(0)
    codes = 2 + torch.randn(300, 3, generator=rng) @ torch.randn(3, 3, generator=rng)
    mean, factor = aggregated_posterior(codes, torch.full_like(codes, -30.0))
    pool = CodePool(codes, mean, factor, np.full(300, 1 / 300))
    drawn = torch.cat([pool.draw(spread, rng) for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), atol=0.15, rtol=0.1)
    torch.testing.assert_close(drawn.T.cov(), codes.T.cov(), atol=0.25, rtol=0.15)
    if spread == 0:
        nearest = (drawn[:20, None] - codes).abs().sum(2).min(1).values
        assert nearest.max() < 1e-5


def test_pools_come_back_from_arrays() -> None:
    codes = torch.randn(5, 3)
    mean, factor = aggregated_posterior(codes, torch.zeros_like(codes))
    pool = CodePool(codes, mean, factor, np.arange(1, 6) / 15)
    again = CodePool.from_arrays(pool.to_arrays("x"), "x")
    first, second = (item.draw(0.4, torch.Generator().manual_seed(1)) for item in (pool, again))
    assert torch.equal(first, second)


def test_descriptors_are_volumes_and_centroids() -> None:
    data = blobs(3, 0, "a")
    assert data.labels is not None
    found = shape_descriptors(data.labels, (1, 4))
    for row, labels in enumerate(data.labels.numpy()[:, 0]):
        for place, label in enumerate((1, 4)):
            part = found[row, 4 * place : 4 * place + 4]
            assert part[0] == pytest.approx(np.log1p((labels == label).sum()))
            np.testing.assert_allclose(part[1:], ndimage.center_of_mass(labels == label))
    missing = shape_descriptors(torch.cat([data.labels, torch.zeros_like(data.labels[:1])]), (1, 4))
    np.testing.assert_allclose(missing[3, 1:4], found[:, 1:4].mean(0))
    assert missing[3, 0] == 0


def test_weights_make_volumes_more_even() -> None:
    values = np.random.default_rng(0).normal(size=400)[:, None]
    uniform = stats.uniform(-2, 4)

    def distance(strength: float) -> float:
        """Kolmogorov's, between weighted values within two standard deviations and the uniform distribution there."""
        weights = coverage_weights(values, strength)
        inside = np.abs(values[:, 0]) < 2
        order = np.argsort(values[inside, 0])
        cumulated = np.cumsum(weights[inside][order]) / weights[inside].sum()
        return float(np.abs(cumulated - uniform.cdf(values[inside, 0][order])).max())

    assert distance(1.0) < 0.75 * distance(0.5) < 0.75 * 0.75 * distance(0.0)
    assert coverage_weights(values, 0.0) == pytest.approx(np.full(400, 1 / 400))
    weights = coverage_weights(values, 1.0)
    assert weights.sum() == pytest.approx(1)
    assert weights.max() < 7 * weights.mean()


def test_descriptors_that_do_not_vary_are_left_out() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    constant = np.hstack([values, np.full((50, 1), 7.0)])
    np.testing.assert_allclose(coverage_weights(constant, 1.0), coverage_weights(values, 1.0))
    assert coverage_weights(np.ones((4, 2)), 1.0) == pytest.approx(np.full(4, 0.25))


def test_labelled_scans_keep_their_share(sources: Sources) -> None:
    guessed = blobs(4, 1, "u")
    trusted = replace(guessed, confidence=torch.full_like(guessed.foregrounds, 200, dtype=torch.uint8))
    both = replace(sources, labelled=sources.labelled.subset(["a-0", "a-1"]), consensus=trusted)
    assert both.labelled.labels is not None
    pairs = balanced_pairs(both, 0.5)
    assert pairs.ids == ("a-0", "a-1", "a-0#2", "a-1#2", "u-0", "u-1", "u-2", "u-3")
    assert pairs.labels is not None
    assert pairs.labels.unique().tolist() == [0, 1, 2]
    assert torch.equal(pairs.labels[2] == 2, both.labelled.labels[0] == 4)
    assert pairs.confidence is not None
    assert pairs.confidence[:4].unique().tolist() == [255]
    assert balanced_pairs(both, 0.0).ids == ("a-0", "a-1", "u-0", "u-1", "u-2", "u-3")
    assert balanced_pairs(sources, 0.5).ids == sources.labelled.ids
    with pytest.raises(DataError, match="masks"):
        numbered(blobs(2, 0, "x", labelled=False), (1, 4))


def test_limits_hold_one_more_anatomy_in_nineteen_of_twenty_cases() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(300):
        sizes, places = rng.normal(5, 0.3, (20, 1)), rng.normal(10, 2, (20, 3))
        limits = ShapeLimits.fit(np.hstack([sizes, places])[:-1])
        inside.append((limits.low <= np.hstack([sizes, places])[-1]) & (np.hstack([sizes, places])[-1] <= limits.high))
    assert abs(np.mean(inside) - stats.t.cdf(2, 18) + stats.t.cdf(-2, 18)) < 0.03


def test_an_anatomy_outside_the_limits_is_told_how_far_it_is() -> None:
    training = np.array([[5.0, 10.0, 10.0, 10.0], [6.0, 12.0, 11.0, 10.0], [5.5, 11.0, 10.5, 10.0]])
    limits = ShapeLimits.fit(training)
    assert all(limits.excess(row) == 0 for row in training)
    far, farther = (training[0] + [0, away, 0, 0] for away in (8.0, 12.0))
    assert 0 < limits.excess(far) < limits.excess(farther)
    again = ShapeLimits.from_arrays(limits.to_arrays("x"), "x")
    assert again.excess(far) == limits.excess(far)


def test_a_label_that_is_missing_is_judged_by_its_volume_alone() -> None:
    never = ShapeLimits.fit(np.array([[5.0, 10.0, 10.0, 10.0], [5.2, 11.0, 10.0, 10.0]]))
    sometimes = ShapeLimits.fit(np.array([[5.0, 10.0, 10.0, 10.0], [0.0, 10.0, 10.0, 10.0]]))
    missing = np.zeros(4)
    assert never.excess(missing) > 0
    assert sometimes.excess(missing) == 0
