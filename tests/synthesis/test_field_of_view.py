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


def specks(n: int) -> torch.Tensor:
    """Label maps (n, 1, i, j, k) of one voxel, which say nothing of the view."""
    labels = torch.zeros((n, 1, *SHAPE), dtype=torch.uint8)
    labels[:, :, 11, 10, 9] = 2
    return labels


def agreement(found: np.ndarray, wanted: torch.Tensor) -> float:
    both = found & wanted.numpy()
    return float(2 * both.sum() / (found.sum() + wanted.numpy().sum()))


def test_a_view_that_follows_from_the_code_is_found_for_new_codes() -> None:
    radii = torch.linspace(5, 8, 12)
    noise = torch.randn((12, 2), generator=torch_rng(0, "codes"))
    codes = torch.cat([(radii[:, None] - 6.5), noise], dim=1)
    model = FieldOfView.fit(codes, balls(radii), specks(len(radii)))
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
    model = FieldOfView.fit(codes, balls(radii), specks(len(radii)))
    wanted = balls(torch.tensor([6.5]))[0, 0]
    for code in torch.randn((4, 1, 6), generator=torch_rng(2, "codes")):
        assert agreement(model.of(code, np.zeros(SHAPE, dtype=np.uint8)), wanted) > 0.93


def test_labels_are_always_in_view_and_arrays_keep_the_model() -> None:
    model = FieldOfView.fit(torch.zeros(3, 2), balls(torch.tensor([5.0, 6.0, 7.0])), specks(3))
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[0, 0, 0] = 3
    found = model.of(torch.zeros(1, 2), labels)
    assert found[0, 0, 0]
    assert not found[-1, -1, -1]
    again = FieldOfView.from_arrays(model.to_arrays())
    assert np.array_equal(again.of(torch.zeros(1, 2), labels), found)


def test_scans_without_padding_are_all_in_view() -> None:
    codes = torch.randn((5, 2), generator=torch_rng(3, "codes"))
    model = FieldOfView.fit(codes, torch.ones(5, 1, *SHAPE).bool(), specks(5))
    assert model.of(torch.ones(1, 2), np.zeros(SHAPE, dtype=np.uint8)).all()


def test_labels_that_end_where_the_view_ends_bring_its_border_along() -> None:
    """As tissues of a stripped brain do: the view of drawn labels is then neither wider nor narrower than they are."""
    radii = 6.5 + torch.tensor([-1.0, 1.0, 0.0] * 4)
    views = balls(radii)
    model = FieldOfView.fit(torch.randn((12, 2), generator=torch_rng(4, "codes")), views, views.byte())
    assert model.by_labels
    drawn = balls(torch.tensor([4.5]))[0, 0].byte().numpy()
    for code in (torch.zeros(1, 2), torch.ones(1, 2)):
        assert np.array_equal(FieldOfView.from_arrays(model.to_arrays()).of(code, drawn), drawn > 0)


def test_a_rim_without_a_label_is_kept() -> None:
    radii = 5.5 + torch.tensor([-1.0, 1.0, 0.0] * 4)
    codes = torch.randn((12, 2), generator=torch_rng(5, "codes"))
    model = FieldOfView.fit(codes, balls(radii + 1.5), balls(radii).byte())
    assert model.by_labels
    found = model.of(torch.zeros(1, 2), balls(torch.tensor([5.0]))[0, 0].byte().numpy())
    assert agreement(found, balls(torch.tensor([6.5]))[0, 0]) > 0.92
    assert agreement(found, balls(torch.tensor([5.0]))[0, 0]) < 0.75


def test_labels_in_the_middle_of_a_box_do_not_move_its_border() -> None:
    box = torch.zeros((8, 1, *SHAPE), dtype=torch.bool)
    box[:, :, 2:-2, 2:-2, 2:-2] = True
    labels = balls(torch.linspace(2, 5, 8)).byte()
    model = FieldOfView.fit(torch.randn((8, 2), generator=torch_rng(6, "codes")), box, labels)
    assert not model.by_labels
    assert agreement(model.of(torch.zeros(1, 2), labels[0, 0].numpy()), box[0, 0]) > 0.97
