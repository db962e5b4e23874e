import pytest
import torch

from medgen.errors import ConfigError
from medgen.models import losses
from medgen.models.catalogue import build
from medgen.models.families.cevae import masked
from medgen.models.latent import LatentModel
from medgen.preprocessing.dataset import Batch

SHAPE = (12, 16, 10)
SETTINGS = {"family": "cevae", "shape": SHAPE, "widths": [16], "latent": 4, "components": 0, "narrow": 4}


def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand((3, 2, *SHAPE), generator=generator), torch.ones(3, 1, *SHAPE), progress=1.0)


def test_masks_are_cuboids_of_one_intensity_in_range():
    torch.manual_seed(0)
    image = batch().image
    seen = 0.0
    for _ in range(50):
        result = masked(image, torch.ones(3, 1, *SHAPE), 1, (0.2, 0.5))
        for before, after in zip(image, result, strict=True):
            changed = (before != after).any(0)
            where = changed.nonzero()
            low, high = where.amin(0), where.amax(0) + 1
            box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            inside = after[(slice(None), *box)]
            # One value per channel, all of the cuboid, nothing else.
            assert (inside == inside[:, :1, :1, :1]).all()
            assert changed.sum() == inside[0].numel()
            assert (inside >= before.amin((1, 2, 3)).view(2, 1, 1, 1)).all()
            assert (inside <= before.amax((1, 2, 3)).view(2, 1, 1, 1)).all()
            assert all(b - a <= round(0.5 * size) for a, b, size in zip(low, high, SHAPE, strict=True))
            seen += changed.float().mean().item() / 150
    # 0.35³ of the grid on average, less what the border cuts off.
    assert 0.02 < seen < 0.043


def test_scans_without_anatomy_stay_and_inputs_are_not_changed():
    image = batch().image
    kept = image.clone()
    assert torch.equal(masked(image, torch.zeros(3, 1, *SHAPE), 3, (0.1, 0.5)), image)
    assert not torch.equal(masked(image, torch.ones(3, 1, *SHAPE), 3, (0.1, 0.5)), image)
    assert torch.equal(image, kept)


def test_without_context_it_is_an_autoencoder_with_a_vector_code():
    data = batch()
    ours = build({**SETTINGS, "in_channels": 2, "context": 0.0}, seed=0)
    torch.manual_seed(1)
    expected = LatentModel.loss(ours, "all", data)
    torch.manual_seed(1)
    found = ours.loss("all", data)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["loss"], expected["loss"])


def test_the_loss_is_the_weighted_sum_of_both_parts():
    data = batch()
    model = build({**SETTINGS, "in_channels": 2, "context": 0.3}, seed=0)
    torch.manual_seed(1)
    found = model.loss("all", data)
    torch.manual_seed(1)
    mean, logvar = model.encode(data.image)
    decoded = model.decode(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
    bound = -torch.distributions.Normal(decoded.mean, (0.5 * decoded.logvar).exp()).log_prob(data.image).mean()
    bound = bound + losses.kl_standard_normal(mean, logvar).sum(1).mean() / data.image[0].numel()
    hidden = model.decode(model.encode(masked(data.image, data.foreground, 3, (0.1, 0.5)))[0])
    context = -torch.distributions.Normal(hidden.mean, (0.5 * hidden.logvar).exp()).log_prob(data.image).mean()
    torch.testing.assert_close(found["loss"], 0.7 * bound + 0.3 * context, rtol=1e-4, atol=1e-5)


def test_masks_that_shrink_as_they_grow_are_refused():
    with pytest.raises(ConfigError, match=r"mask_smallest is 0\.6 and mask_largest 0\.5"):
        build({**SETTINGS, "mask_smallest": 0.6})
