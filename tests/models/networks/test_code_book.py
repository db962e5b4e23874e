"""The code book: moving averages in closed form, k-means against scikit-learn's, dead vectors that live again."""

from __future__ import annotations

import pytest
import torch

from medgen.models.networks.code_book import CodeBook


def book(size: int = 4, length: int = 3, decay: float = 0.9) -> CodeBook:
    torch.manual_seed(0)
    return CodeBook(size, length, decay)


def test_the_nearest_vector_is_that_of_all_distances() -> None:
    mine, z = book(7), torch.randn(2, 5, 3)
    codes = mine.nearest(z)
    distance = (z[:, :, None] - mine.vectors).square().sum(-1)
    assert torch.equal(codes, distance.argmin(-1))
    torch.testing.assert_close(mine.look_up(codes), mine.vectors[codes])


def test_the_book_is_a_ratio_of_moving_averages() -> None:
    mine, z = book(), torch.randn(60, 3)
    counts, sums = mine.counts.clone(), mine.sums.clone()
    for _ in range(3):
        codes = torch.randint(4, (60,))
        mine.learn(z, codes)
        for code in range(4):
            counts[code] = 0.9 * counts[code] + 0.1 * (codes == code).sum()
            sums[code] = 0.9 * sums[code] + 0.1 * z[codes == code].sum(0)
    torch.testing.assert_close(mine.vectors, sums / counts[:, None])


def test_dead_vectors_begin_anew_at_what_was_encoded() -> None:
    mine = book(size=4)
    z = 5 + 0.01 * torch.randn(100, 3)
    mine.sums.copy_(mine.counts[:, None] * torch.tensor([[5.0] * 3, [-90.0] * 3, [-91.0] * 3, [-92.0] * 3]))
    used = []
    for _ in range(60):
        codes = mine.nearest(z)
        used.append(len(codes.unique()))
        mine.learn(z, codes)
    assert used[0] == 1
    assert used[-1] == 4
    assert float((mine.vectors - 5).abs().max()) < 0.05


def test_processes_agree_on_what_is_dead() -> None:
    """One has used a vector just now that the other has not: their sums differ, what they revive does not."""
    ranks = [book(), book()]
    for rank in ranks:
        rank.counts.copy_(torch.tensor([1.0, 1.0, 1.0, 1e-3]))
    z = [torch.full((50, 3), 2.0), torch.full((50, 3), 4.0)]
    ranks[0].learn(z[0], torch.full((50,), 3))
    ranks[1].learn(z[1], torch.zeros(50, dtype=torch.long))
    mean = [(a + b) / 2 for a, b in zip(*[rank.state() for rank in ranks], strict=True)]
    torch.testing.assert_close(
        mean[1][3] / mean[0][3],
        (2 * ranks[0].counts[3] + 4 * ranks[1].counts[3]) / (ranks[0].counts[3] + ranks[1].counts[3]) * torch.ones(3),
    )


def test_the_start_is_k_means() -> None:
    from sklearn.cluster import KMeans

    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    z = torch.cat([centre + torch.randn(50, 2, generator=generator) for centre in centres])
    mine = book(3, 2)
    mine.start(z, per_step=30)
    theirs = KMeans(3, n_init=5, random_state=0).fit(z.numpy()).cluster_centers_
    found = mine.vectors[mine.vectors.sum(1).argsort()]
    expected = torch.from_numpy(theirs)[torch.from_numpy(theirs).sum(1).argsort()]
    torch.testing.assert_close(found.sort(0).values, expected.sort(0).values, atol=1e-3, rtol=1e-3)
    assert float(mine.counts.sum()) == pytest.approx(30, rel=1e-3)


def test_more_vectors_than_there_is_to_encode() -> None:
    mine = book(16, 2)
    mine.start(torch.randn(5, 2), per_step=5)
    assert all(torch.isfinite(tensor).all() for tensor in mine.state())
    assert len(mine.nearest(mine.vectors).unique()) > 5
