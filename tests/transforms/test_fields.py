"""Smooth fields: B-splines against SciPy, flows against closed forms, folds found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from medgen.seeds import torch_rng
from medgen.transforms.fields import (
    control_shape,
    expand,
    exponentiate,
    identity,
    jacobian_minimum,
    smooth_noise,
    warp,
    warp_cubic,
    warp_labels,
    warp_shares,
)

SHAPE = (14, 17, 12)


def test_expand_is_a_uniform_cubic_b_spline() -> None:
    points = control_shape(SHAPE, 5)
    control = torch.randn(2, 1, *points, generator=torch_rng(0))
    result = expand(control, SHAPE)[1, 0].double().numpy()
    expected = control[1, 0].double().numpy()
    for axis, n in enumerate(SHAPE):
        m = points[axis]
        # Control point k sits at k - 1 knot intervals; interval 0 is the left edge of the field of view.
        position = (np.arange(n) + 0.5) / n * (m - 3)
        basis = BSpline.design_matrix(position, np.arange(-3, m + 1).astype(float), 3).toarray()
        expected = np.moveaxis(np.tensordot(basis, expected, axes=([1], [axis])), 0, axis)
    assert np.allclose(result, expected, atol=1e-5)


def test_expand_reproduces_constants_and_agrees_across_resolutions() -> None:
    control = torch.randn(1, 3, *control_shape((16, 16, 16), 4), generator=torch_rng(1))
    assert torch.allclose(expand(torch.ones_like(control), SHAPE), torch.ones(1, 3, *SHAPE), atol=1e-5)
    fine, coarse = expand(control, (16, 16, 16)), expand(control, (8, 8, 8))
    assert torch.allclose(torch.nn.functional.avg_pool3d(fine, 2), coarse, atol=0.1)


def test_smooth_noise_has_unit_spread_and_is_seeded() -> None:
    first = smooth_noise(40, 2, SHAPE, 4, torch_rng(0))
    assert torch.equal(first, smooth_noise(40, 2, SHAPE, 4, torch_rng(0)))
    assert float(first.std()) == pytest.approx(0.95, abs=0.1)


def test_constant_velocity_flows_to_a_translation() -> None:
    velocity = torch.zeros(1, 3, *SHAPE)
    velocity[:, 1] = 2.5
    assert torch.allclose(exponentiate(velocity), velocity, atol=1e-4)


def test_linear_velocity_flows_to_the_matrix_exponential() -> None:
    """For v(x) = a (x − c), the flow at time one is c + eᵃ (x − c)."""
    shape = (33, 33, 33)
    centred = identity(shape) - 16
    velocity = torch.zeros(1, 3, *shape)
    velocity[:, 0] = 0.2 * centred[:, 0]
    result = exponentiate(velocity, 7)[0, 0, 10:23, 10:23, 10:23]
    expected = (np.exp(0.2) - 1) * centred[0, 0, 10:23, 10:23, 10:23]
    assert torch.allclose(result, expected, atol=0.03)


def test_forth_and_back_is_the_identity() -> None:
    velocity = smooth_noise(1, 3, (20, 20, 20), 8, torch_rng(3)) * 1.5
    forth, back = exponentiate(velocity), exponentiate(-velocity)
    both = back + warp(forth, back, padding="border")
    assert both[..., 5:-5, 5:-5, 5:-5].abs().max() < 0.1


def test_warp_pulls_back_and_keeps_label_types() -> None:
    labels = torch.randint(0, 4, (1, 1, *SHAPE), generator=torch_rng(0), dtype=torch.uint8)
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 2] = 1
    moved = warp(labels, shift, "nearest")
    assert moved.dtype == torch.uint8
    assert torch.equal(moved[..., :-1], labels[..., 1:])


def test_jacobian_of_an_affine_map_and_of_a_fold() -> None:
    scaled = torch.zeros(2, 3, *SHAPE)
    scaled[0, 0] = 0.5 * identity(SHAPE)[0, 0]
    scaled[1, 1] = -0.3 * identity(SHAPE)[0, 1]
    assert torch.allclose(jacobian_minimum(scaled), torch.tensor([1.5, 0.7]), atol=1e-4)
    fold = torch.zeros(1, 3, *SHAPE)
    fold[0, 0, 6] = 1.2  # this plane is drawn from beyond the next one
    assert float(jacobian_minimum(fold)) < 0


def test_flows_of_smooth_velocities_do_not_fold() -> None:
    velocity = smooth_noise(6, 3, (16, 18, 14), 6, torch_rng(5)) * 2
    assert (jacobian_minimum(exponentiate(velocity)) > 0).all()


def test_cubic_warps_are_exact_at_voxels_and_sharper_between_them() -> None:
    image = torch.rand(2, 1, *SHAPE, generator=torch_rng(5))
    still = torch.zeros(2, 3, *SHAPE)
    assert torch.allclose(warp_cubic(image, still), image, atol=1e-5)
    moved = still.clone()
    moved[:, 1] = 2.0
    assert torch.allclose(warp_cubic(image, moved)[..., :-2, :], image[..., 2:, :], atol=1e-5)
    assert (warp_cubic(image, moved)[..., -1, :].abs() < 1e-6).all()
    # A wave whose period is four voxels, sampled half a voxel off: linear interpolation loses 29 % of it.
    wave = torch.sin(identity(SHAPE)[:, :1] * torch.pi / 2)
    half = torch.zeros(1, 3, *SHAPE)
    half[:, 0] = 0.5
    expected = torch.sin((identity(SHAPE)[:, :1] + 0.5) * torch.pi / 2)[:, :, 4:-4]
    errors = [float((function(wave, half)[:, :, 4:-4] - expected).abs().max()) for function in (warp, warp_cubic)]
    assert errors[0] > 0.2
    assert errors[1] < 0.07


def test_moved_labels_keep_their_volume_where_they_are_thin() -> None:
    # A shell of less than a voxel and a ball, moved by fields as registrations give them.
    grid = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij"))
    radius = (grid - 15.5).norm(dim=0)
    labels = ((radius < 12).to(torch.uint8) + ((radius >= 11.2) & (radius < 12)) + (radius < 6) * 2)[None, None]
    assert sorted(labels.unique().tolist()) == [0, 1, 2, 3]
    ratios = []
    for seed in range(6):
        field = exponentiate(smooth_noise(1, 3, (32, 32, 32), 10, torch_rng(seed, "field")) * 2.0)
        moved = warp_labels(labels, field)
        shares = warp_shares(labels, field, [0, 1, 2, 3]).sum(dim=(0, 2, 3, 4))
        ratios.append([float((moved == value).sum() / shares[value]) for value in (1, 2, 3)])
        # Where nothing is to be decided, nothing is changed.
        sure = warp_shares(labels, field, [0, 1, 2, 3]).max(dim=1, keepdim=True)
        certain = sure.values >= 1
        assert torch.equal(moved[certain], sure.indices[certain].to(torch.uint8))
    assert np.mean(ratios, axis=0) == pytest.approx([1, 1, 1], abs=0.06)


def test_the_smallest_determinant_is_that_of_linear_algebra():
    displacement = 0.4 * torch.randn(2, 3, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    corners = []
    for sides in itertools.product((0, 1), repeat=3):
        columns = []
        for axis in range(3):
            cut = torch.diff(displacement, dim=axis + 2)
            for other in {0, 1, 2} - {axis}:
                cut = cut.narrow(other + 2, sides[other], displacement.shape[other + 2] - 1)
            columns.append(cut)
        matrix = torch.stack(columns, dim=-1).movedim(1, -2) + torch.eye(3)
        corners.append(torch.linalg.det(matrix).flatten(1).amin(1))
    assert torch.allclose(jacobian_minimum(displacement), torch.stack(corners).amin(0), atol=1e-5)
