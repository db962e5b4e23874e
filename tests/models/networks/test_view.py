"""The box of the field of view: found, filled, and not learnt by the families that draw whole scans."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from medgen.models.catalogue import build, family_class
from medgen.models.networks.linear import LinearModel
from medgen.models.networks.view import field_of_view, fit_seen, usual_view
from medgen.preprocessing.dataset import Dataset
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 12, 8)
STEPS = {"vqvae": 40, "wgan_gp": 10, "fanogan": 40}


def anatomy(n: int, seed: int = 0) -> Tensor:
    """Grey scans whose first half is brighter or darker from scan to scan, with noise, (n, 1, i, j, k)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.6 + 0.03 * torch.randn((n, 1, *SHAPE), generator=generator)
    images[:, :, :8] += 0.15 * torch.randn((n, 1, 1, 1, 1), generator=generator)
    return images.clamp_min(0.05)


def boxes(n: int, seed: int = 1) -> Tensor:
    """Boxes of which each leaves out up to 4 layers at either end of the first axis, (n, 1, i, j, k)."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.ones(n, 1, *SHAPE)
    for view in views:
        low, high = (int(side) for side in torch.randint(0, 5, (2,), generator=generator))
        view[:, :low] = 0
        view[:, SHAPE[0] - high :] = 0
    return views


def scans(n: int = 24) -> Dataset:
    views = boxes(n)
    names = tuple(map(str, range(n)))
    return Dataset(names, names, anatomy(n) * views, views.bool())


@functools.cache
def trained(family: str) -> Any:
    model = build({"family": family, "shape": SHAPE, **family_class(family).tiny}, seed=0)
    config = TrainingConfig(steps=STEPS[family], batch_size=6, lr=1e-3, precision="32", ema=0.9)
    return fit(model, scans(), config, seed=0, device="cpu").model.eval()


def test_the_box_is_the_smallest_that_holds_everything() -> None:
    x = torch.zeros(2, 2, 5, 6, 7)
    x[0, 1, 1, 2, 3] = -1
    x[0, 0, 3, 4, 3] = 2
    box = field_of_view(x)
    expected = torch.zeros(1, 5, 6, 7)
    expected[:, 1:4, 2:5, 3:4] = 1
    assert torch.equal(box[0], expected)
    assert not box[1].any()
    views = boxes(40)
    assert torch.equal(field_of_view(anatomy(40) * views), views)
    assert torch.equal(usual_view(views), (views.sum(0) >= 20).float())


def test_components_of_parts_are_those_of_whole_scans() -> None:
    data, whole = scans(40), anatomy(40)
    parts, complete = (LinearModel(1, 1, 0, SHAPE) for _ in range(2))
    weight = torch.ones(40, 1, *SHAPE)
    made = fit_seen(parts, data.images, data.foregrounds.float(), weight)
    fit_seen(complete, whole, weight, weight)
    torch.testing.assert_close(parts.mean, complete.mean, atol=0.05, rtol=0)
    # One component is one half brighter, also in layers that half of the scans show.
    bright = [model.basis[0, 0, 2:8].mean((1, 2)) for model in (parts, complete)]
    torch.testing.assert_close(*(along * along.sum().sign() for along in bright), atol=0.03, rtol=0)
    unseen = ~data.foregrounds
    assert float((made - whole)[unseen].square().mean()) < 0.2 * float((data.images - whole)[unseen].square().mean())


@pytest.mark.parametrize("family", STEPS)
def test_samples_are_whole_scans_and_not_darker_where_boxes_end(family: str) -> None:
    made = trained(family).sample(40, torch.Generator().manual_seed(0))[:, 0].mean((0, 2, 3))
    usual = usual_view(scans().foregrounds.float())[0, :, 0, 0] > 0
    assert not made[~usual].any()
    # At its rim half of the scans show nothing: a model of padded scans is half as bright there.
    assert 8 < int(usual.sum()) < 16
    torch.testing.assert_close(made[usual], torch.full_like(made[usual], 0.6), atol=0.1, rtol=0)


def test_codes_are_those_of_the_anatomy_whatever_the_box() -> None:
    """By what they say of whole scans: codes are whitened, and the last components are noise."""
    model, x = trained("fanogan"), anatomy(8, seed=3)
    with torch.no_grad():
        whole, cut = (model.decode(model.code(x * view)) for view in (torch.ones(8, 1, *SHAPE), boxes(8)))
    assert float((whole - cut).square().mean()) < 0.05 * float((whole - whole.roll(1, 0)).square().mean())


@pytest.mark.parametrize("family", ["vqvae", "fanogan"])
def test_reconstructions_show_what_the_scan_shows(family: str) -> None:
    model, view = trained(family), boxes(4)
    x = anatomy(4, seed=3) * view
    made = model.reconstruct(x)
    assert not made[view == 0].any()
    assert float((made - x)[view > 0].square().mean().sqrt()) < 0.1
    if family == "vqvae":
        assert not model.voxel_nll(x)[view == 0].any()
        # Padding adds nothing to the likelihood of a scan.
        rest = model.log_likelihood(x) - model.code_log_likelihood(model.codes(x), view)
        torch.testing.assert_close(rest, -model.voxel_nll(x).flatten(1).sum(1), atol=1e-2, rtol=1e-4)
