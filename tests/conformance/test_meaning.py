"""What the numbers of a family mean: likelihoods against integrals, samples against moments, ranks that stay equal.

A family that has the right shapes and the wrong meaning fails here: a negated likelihood, one without its constant,
samples that are all alike, a painter that does not look at labels, state that every process adapts for itself.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch

from medgen.models.base import (
    DrawsLabels,
    GenerativeModel,
    HasCodes,
    HasConditionalLikelihood,
    HasDecoder,
    HasLikelihood,
    HasVoxelLikelihood,
    PaintsLabels,
)
from medgen.models.catalogue import available, build, family_class
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)
FAMILIES = available()
# Mean and standard deviation, over scans, of the radius of the ball and of the brightness of its inside.
RADIUS, BRIGHT = (4.5, 0.7), (0.7, 0.12)
OUTSIDE, NOISE = 0.3, 0.03


def offering(*kinds):
    return [family for family in FAMILIES if all(issubclass(family_class(family), kind) for kind in kinds)]


def tiny(family, **changes):
    return build({"family": family, "shape": SHAPE, **family_class(family).tiny, **changes}, seed=0)


@functools.cache
def balls(n=24, seed=0, shape=SHAPE):
    """Balls, label 1, of radius and brightness with known moments."""
    generator = torch.Generator().manual_seed(seed)
    radius = (RADIUS[0] + RADIUS[1] * _standard(n, generator)) * shape[0] / SHAPE[0]
    bright = BRIGHT[0] + BRIGHT[1] * _standard(n, generator)
    axes = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2 for size in shape], indexing="ij")
    distance = torch.stack(axes).square().sum(0).sqrt()
    inside = torch.sigmoid(2 * (radius.view(-1, 1, 1, 1, 1) - distance))
    images = OUTSIDE + (bright.view(-1, 1, 1, 1, 1) - OUTSIDE) * inside
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    labels = (inside > 0.5).to(torch.uint8)
    names = tuple(f"{seed}-{number}" for number in range(n))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool), labels)


def _standard(n, generator):
    """Normal numbers whose own mean is 0 and variance 1."""
    draws = torch.randn(n, generator=generator)
    return (draws - draws.mean()) / draws.std(correction=0)


@functools.cache
def trained(family, steps=60):
    config = TrainingConfig(steps=steps, batch_size=6, lr=3e-3, precision="32", ema=0.9)
    return fit(tiny(family), balls(), config, seed=0, device="cpu").model.eval()


def brightness(images):
    """Mean intensity of the middle, (n,)."""
    return images[:, 0, 6:10, 6:10, 6:10].mean((1, 2, 3))


@pytest.mark.parametrize("family", offering(HasVoxelLikelihood))
def test_the_density_of_a_voxel_integrates_to_one(family):
    """∫ exp(−nll(x)) dx over the voxel's own intensity, all others as they are."""
    model, x, place = trained(family), balls(4, seed=1).images[:1], (0, 7, 5, 8)
    own = torch.linspace(-0.5, 1.5, 81)
    total = 0.0
    for part in own.split(27):
        scans = x.repeat(len(part), 1, 1, 1, 1)
        scans[:, *place] = part
        total += float(torch.exp(-model.voxel_nll(scans)[:, *place]).sum())
    # A model whose code sees the voxel moves a little with it; the density of no voxel is far from one.
    assert total * float(own[1] - own[0]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("family", offering(HasVoxelLikelihood))
def test_likely_intensities_are_those_of_other_scans(family):
    """In nats: real scans beat the same with a strange voxel, and the mean nll is near that of a good Gaussian."""
    model, x = trained(family), balls(8, seed=2).images
    strange = x.clone()
    strange[:, :, 4:7, 6:9, 6:9] += 0.5
    nll, worse = model.voxel_nll(x), model.voxel_nll(strange)
    assert (worse[:, :, 4:7, 6:9, 6:9].mean((1, 2, 3, 4)) > nll[:, :, 4:7, 6:9, 6:9].mean((1, 2, 3, 4)) + 1).all()
    # The entropy of the noise is the least that a voxel can cost; a Gaussian of all intensities costs more.
    least = math.log(NOISE * math.sqrt(2 * math.pi * math.e))
    one_for_all = float(torch.log(x.std() * math.sqrt(2 * math.pi * math.e)))
    assert least - 0.1 < float(nll.mean()) < one_for_all


@torch.no_grad()
def integral(model, x):
    """log ∫ p(x | z) p(z) dz over two-dimensional codes, on grids that close in on where it is not nothing."""
    low, high = torch.full((2,), -5.0), torch.full((2,), 5.0)
    for _ in range(4):
        axes = [torch.linspace(float(a), float(b), 25) for a, b in zip(low, high, strict=True)]
        codes = torch.cartesian_prod(*axes)
        decoded = [model.decode(part) for part in codes.split(125)]
        given = [torch.distributions.Normal(part.mean, (part.logvar / 2).exp()).log_prob(x) for part in decoded]
        joint = torch.cat([part.flatten(1).sum(1) for part in given])
        joint += torch.distributions.Normal(0.0, 1.0).log_prob(codes).sum(1)
        cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
        near = codes[joint > joint.max() - 12]
        margin = (high - low) / 24
        low, high = near.amin(0) - margin, near.amax(0) + margin
    return torch.logsumexp(joint, dim=0) + math.log(cell)


@pytest.mark.parametrize("family", [f for f in offering(HasLikelihood, HasDecoder) if "latent" in family_class(f).tiny])
def test_a_likelihood_is_what_the_integral_over_codes_says(family):
    shape = (8, 8, 8)
    config = TrainingConfig(steps=100, batch_size=8, lr=3e-3, precision="32", ema=0.9)
    start = build({"family": family, "shape": shape, **family_class(family).tiny, "latent": 2}, seed=0)
    model = fit(start, balls(shape=shape), config, seed=0, device="cpu").model.eval()
    x = balls(2, seed=3, shape=shape).images
    exact = torch.stack([integral(model, scan[None]) for scan in x])
    found = model.log_likelihood(x, samples=400, generator=torch.Generator().manual_seed(0))
    if model.likelihood().kind == "exact":
        torch.testing.assert_close(found, exact, atol=0.05, rtol=0)
    elif model.likelihood().kind == "bound":
        # Never above, but for the noise of the draws, and near: half of log 2 pi alone is 0.9 nats for each voxel.
        # Processors round otherwise and so train another model, whose noise is another.
        assert (found < exact + 0.4).all(), (found, exact)
        assert ((exact - found) / math.prod(shape) < 0.1).all(), (found, exact)


@pytest.mark.parametrize("family", offering(HasConditionalLikelihood))
def test_scans_are_likelier_given_their_own_labels(family):
    """In nats with a standard error; no density of voxels beats that of the noise, whatever the labels."""
    model, data = trained(family), balls(2, seed=8)
    batch = data.batch([0, 1])
    found = model.conditional_log_likelihood(batch, 2, torch.Generator().manual_seed(0))
    other = replace(batch, labels=batch.labels.roll(4, dims=2))
    wrong = model.conditional_log_likelihood(other, 2, torch.Generator().manual_seed(0))
    assert found.value.shape == found.error.shape == (2,)
    assert (found.error > 0).all()
    assert (found.value - wrong.value > 20 * found.error + 100).all()
    most = -math.log(NOISE * math.sqrt(2 * math.pi * math.e))
    assert (found.value / math.prod(SHAPE) < most + 0.1).all()
    assert not issubclass(family_class(family), HasLikelihood)


@pytest.mark.parametrize("family", offering(HasCodes))
def test_probabilities_of_all_grids_of_codes_sum_to_one(family):
    """A prior that sees what it has to predict is not exact, and no probability either."""
    shape, config = (8, 8, 8), TrainingConfig(steps=60, batch_size=8, lr=3e-3, precision="32", ema=0.9)
    start = build({"family": family, "shape": shape, **family_class(family).tiny, "codes": 2}, seed=0)
    model = fit(start, balls(shape=shape), config, seed=0, device="cpu").model.eval()
    codes = model.codes(balls(2, seed=3, shape=shape).images)
    places = math.prod(codes.shape[1:])
    every = torch.cartesian_prod(*[torch.arange(2)] * places).view(-1, *codes.shape[1:])
    assert float(model.code_log_likelihood(every).exp().sum()) == pytest.approx(1, abs=1e-4)
    # Codes of scans are likelier than those of a coin.
    assert (model.code_log_likelihood(codes) > -places * math.log(2)).all()


@pytest.mark.parametrize("family", offering(GenerativeModel))
def test_samples_have_the_moments_of_the_training_scans(family):
    model, data = trained(family), balls()
    made = brightness(model.sample(200, torch.Generator().manual_seed(0)))
    real = brightness(data.images)
    assert float(made.mean()) == pytest.approx(float(real.mean()), abs=0.4 * float(real.std()))
    assert float(made.std()) == pytest.approx(float(real.std()), rel=0.35)
    # Outside of the balls nothing varies but noise.
    rim = model.sample(200, torch.Generator().manual_seed(1))[:, 0, :2].mean((1, 2, 3))
    assert float(rim.mean()) == pytest.approx(OUTSIDE, abs=0.03)
    assert float(rim.std()) < 0.3 * float(real.std())


@pytest.mark.parametrize("family", offering(DrawsLabels))
def test_drawn_labels_have_the_moments_of_the_training_labels(family):
    model, data = trained(family), balls()
    drawn = (model.sample_labels(200, torch.Generator().manual_seed(0)) == 1).sum((1, 2, 3, 4)).float() ** (1 / 3)
    real = (data.labels == 1).sum((1, 2, 3, 4)).float() ** (1 / 3)
    assert float(drawn.mean()) == pytest.approx(float(real.mean()), abs=0.4 * float(real.std()))
    assert float(drawn.std()) == pytest.approx(float(real.std()), rel=0.4)


@pytest.mark.parametrize("family", offering(PaintsLabels))
def test_painted_scans_are_as_bright_as_their_labels_say(family):
    model, data = trained(family), balls(12, seed=4)
    labels = data.labels.long()
    with torch.no_grad():
        painted = model.paint(labels, model.encode_style(data.images)[0])
    for label in (0, 1):
        expected = float(data.images[labels == label].mean())
        assert float(painted[labels == label].mean()) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_stay_equal(family):
    """The loop's part done by hand: gradients and shared buffers averaged, all else each process's own affair."""
    fields = family_class(family).Settings.model_fields
    # With what a process could adapt by itself.
    changes = {"ada_target": 0.6, "ada_images": 8} if "ada_target" in fields else {}
    ranks = [tiny(family, **changes) for _ in range(2)]
    data = [balls(4, seed=5), balls(4, seed=6)]
    for rank in ranks:
        rank.initialize(data[0])
    noise = 3 * torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(0))
    for step in range(3):
        for place, stage in enumerate(ranks[0].stages()):
            for name in stage.phases:
                for number, (rank, own) in enumerate(zip(ranks, data, strict=True)):
                    rank.train().zero_grad(set_to_none=True)
                    torch.manual_seed(step)
                    parameters = list(rank.stages()[place].phases[name].parameters)
                    batch = own.batch([step, (step + 1) % 4], progress=step / 3)
                    # Scans of one process are noise: it learns what the other does not.
                    batch = batch if number else replace(batch, image=noise)
                    rank.loss(name, batch)["loss"].backward(inputs=parameters)
                _average_step(*[list(rank.stages()[place].phases[name].parameters) for rank in ranks])
        for one, other in zip(*[rank.shared_buffers() for rank in ranks], strict=True):
            mean = (one + other) / 2
            one.copy_(mean)
            other.copy_(mean)
    first, second = (rank.state_dict() for rank in ranks)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


@torch.no_grad()
def _average_step(first, second):
    for one, other in zip(first, second, strict=True):
        if one.grad is not None and other.grad is not None:
            step = 0.005 * (one.grad + other.grad)
            one.sub_(step)
            other.sub_(step)
