"""Fields of view that follow from the anatomy, and those that do not."""

from __future__ import annotations

import numpy as np
import torch

from medgen.seeds import torch_rng
from medgen.synthesis.field_of_view import FieldOfView

SHAPE = (22, 20, 18)


def balls(radii: torch.Tensor) -> torch.Tensor:
    """Balls in the middle of a box, (n, 1, i, j, k) bool."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(size) - size / 2 + 0.5 for size in SHAPE), indexing="ij"))
    return (grid.norm(dim=0) < radii[:, None, None, None])[:, None]


def agreement(found: np.ndarray, wanted: torch.Tensor) -> float:
    both = found & wanted.numpy()
    return float(2 * both.sum() / (found.sum() + wanted.numpy().sum()))


def test_a_view_that_follows_from_the_code_is_found_for_new_codes() -> None:
    radii = torch.linspace(5, 8, 12)
    noise = torch.randn((12, 2), generator=torch_rng(0, "codes"))
    codes = torch.cat([(radii[:, None] - 6.5), noise], dim=1)
    model = FieldOfView.fit(codes, balls(radii))
    nothing = np.zeros(SHAPE, dtype=np.uint8)
    for radius in (5.6, 7.3):
        wanted = balls(torch.tensor([radius]))[0, 0]
        found = model.of(torch.tensor([[radius - 6.5, 0.0, 0.0]]), nothing)
        # The best of the training scans' average would reach less.
        assert agreement(found, wanted) > 0.95
        assert agreement(found, wanted) > agreement(model.of(torch.zeros(1, 3), nothing), wanted)


def test_a_view_that_does_not_is_the_average_one() -> None:
    radii = 6.5 + torch.tensor([-1.0, 1.0] * 10)
    codes = torch.randn((20, 6), generator=torch_rng(1, "codes"))
    model = FieldOfView.fit(codes, balls(radii))
    wanted = balls(torch.tensor([6.5]))[0, 0]
    for code in torch.randn((4, 1, 6), generator=torch_rng(2, "codes")):
        assert agreement(model.of(code, np.zeros(SHAPE, dtype=np.uint8)), wanted) > 0.93


def test_labels_are_always_in_view_and_arrays_keep_the_model() -> None:
    model = FieldOfView.fit(torch.zeros(3, 2), balls(torch.tensor([5.0, 6.0, 7.0])))
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[0, 0, 0] = 3
    found = model.of(torch.zeros(1, 2), labels)
    assert found[0, 0, 0]
    assert not found[-1, -1, -1]
    again = FieldOfView.from_arrays(model.to_arrays())
    assert np.array_equal(again.of(torch.zeros(1, 2), labels), found)


def test_scans_without_padding_are_all_in_view() -> None:
    model = FieldOfView.fit(torch.randn((5, 2), generator=torch_rng(3, "codes")), torch.ones(5, 1, *SHAPE).bool())
    assert model.of(torch.ones(1, 2), np.zeros(SHAPE, dtype=np.uint8)).all()
