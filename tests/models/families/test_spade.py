"""SPADE blocks against MONAI's, and what the generator has to do with labels, style and a frozen segmenter."""

import pytest
import torch
from torch.nn import functional

from medgen.errors import TrainingError
from medgen.models.catalogue import build
from medgen.models.families.spade import Modulation
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)
TINY = {
    "family": "spade",
    "shape": SHAPE,
    "widths": [16, 32],
    "style": 4,
    "narrow": 4,
    "hidden": 8,
    "discriminator_widths": [16, 16],
    "n_labels": 2,
}


def scans(n=6):
    """Boxes whose place and brightness differ between cases; the surroundings too."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(n, 1, *SHAPE, dtype=torch.uint8)
    images = torch.zeros(n, 1, *SHAPE)
    for case in range(n):
        start = 3 + case % 3
        labels[case, 0, start : start + 5, 4:12, 4:12] = 1
        labels[case, 0, start + 5 : start + 8, 4:12, 4:12] = 2
        images[case] = 0.2 + 0.3 * labels[case] + 0.1 * torch.rand((), generator=generator)
    names = tuple(f"c{k}" for k in range(n))
    return Dataset(names, names, images, torch.ones_like(images, dtype=torch.bool), labels)


def test_modulation_is_the_formula_and_monais():
    from monai.networks.blocks.spade_norm import SPADE

    torch.manual_seed(0)
    ours = Modulation(16, 5, 8)
    x, maps = torch.randn(2, 16, 4, 6, 5), torch.randn(2, 5, 4, 6, 5)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    with torch.no_grad():
        seen = functional.conv3d(maps, ours.shared.weight, ours.shared.bias, padding=1).relu()
        gain = torch.einsum("oc,bcijk->boijk", ours.gain.weight, seen) + ours.gain.bias.view(-1, 1, 1, 1)
        bias = torch.einsum("oc,bcijk->boijk", ours.bias.weight, seen) + ours.bias.bias.view(-1, 1, 1, 1)
        torch.testing.assert_close(ours(x, maps), normal * (1 + gain) + bias, atol=1e-5, rtol=1e-5)
        theirs = SPADE(5, 16, kernel_size=3, spatial_dims=3, hidden_channels=8)
        # Ours differs in what is documented: the norm, ReLU, and second convolutions of one voxel.
        theirs.param_free_norm = torch.nn.Identity()
        theirs.mlp_shared.adn = torch.nn.ReLU()
        theirs.mlp_shared.conv.load_state_dict(ours.shared.state_dict())
        for mine, other in ((ours.gain, theirs.mlp_gamma), (ours.bias, theirs.mlp_beta)):
            other.conv.weight.zero_()
            other.conv.weight[:, :, 1, 1, 1] = mine.weight
            other.conv.bias.copy_(mine.bias)
            # MONAI 1.6.1 also instance-normalises γ and β, which the paper does not.
            other.adn = torch.nn.Identity()
        torch.testing.assert_close(ours(x, maps), theirs(normal, maps), atol=1e-5, rtol=1e-5)


def test_trained_scans_follow_their_labels():
    data = scans()
    model = build({**TINY, "reconstruction": 10}, seed=0)
    config = TrainingConfig(steps=50, batch_size=2, precision="32", lr=3e-3, ema=0.9)
    fit(model, data, config, seed=0, device="cpu")
    labels = data.labels.long().roll(1, 0)
    with torch.no_grad():
        image = model.paint(labels, model.encode_style(data.images)[0])
    means = [float(image[labels == label].mean()) for label in (0, 1, 2)]
    assert means[1] - means[0] > 0.15
    assert means[2] - means[1] > 0.15


def test_untrusted_voxels_do_not_enter_the_reconstruction():
    data = scans(2)
    model = build(TINY, seed=0)
    model.initialize(data)
    batch = data.batch([0, 1], progress=0.0)
    trust = torch.ones_like(batch.foreground)
    trust[..., 8:] = 0
    spoilt = batch.image.clone()

    def l1(image, confidence):
        torch.manual_seed(0)
        # The style sees the spoilt half; a fixed encoder takes that out.
        model.encode_style = lambda x: (torch.zeros(len(x), 4), torch.full((len(x), 4), -12.0))
        return float(model.loss("generator", Batch(image, batch.foreground, batch.labels, 0.0, confidence))["l1"])

    spoilt[..., 8:] += 5
    assert l1(spoilt, trust) == pytest.approx(l1(batch.image, trust))
    assert l1(spoilt, None) > l1(batch.image, None) + 1


def test_the_frozen_segmenter_pulls_the_images_and_is_not_kept():
    data = scans(2)
    model = build({**TINY, "adversarial": 0, "feature_matching": 0, "reconstruction": 0, "beta": 0}, seed=0)
    names = set(model.state_dict())
    seen = []

    def consistency(image, labels, trust):
        seen.append((image.shape, labels.shape, trust.shape))
        return image.square().mean()

    batch = data.batch([0, 1], progress=1.0)
    torch.manual_seed(0)
    without = model.loss("generator", batch)
    assert "consistency" not in without
    assert float(without["loss"].detach()) == 0
    model.watch(consistency)
    terms = model.loss("generator", batch)
    torch.testing.assert_close(terms["loss"].detach(), 0.2 * terms["consistency"])
    terms["loss"].backward()
    assert model.decoder.head.weight.grad.abs().sum() > 0
    assert seen == [((2, 1, *SHAPE), (2, 1, *SHAPE), (2, 1, *SHAPE))]
    assert set(model.state_dict()) == names


def test_scans_without_labels_are_refused():
    model = build(TINY, seed=0)
    with pytest.raises(TrainingError, match="label maps"):
        model.loss("generator", Batch(torch.zeros(1, 1, *SHAPE), torch.ones(1, 1, *SHAPE)))
