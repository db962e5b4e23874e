from __future__ import annotations

import pytest
import torch

from medgen.anomaly.scores.corruptions import KINDS, corrupt
from medgen.anomaly.scores.settings.corruptions import DEFAULT, HELD_BACK, NAMES

SHAPE = (24, 28, 22)


def scans(n=2):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((n, 1, 6, 7, 6), generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=SHAPE, mode="trilinear")
    image = image + 0.1 * torch.rand(image.shape, generator=generator)
    foreground = torch.zeros((n, 1, *SHAPE))
    foreground[:, :, 3:-3, 3:-3, 3:-3] = 1
    return image * foreground, foreground


def corrupted(kinds, seed=0, most=6):
    torch.manual_seed(seed)
    return corrupt(*scans(), kinds, (2.0, 5.0), most)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_tissue_and_marks_where(kind):
    image, foreground = scans()
    after, truth = corrupted([kind])
    changed = (after != image).any(dim=1, keepdim=True)
    assert truth.sum() > 20
    assert set(truth.unique().tolist()) == {0.0, 1.0}
    assert not changed[foreground == 0].any()
    assert torch.isfinite(after).all()
    # A mark may sit beside the voxel that changed, not further away.
    near = torch.nn.functional.max_pool3d(changed.float(), 3, stride=1, padding=1)
    assert (truth <= near).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    first, again, other = corrupted([kind], 1), corrupted([kind], 1), corrupted([kind], 2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_scan_without_foreground_stays_as_it_is():
    image, foreground = scans()
    foreground[1] = 0
    torch.manual_seed(0)
    after, truth = corrupt(image, foreground, DEFAULT, (2.0, 5.0), 4)
    assert torch.equal(after[1], image[1])
    assert truth[1].sum() == 0
    assert truth[0].sum() > 0


def test_the_input_is_not_changed():
    image, foreground = scans()
    before = image.clone()
    corrupt(image, foreground, DEFAULT, (2.0, 5.0), 4)
    assert torch.equal(image, before)


def test_what_validation_uses_is_not_learned():
    from medgen.implants.implanted_scans import ValidationConfig

    assert tuple(KINDS) == NAMES
    assert set(HELD_BACK).isdisjoint(DEFAULT)
    assert set(DEFAULT) | set(HELD_BACK) == set(KINDS)
    # twist, sharpen and fade have their counterparts held back; a ramp has none.
    assert set(ValidationConfig().kinds) == {"twist", "sharpen", "fade", "ramp"}
