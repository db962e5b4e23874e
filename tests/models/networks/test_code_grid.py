import numpy as np
import pytest
import torch

from medgen.models.networks.block_codes import BlockCodes
from medgen.models.networks.blocks import depth_to_space
from medgen.models.networks.code_grid import CodeGrid


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def grid(codes=3):
    torch.manual_seed(0)
    made = CodeGrid(16, codes)
    with torch.no_grad():
        for parameter in (made.neighbours, made.left, *made.expect.parameters()):
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    return made.eval()


@pytest.mark.parametrize("size", [(4, 4, 4), (3, 5, 2), (1, 1, 1)])
def test_what_is_drawn_pass_by_pass_has_the_density_that_is_computed_at_once(size):
    made = grid()
    state, noise = (
        torch.randn((2, 16, *size), generator=generator()),
        torch.randn((2, 3, *size), generator=generator(1)),
    )
    with torch.no_grad():
        code = made.draw(state, noise)
        mean, logvar = made.prior(state, code)
    torch.testing.assert_close((code - mean) / (0.5 * logvar).exp(), noise, atol=1e-4, rtol=1e-4)


def test_no_pass_sees_itself_or_a_later_one():
    made = grid(1)
    state = torch.zeros(1, 16, 2, 2, 2)
    code = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    mean = made.prior(state, code)[0].flatten()
    jacobian = torch.stack([torch.autograd.grad(value, code, retain_graph=True)[0].flatten() for value in mean])
    assert (jacobian.diagonal() == 0).all()
    # Nilpotent: an order exists in which everyone depends on earlier ones alone; and all 28 pairs are tied.
    assert torch.linalg.matrix_power(jacobian, 8).abs().max() < 1e-12
    assert int((jacobian != 0).sum()) == 28


def test_the_start_is_the_regression_on_neighbours():
    torch.manual_seed(0)
    field = torch.nn.functional.avg_pool3d(torch.randn(60, 1, 10, 10, 10), 3, stride=1) * 27**0.5
    made = CodeGrid(16, 1)
    made.fit(field, torch.tensor([-12.0]), torch.ones(60, 1, 8, 8, 8))
    with torch.no_grad():
        mean, logvar = made.prior(torch.zeros(60, 16, 8, 8, 8), field)
    last = (..., slice(0, 8, 2), slice(0, 8, 2), slice(1, 8, 2))
    assert logvar.exp()[last].mean().item() == pytest.approx((field - mean)[last].square().mean().item(), rel=0.05)
    # Inside the field the last pass has all neighbours; least squares by NumPy leaves little less.
    left = (field - mean)[..., 2:8:2, 2:8:2, 3:7:2].var().item()
    rows = field.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1).reshape(-1, 27).double().numpy()
    others = np.delete(rows, 13, axis=1)
    known = others @ np.linalg.lstsq(others, rows[:, 13], rcond=None)[0]
    assert 0.9 < left / np.var(rows[:, 13] - known) < 1.5
    assert left < 0.3 * field.var()


def test_block_codes_are_probabilistic_components():
    torch.manual_seed(0)
    mixing = torch.randn(8, 8)
    rows = torch.randn(500 * 8, 8) @ mixing
    codes = BlockCodes(2, 3, 1)
    # Voxels of each block in the module's own order.
    images = depth_to_space(rows.view(500, 2, 2, 2, 8).permute(0, 4, 1, 2, 3).contiguous())
    codes.fit(images, torch.ones_like(images))
    covariance = (rows.T @ rows / len(rows)).double().numpy()
    values, vectors = np.linalg.eigh(covariance)
    noise = values[:5].mean()
    model = (vectors[:, 5:] * (values[5:] - noise)) @ vectors[:, 5:].T + noise * np.eye(8)
    basis = codes.basis.double().numpy()
    np.testing.assert_allclose(basis.T @ basis + noise * np.eye(8), model, rtol=1e-3, atol=1e-3)
    # The posterior of z given x by Bayes' rule.
    inner = np.linalg.inv(np.eye(3) + basis @ basis.T / noise)
    expected = rows.double().numpy() @ (inner @ basis / noise).T
    found = codes.scores(images).permute(0, 2, 3, 4, 1).reshape(-1, 3)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(codes.logvar.exp(), np.diag(inner), rtol=1e-3)
