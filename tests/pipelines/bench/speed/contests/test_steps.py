"""Contests of training steps: the same work by networks of equal size, and each contender really learns."""

from __future__ import annotations

import math

import pytest
import torch

from medgen.pipelines.bench.speed import training_steps as steps
from medgen.pipelines.bench.speed.contest import Settings
from medgen.pipelines.bench.speed.contests import flow_step, gan_step, train_step
from medgen.preprocessing.dataset import Dataset


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings("cpu", 3, quick=True, data=None, scratch=tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def scans(settings):
    return steps.scans(settings)


@pytest.fixture
def precision(settings):
    return steps.precisions(settings)[0]


def test_scans_are_of_different_people(scans):
    train, test = scans
    assert train.shape == (32, 32, 32)
    assert not set(train.subjects) & set(test.subjects)
    assert train.images.std() > 0.1


@pytest.mark.parametrize(
    ("model", "peer"),
    [
        (train_step.MODEL, train_step.akl_loop),
        (gan_step.MODEL, gan_step.gan_loop),
        ({**flow_step.MODEL, "n_labels": 3}, lambda data, precision: flow_step.flow_loop(data, precision, 3)),
    ],
    ids=["vae", "vaegan", "flow"],
)
def test_networks_are_of_equal_size(model, peer, scans, precision):
    pytest.importorskip("einops")
    own = sum(weights.numel() for weights in steps.own_loop(scans[0], precision, model, {}).model.parameters())
    assert own == pytest.approx(peer(scans[0], precision).parameters, rel=0.06)


def test_both_change_their_weights_with_a_step(scans, precision):
    pytest.importorskip("einops")
    loop, peer = steps.own_loop(scans[0], precision, train_step.MODEL, {}), train_step.akl_loop(scans[0], precision)
    for step, network in ((loop.update, loop.model), (peer.step, peer.networks[0])):
        before = [weights.detach().clone() for weights in network.parameters()]
        step()
        changed = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
        assert sum(changed) > len(changed) / 2


def test_demand_is_what_the_step_does(scans, precision):
    loop = steps.own_loop(scans[0], precision, train_step.MODEL, {})
    demand = steps.demand_of(loop.update, 1000, math.prod(scans[0].shape), precision)
    # The stem alone: 27 products and sums for each of 8 x 32 channels in 16³ places, three passes.
    assert demand.flops > 3 * 2 * 27 * 8 * 32 * 16**3
    assert demand.bytes == 4 * (4 * 1000 + 32**3)


def test_quality_is_that_of_the_averaged_weights(scans, precision):
    train, test = scans
    loop = steps.own_loop(train, precision, train_step.MODEL, {})
    pairs = list(zip(loop.live, loop.average, strict=True))
    before = steps.own_quality(loop.model, pairs, test, precision)
    with torch.no_grad():
        for live in loop.live:
            live.add_(1.0)
    assert steps.own_quality(loop.model, pairs, test, precision) == pytest.approx(before)
    assert all(live.sub(1).allclose(average, atol=1e-5) for live, average in pairs)


def test_psnr_is_that_of_the_formula():
    truth = torch.zeros(2, 1, 4, 4, 4)
    data = Dataset(("a", "b"), ("a", "b"), truth, torch.ones_like(truth, dtype=torch.bool))
    assert steps.peak_ratio(truth + 0.1, data) == pytest.approx(20.0, abs=1e-4)


def test_equal_seconds_are_spent():
    done = []
    count = steps.for_seconds(lambda: done.append(sum(range(100_000))), 0.05, torch.device("cpu"))
    assert count == len(done) > 1
    assert steps.for_seconds(lambda: done.append(1), -1.0, torch.device("cpu")) == 0
