"""Families that can be walked through: from the codes of a scan comes its reconstruction, and between scans something.

Families are found by themselves.
"""

from __future__ import annotations

import pytest
import torch

from medgen.models.base import HasLatent, Interpolates, PaintsLabels, Reconstructs
from medgen.models.exploration import between, moved
from tests.conformance.test_families import dataset, offering, tiny

ABLE = offering(Interpolates)


@pytest.fixture(params=ABLE)
def walked(request):
    torch.set_num_threads(1)
    data = dataset()
    model = tiny(request.param).eval()
    model.initialize(data)
    return model, data


def drawn(model, place):
    found = model.draw_at(place)
    return [part for part in (found.image, found.labels) if part is not None]


def test_the_families_with_codes_are_found():
    assert {"vae", "vaegan", "cevae", "joint", "maskvae", "flow", "spade"} <= set(ABLE)
    assert not {"context", "dae", "inpaint"} & set(ABLE)


def test_a_scan_s_codes_draw_its_reconstruction(walked):
    model, data = walked
    batch = data.batch([1])
    found = model.draw_at(model.locate(batch))
    if isinstance(model, Reconstructs):
        torch.testing.assert_close(found.image, model.reconstruct(batch.image), rtol=0, atol=2e-4)
    if isinstance(model, PaintsLabels):
        assert torch.equal(found.labels, batch.labels)
        torch.testing.assert_close(found.image, model.paint(batch.labels, model.encode_style(batch.image)[0]))
    if isinstance(model, HasLatent):
        torch.testing.assert_close(model.locate(batch).code, model.encode(batch.image)[0])
    if model.family == "maskvae":
        assert torch.equal(found.labels, model.labels_of(model.encode_labels(batch.labels)[0]))
    for part in drawn(model, model.locate(batch)):
        assert part.shape[2:] == batch.image.shape[2:]
        assert torch.isfinite(part).all()
        assert not part.requires_grad


def test_the_ends_of_a_walk_are_the_reconstructions_and_the_middle_is_neither(walked):
    model, data = walked
    a, b = (model.locate(data.batch([row])) for row in (0, 2))
    ends = drawn(model, a), drawn(model, b)
    for share, end in zip((0.0, 1.0), ends, strict=True):
        for part, expected in zip(drawn(model, between(a, b, share)), end, strict=True):
            torch.testing.assert_close(part, expected, rtol=0, atol=2e-4)
    middle = drawn(model, between(a, b, 0.5))
    assert any(not torch.allclose(part, end) for part, end in zip(middle, ends[0], strict=True))
    assert any(not torch.allclose(part, end) for part, end in zip(middle, ends[1], strict=True))


def test_what_the_code_leaves_open_is_kept(walked):
    model, data = walked
    place = model.locate(data.batch([0]))
    shift = torch.ones(place.code.shape[1], dtype=torch.float64).numpy()
    there = moved(place, shift)
    torch.testing.assert_close(there.code, place.code + 1)
    assert all(a is b for a, b in zip((*there.noise, *there.maps), (*place.noise, *place.maps), strict=True))
    back = moved(there, -shift)
    for part, expected in zip(drawn(model, back), drawn(model, place), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-3)


def test_the_grids_of_a_vae_are_kept_in_standard_deviations():
    data = dataset()
    model = tiny("vae", typical=0.0).eval()
    model.initialize(data)
    x = data.batch([0]).image
    place, (_, grids) = model.locate(data.batch([0])), model._at_means(x)
    for noise, grid in zip(place.noise, grids, strict=True):
        expected = (grid.code - grid.prior_mean) / torch.exp(0.5 * grid.prior_logvar)
        torch.testing.assert_close(noise, expected, rtol=1e-3, atol=1e-3)
    without = model.draw_at(place._replace(noise=())).image
    torch.testing.assert_close(without, model.decode(place.code).mean)
    assert not torch.allclose(without, model.draw_at(place).image, atol=1e-3)
