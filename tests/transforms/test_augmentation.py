"""Batched augmentation: shapes, pairing of image and labels, determinism, and each transform against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import ndimage

from medgen.config import parse_config
from medgen.errors import ConfigError
from medgen.seeds import torch_rng
from medgen.transforms.augmentation import AugmentConfig, augment, blur

SHAPE = (18, 20, 16)
OFF = AugmentConfig(
    spatial=1,
    rotate_degrees=0,
    scale=(1, 1),
    stretch=0,
    translate=0,
    elastic=0,
    intensity=1,
    gamma=(1, 1),
    brightness=(1, 1),
    contrast=(1, 1),
    noise=0,
    blur=(0, 0),
    bias=0,
)


def changed(**values: object) -> AugmentConfig:
    return OFF.model_copy(update=values)


@pytest.fixture
def image() -> torch.Tensor:
    noise = torch.rand(3, 2, *SHAPE, generator=torch_rng(0, "image"))
    return torch.nn.functional.avg_pool3d(noise, 5, stride=1, padding=2)


@pytest.fixture
def labels() -> torch.Tensor:
    result = torch.zeros(3, 1, *SHAPE, dtype=torch.int64)
    result[:, :, 5:12, 6:14, 4:11] = 1
    result[:, :, 8:12, 8:12, 6:9] = 2
    return result


def test_everything_off_is_the_identity(image: torch.Tensor, labels: torch.Tensor) -> None:
    result, moved = augment(image, labels, OFF, torch_rng(0))
    assert torch.allclose(result, image, atol=1e-5)
    assert moved is not None
    assert torch.equal(moved, labels)


def test_default_keeps_shapes_types_and_inputs(image: torch.Tensor, labels: torch.Tensor) -> None:
    before, before_labels = image.clone(), labels.clone()
    result, moved = augment(image, labels, AugmentConfig(), torch_rng(1))
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert moved is not None
    assert moved.shape == labels.shape
    assert moved.dtype == labels.dtype
    assert set(moved.unique().tolist()) <= {0, 1, 2}
    assert torch.isfinite(result).all()
    assert torch.equal(image, before)
    assert torch.equal(labels, before_labels)


def test_equal_seeds_give_equal_batches(image: torch.Tensor, labels: torch.Tensor) -> None:
    first, first_labels = augment(image, labels, AugmentConfig(), torch_rng(5))
    second, second_labels = augment(image, labels, AugmentConfig(), torch_rng(5))
    other, _ = augment(image, labels, AugmentConfig(), torch_rng(6))
    assert torch.equal(first, second)
    assert first_labels is not None
    assert second_labels is not None
    assert torch.equal(first_labels, second_labels)
    assert not torch.equal(first, other)


def test_labels_do_not_change_what_happens_to_the_image(image: torch.Tensor, labels: torch.Tensor) -> None:
    alone, nothing = augment(image, None, AugmentConfig(), torch_rng(2))
    paired, _ = augment(image, labels, AugmentConfig(), torch_rng(2))
    assert nothing is None
    assert torch.equal(alone, paired)


def test_image_and_labels_move_through_one_grid(labels: torch.Tensor) -> None:
    """An image that is its own label map still agrees with it after the strongest move."""
    config = changed(rotate_degrees=25, scale=(0.8, 1.25), stretch=0.1, translate=3, elastic=2, elastic_spacing=8)
    masks = (labels > 0).long()
    moved_image, moved = augment(masks.float(), masks, config, torch_rng(3))
    assert moved is not None
    agreement = ((moved_image > 0.5) == (moved > 0)).float().mean()
    assert agreement > 0.99
    assert not torch.equal(moved, masks)


def test_several_label_maps_move_together(labels: torch.Tensor) -> None:
    both = torch.cat([labels, labels], dim=1)
    _, moved = augment(labels.float(), both, AugmentConfig(spatial=1), torch_rng(4))
    assert moved is not None
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_samples_draw_their_own_parameters(image: torch.Tensor) -> None:
    same = image[:1].expand(3, -1, -1, -1, -1)
    result, _ = augment(same, None, changed(rotate_degrees=20), torch_rng(0))
    assert not torch.allclose(result[0], result[1])


def test_a_certain_flip_mirrors_exactly(image: torch.Tensor, labels: torch.Tensor) -> None:
    result, moved = augment(image, labels, changed(flip=(1.0, 0.0, 1.0)), torch_rng(0))
    assert torch.allclose(result, image.flip(2, 4), atol=1e-5)
    assert moved is not None
    assert torch.equal(moved, labels.flip(2, 4))


def test_a_shift_moves_by_voxels() -> None:
    image = torch.zeros(1, 1, *SHAPE)
    image[0, 0, 9, 10, 8] = 1
    result, _ = augment(image, None, changed(translate=3), torch_rng(0))
    centre = torch.tensor(ndimage.center_of_mass(result[0, 0].numpy()))
    offset = (centre - torch.tensor([9.0, 10.0, 8.0])).abs()
    assert 0 < offset.max() <= 3 + 1e-4


def test_rotation_keeps_distances_on_anisotropic_shapes() -> None:
    image = torch.zeros(1, 1, 15, 31, 21)
    image[0, 0, 7, 11, 10] = image[0, 0, 7, 19, 10] = 1
    result, _ = augment(image, None, changed(rotate_degrees=30), torch_rng(7))
    parts, count = ndimage.label(result[0, 0].numpy() > 0.05, structure=torch.ones(3, 3, 3).numpy())
    assert count == 2
    centres = torch.tensor(ndimage.center_of_mass(result[0, 0].numpy(), parts, [1, 2]))
    assert float((centres[0] - centres[1]).norm()) == pytest.approx(8, abs=0.4)


def test_rotation_of_thick_slices_keeps_lengths_in_space() -> None:
    # A straight bar, 5 mm thick slices: what it measures in mm stays, at whatever angle.
    spacing = torch.tensor([1.0, 1.0, 5.0])
    points = torch.stack(torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in (41, 41, 9)], indexing="ij"), -1)
    bar = torch.exp(-((points * spacing / torch.tensor([4.0, 12.0, 6.0])) ** 2).sum(-1) / 2)[None, None]
    turned, _ = augment(bar, None, changed(rotate_degrees=30, spacing=(1, 1, 5)), torch_rng(3))
    assert (turned - bar).abs().max() > 0.1

    def widths(image: torch.Tensor) -> torch.Tensor:
        weight = image[0, 0] / image.sum()
        place = points * spacing
        centred = place - (weight[..., None] * place).sum((0, 1, 2))
        covariance = torch.einsum("ijk,ijka,ijkb->ab", weight, centred, centred)
        return torch.linalg.eigvalsh(covariance).sqrt()

    assert torch.allclose(widths(turned), widths(bar), rtol=0.06)
    sheared, _ = augment(bar, None, changed(rotate_degrees=30), torch_rng(3))
    assert not torch.allclose(widths(sheared), widths(bar), rtol=0.06)


def test_noise_has_at_most_the_given_spread(image: torch.Tensor) -> None:
    result, _ = augment(image, None, changed(noise=0.5), torch_rng(0))
    spread = (result - image).std(dim=(2, 3, 4)) / image.std(dim=(2, 3, 4))
    assert (spread > 0).all()
    assert (spread < 0.55).all()


def test_brightness_is_a_factor_within_its_range(image: torch.Tensor) -> None:
    result, _ = augment(image, None, changed(brightness=(0.5, 2.0)), torch_rng(0))
    factor = result / image
    assert (factor.std(dim=(2, 3, 4)) < 1e-4).all()
    assert ((factor >= 0.5 - 1e-3) & (factor <= 2 + 1e-3)).all()


def test_contrast_and_gamma_stay_within_the_scan(image: torch.Tensor) -> None:
    result, _ = augment(image, None, changed(contrast=(0.5, 2.0), gamma=(0.5, 2.0)), torch_rng(0))
    low, high = image.amin(dim=(2, 3, 4), keepdim=True), image.amax(dim=(2, 3, 4), keepdim=True)
    assert (result >= low - 1e-5).all()
    assert (result <= high + 1e-5).all()
    assert not torch.allclose(result, image)


def test_bias_field_is_smooth_and_positive(image: torch.Tensor) -> None:
    result, _ = augment(image + 1, None, changed(bias=0.3), torch_rng(0))
    field = (result / (image + 1)).log()
    assert field.std() > 0.01
    assert field.diff(dim=2).abs().max() < field.abs().max() / 2
    # One field for all channels of a scan.
    assert torch.allclose(field[:, 0], field[:, 1], atol=1e-4)


def test_blur_matches_scipy(image: torch.Tensor) -> None:
    sigma = torch.tensor([0.5, 0.8, 1.2])
    result = blur(image, sigma)
    for row in range(3):
        expected = ndimage.gaussian_filter(image[row, 1].numpy(), float(sigma[row]), mode="nearest", radius=4)
        assert torch.allclose(result[row, 1], torch.from_numpy(expected), atol=1e-5)


def test_bad_shapes_and_ranges_are_refused(image: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected an image of shape"):
        augment(image[0], None, OFF, torch_rng(0))
    with pytest.raises(ValueError, match="do not fit"):
        augment(image, labels[:1], OFF, torch_rng(0))
    with pytest.raises(ConfigError, match="low <= high"):
        parse_config(AugmentConfig, {"gamma": [2.0, 1.0]}, source="test")
    with pytest.raises(ConfigError, match="spatial"):
        parse_config(AugmentConfig, {"spatial": 1.5}, source="test")


def test_angles_are_radians_of_the_configured_degrees() -> None:
    """A ball far from the centre moves along an arc no longer than the largest rotation about three axes allows."""
    image = torch.zeros(8, 1, 31, 31, 31)
    image[:, 0, 15, 25, 15] = 1
    result, _ = augment(image, None, changed(rotate_degrees=10), torch_rng(1))
    for scan in result:
        centre = torch.tensor(ndimage.center_of_mass(scan[0].numpy())) - 15
        angle = math.acos(float(centre[1] / centre.norm()))
        assert angle <= math.sqrt(2) * math.radians(10) + 0.03


def test_a_gradient_passes_through_and_the_values_are_the_same():
    """What a discriminator sees of a generated scan is differentiated; without a gradient the work is done in place."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 1, 12, 14, 12, generator=generator) + 0.1
    # Everything but what clamps, whose gradient has steps, at every sample of one batch and at some of another.
    for share in (1.0, 0.5):
        config = AugmentConfig(intensity=share, blur=(0.4, 1.0), bias=0.2)
        plain, _ = augment(image, None, config, torch.Generator().manual_seed(7))
        leaf = image.clone().requires_grad_()
        seen, _ = augment(leaf, None, config, torch.Generator().manual_seed(7))
        assert torch.allclose(seen, plain, atol=1e-6)
        weight = torch.randn(seen.shape, generator=generator)
        (gradient,) = torch.autograd.grad((seen * weight).sum(), leaf)
        direction = torch.randn(image.shape, generator=generator)
        step = 1e-3
        ends = [
            augment(image + sign * step * direction, None, config, torch.Generator().manual_seed(7))[0].double()
            for sign in (1, -1)
        ]
        slope = float(((ends[0] - ends[1]) * weight).sum() / (2 * step))
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.05, abs=0.5)
