"""The second player against closed forms: losses, spectral norm, the rule and the moves of adaptive augmentation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from medgen.models import losses
from medgen.models.catalogue import build
from medgen.models.networks.discriminator import (
    AdaptiveAugmentation,
    Game,
    GanSettings,
    PatchDiscriminator,
    adapted_probability,
    diversity,
)
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)


def maps(b=2, c=3, seed=0):
    return torch.rand((b, c, *SHAPE), generator=torch.Generator().manual_seed(seed))


def settings(**changes):
    return GanSettings(family="any", shape=SHAPE, discriminator_widths=(16, 16), **changes)


def test_nonsaturating_losses_are_cross_entropies():
    real, fake = torch.randn(50), torch.randn(50)
    ones, zeros = torch.ones(50), torch.zeros(50)
    entropy = functional.binary_cross_entropy_with_logits
    expected = 0.5 * (entropy(real, ones) + entropy(fake, zeros))
    torch.testing.assert_close(losses.nonsaturating_discriminator(real, fake), expected)
    torch.testing.assert_close(losses.nonsaturating_generator(fake), entropy(fake, ones))


def test_weights_have_spectral_norm_one():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, (16, 32), scales=2)
    for _ in range(60):
        network(maps())
    for part in (network, network.coarser):
        for layer in [*part.layers, part.logits]:
            weight = layer.weight.detach().flatten(1).numpy()
            assert np.linalg.svd(weight, compute_uv=False)[0] == pytest.approx(1, abs=0.01)


def test_the_second_scale_is_a_discriminator_of_half_the_resolution():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, (16, 32), scales=2).eval()
    x = maps()
    logits, features = network(x)
    assert [tuple(scale.shape[2:]) for scale in logits] == [(4, 4, 4), (2, 2, 2)]
    alone, more = network.coarser(functional.avg_pool3d(x, 2))
    torch.testing.assert_close(logits[1], alone[0])
    torch.testing.assert_close(features[-1], more[-1])
    assert len(network(x)[1]) == 2 * len(more)


def test_probability_moves_by_the_published_rule():
    p = torch.tensor(0.1)
    step = lambda r: float(adapted_probability(p, torch.tensor(r), 0.6, 4, 1000))  # noqa: E731
    assert step(0.9) == pytest.approx(0.104)
    assert step(0.2) == pytest.approx(0.096)
    assert step(0.6) == pytest.approx(0.1)
    assert float(adapted_probability(torch.tensor(0.0), torch.tensor(-1.0), 0.6, 4, 1000)) == 0
    assert float(adapted_probability(torch.tensor(0.7999), torch.tensor(1.0), 0.6, 4, 1000)) == pytest.approx(0.8)


def test_overfitting_is_a_running_mean_of_signs():
    adaptive = AdaptiveAugmentation(1, 0.6, 100)
    logits = [torch.tensor([3.0, 0.1, -0.2, 5.0]).view(4, 1, 1, 1, 1), torch.ones(4, 1, 1, 1, 1)]
    expected = 0.0
    for _ in range(8):
        adaptive.adapt(logits)
        expected = 0.75 * expected + 0.25 * (0.5 + 1.0) / 2
        assert float(adaptive.overfitting) == pytest.approx(expected)
    # Above the target after six of eight turns; a batch of four moves p by 4 / 100.
    rises = sum(0.75 * (1 - 0.75 ** (turn + 1)) > 0.6 for turn in range(8))
    assert float(adaptive.probability) == pytest.approx(0.04 * rises)


def test_all_maps_of_a_scan_move_together_and_only_images_change_tone():
    adaptive = AdaptiveAugmentation(1, 0.6, 100)
    adaptive.probability.fill_(0.8)
    smooth = functional.interpolate(torch.rand(6, 1, 4, 4, 4), size=SHAPE, mode="trilinear")
    torch.manual_seed(3)
    moved = adaptive(torch.cat([smooth, smooth, smooth], dim=1))
    torch.testing.assert_close(moved[:, 1], moved[:, 2])
    assert not torch.allclose(moved[:, 1:2], smooth)
    assert not torch.allclose(moved[:, 0], moved[:, 1])
    for case in range(6):
        both = torch.stack([moved[case, 0].flatten(), moved[case, 1].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.9
    adaptive.probability.fill_(0)
    assert torch.equal(adaptive(smooth), smooth)


def test_gradients_reach_generated_maps_through_augmentation():
    adaptive = AdaptiveAugmentation(1, 0.6, 100)
    adaptive.probability.fill_(0.8)
    x = maps().requires_grad_()
    torch.manual_seed(0)
    adaptive(x).sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating"])
def test_terms_are_those_of_the_losses(kind):
    torch.manual_seed(0)
    network = PatchDiscriminator(3, (16, 16), scales=2).eval()
    game = Game(network, settings(gan=kind, adversarial=0.7, feature_matching=0.2, r1=0))
    real, fake, sample = maps(seed=1), maps(seed=2), maps(seed=3)
    d_loss = losses.hinge_discriminator if kind == "hinge" else losses.nonsaturating_discriminator
    g_loss = losses.hinge_generator if kind == "hinge" else losses.nonsaturating_generator
    with torch.no_grad():
        (a, wanted), (b, found), (c, _) = (network(x) for x in (real, fake, sample))
        terms = game.discriminator_terms(real, fake, progress=0.5)
        expected = sum(d_loss(one, two) for one, two in zip(a, b, strict=True)) / 2
        torch.testing.assert_close(terms["loss"], expected)
        right = [(one > 0).float().mean() for one in a] + [(two < 0).float().mean() for two in b]
        torch.testing.assert_close(terms["accuracy"], sum(right) / 4)
        ours = game.generator_terms(real, fake, sample)
        matching = sum((x - y).abs().mean() for x, y in zip(wanted, found, strict=True)) / len(wanted)
        expected = 0.7 * sum(g_loss(scale) for scale in c) / 2 + 0.2 * matching
        torch.testing.assert_close(ours["loss"], expected)


def test_diversity_is_one_for_real_scans_and_nothing_for_copies():
    real = maps(4)
    assert float(diversity(real, real)) == pytest.approx(1)
    assert float(diversity(real[:1].expand(4, -1, -1, -1, -1), real)) == 0
    assert float(diversity(0.5 * real, real)) == pytest.approx(0.5)


def test_a_resumed_training_goes_on_with_the_augmentation(tmp_path):
    """Bit for bit: the probability is part of the checkpoint."""
    from tests.models.families.test_joint import blobs

    data = blobs()
    model = {
        "family": "joint",
        "shape": SHAPE,
        "widths": [16],
        "latent": 4,
        "narrow": 2,
        "n_labels": 2,
        "discriminator_widths": [16],
        "discriminator_scales": 2,
        "ada_target": 0.01,
        "ada_images": 20,
    }
    config = TrainingConfig(steps=6, batch_size=2, precision="32", checkpoint_every=3, log_every=1)
    whole = build(model, seed=0)
    fit(whole, data, config, seed=0, device="cpu")
    assert whole.adaptive.probability > 0

    def stop(numbers, step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(build(model, seed=0), data, config, seed=0, device="cpu", out=tmp_path, log=stop)
    again = build(model, seed=1)
    fit(again, data, config, seed=0, device="cpu", out=tmp_path, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_all_processes_have_the_penalty_in_the_same_steps():
    """Each has a random stream of its own: what decides is the step's place in the training."""
    torch.manual_seed(0)
    game = Game(PatchDiscriminator(1, (16,)), settings(r1_every=3))
    found = []
    for rank in range(3):
        torch.manual_seed(rank)
        found.append(["r1" in game.discriminator_terms(maps(c=1), maps(c=1), step / 30) for step in range(30)])
    assert found[0] == found[1] == found[2]
    assert 4 <= sum(found[0]) <= 16


def test_the_penalty_goes_round_compiled_code():
    """Which has no second derivative; compiled networks are called, so that ``forward`` is the plain one."""
    calls = []

    def compiled(x):
        calls.append(x.requires_grad)
        return network.forward(x)

    torch.manual_seed(0)
    network = PatchDiscriminator(1, (16,))
    network._compiled_call_impl = compiled
    terms = Game(network, settings(r1_every=1)).discriminator_terms(maps(c=1), maps(c=1), 0.5)
    assert "r1" in terms
    assert calls == [False]


@pytest.mark.parametrize("family", ["vaegan", "joint", "spade"])
def test_discriminators_see_images_in_units_of_their_detail(family):
    """Scans that are ten times as bright look the same; label maps stay as they are."""
    from medgen.models.catalogue import family_class
    from tests.models.families.test_joint import blobs

    data = blobs()
    seen = []
    for factor in (1.0, 10.0):
        model = build({"family": family, "shape": SHAPE, **family_class(family).tiny}, seed=0)
        scaled = replace(data, images=factor * data.images)
        model.initialize(scaled)
        batch = scaled.batch([0, 1])
        seen.append(model._maps(batch.image, batch.labels) if family == "spade" else model.real_maps(batch))
    torch.testing.assert_close(seen[0], seen[1], atol=1e-3, rtol=1e-4)
    image = seen[0][:, :1]
    rest = image - functional.avg_pool3d(image, 3, 1, 1)
    assert float(rest.std()) == pytest.approx(1, rel=0.3)
