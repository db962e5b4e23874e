"""Walks through codes: ends, symmetry, planted effects, and what is far."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.data.cases import Case, Manifest
from medgen.errors import DataError
from medgen.models.base import Drawn, ScanCode
from medgen.models.exploration import (
    Manifold,
    between,
    covariate,
    label_volumes,
    looks,
    moved,
    principal_directions,
    regress,
)

INSIDE = torch.ones(4, 4, 4, dtype=torch.bool)


def place(seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, 3, 8, 8, 8), generator=generator)
    return ScanCode(torch.randn((1, 5), generator=generator), (noise,), (torch.rand((1, 2, 4, 4, 4)),))


def test_the_ends_of_an_interpolation_are_the_scans():
    a, b = place(0), place(1)
    for share, end in ((0.0, a), (1.0, b)):
        found = between(a, b, share)
        assert torch.equal(found.code, end.code)
        assert torch.equal(found.maps[0], end.maps[0])
        torch.testing.assert_close(found.noise[0], end.noise[0], rtol=0, atol=1e-6)


def test_noise_is_as_strong_halfway_and_codes_are_the_mean():
    a, b = place(0), place(1)
    found = between(a, b, 0.5)
    assert found.noise[0].norm() == pytest.approx(float((a.noise[0].norm() + b.noise[0].norm()) / 2), rel=0.03)
    torch.testing.assert_close(found.code, (a.code + b.code) / 2)
    same = between(a, a, 0.3)
    torch.testing.assert_close(same.noise[0], a.noise[0])


def linear(place, matrix):
    """A toy model whose images are linear in the code."""
    image = (place.code.double() @ torch.from_numpy(matrix)).view(1, 1, 4, 4, 4)
    return Drawn(image.float())


def toy(seed=0, n=60, d=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((d, 64)) * np.array([[0.2], [3.0], [1.0]])[:d]


def test_principal_directions_are_those_of_what_is_drawn():
    codes, matrix = toy()
    start = ScanCode(torch.zeros(1, 3))
    drawn = np.stack([looks(linear(moved(start, code), matrix), INSIDE) for code in codes])
    directions, shares = principal_directions(codes, drawn, 3)
    # The second number of the code moves most voxels, though all three vary alike.
    assert np.abs(directions[0]).argmax() == 1
    assert directions[0][1] == pytest.approx(codes[:, 1].std(ddof=1), rel=0.1)
    assert shares[0] > 0.8
    assert shares.sum() == pytest.approx(1)
    values = np.linalg.svd(drawn - drawn.mean(0), compute_uv=False) ** 2
    assert shares == pytest.approx(values[:3] / values.sum(), rel=1e-6)


def test_a_traversal_is_symmetric():
    codes, matrix = toy()
    directions, _ = principal_directions(codes, codes @ matrix, 2)
    start = ScanCode(torch.from_numpy(codes[:1]).float())
    low, high = (linear(moved(start, sign * 2 * directions[0]), matrix).image for sign in (-1, 1))
    torch.testing.assert_close((low + high) / 2, linear(start, matrix).image, rtol=1e-4, atol=1e-4)
    assert (high - low).abs().max() > 1


def test_what_lies_outside_does_not_count():
    image = torch.zeros(1, 1, 4, 4, 4)
    image[..., 0] = 5
    inside = INSIDE.clone()
    inside[..., 0] = False
    assert looks(Drawn(image), INSIDE).any()
    assert not looks(Drawn(image), inside).any()


def test_labels_alone_are_compared_by_the_label():
    labels = torch.tensor([0, 1, 2, 2]).view(1, 1, 4, 1, 1)
    found = looks(Drawn(None, labels), torch.ones(4, 1, 1), n_labels=3)
    assert found.tolist() == [0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_a_planted_effect_of_age_is_recovered_and_chance_is_not():
    rng = np.random.default_rng(0)
    effect = np.array([0.05, 0.0, -0.03, 0.0])
    people = [f"p{number // 2}" for number in range(120)]
    age = np.repeat(rng.uniform(20, 80, 60), 2)
    codes = (age[:, None] - 50) * effect + 0.3 * rng.standard_normal((120, 4))
    found = regress(codes, age, people, seed=0)
    assert found.subjects == 60
    assert found.slope == pytest.approx(effect, abs=0.01)
    assert found.p == 0.001
    means = codes.reshape(60, 2, 4).mean(1)
    line = np.polyfit(age[::2], means, 1)
    assert found.slope == pytest.approx(line[0], abs=1e-9)
    rest = means - np.polyval(line, age[::2, None])
    assert found.explained == pytest.approx(1 - (rest**2).sum() / ((means - means.mean(0)) ** 2).sum(), abs=1e-9)
    chance = [regress(codes, np.repeat(rng.permutation(age[::2]), 2), people, seed=s).p for s in range(20)]
    assert np.mean(np.array(chance) < 0.05) <= 0.2
    assert np.median(chance) > 0.2


def test_a_column_that_does_not_vary_or_has_too_few_says_nothing():
    codes = np.random.default_rng(0).standard_normal((4, 2))
    assert regress(codes, np.full(4, 3.0), list("abcd"), seed=0) is None
    assert regress(codes, np.arange(4.0), list("aabb"), seed=0) is None


def test_a_planted_far_code_is_marked_and_few_training_codes_are():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((60, 6)) @ np.diag([3, 1, 1, 0.5, 0.1, 0.1])
    manifold = Manifold.fit(codes, [f"p{n}" for n in range(60)])
    far = codes.mean(0) + np.array([0, 0, 0, 0, 3.0, 0])
    distance = float(manifold.distance(far[None])[0])
    assert manifold.is_far(distance)
    assert manifold.p_value(distance) == pytest.approx(1 / 61)
    marked = [manifold.is_far(value) for value in manifold.distance(codes)]
    assert sum(marked) <= 3
    assert not any(manifold.is_far(value) for value in manifold.distance(codes.mean(0)[None]))
    for value in (*manifold.distances, manifold.reach + 1e-9, manifold.reach - 1e-9):
        assert manifold.is_far(value) == (value > manifold.reach)


def test_new_scans_of_the_same_kind_are_called_far_as_often_as_said():
    rng = np.random.default_rng(1)
    spread = 0.8 ** np.arange(30)
    said, in_their_own = [], []
    for _ in range(10):
        codes = rng.standard_normal((40, 30)) * spread
        manifold = Manifold.fit(codes, [f"p{n}" for n in range(40)])
        own = replace(manifold, distances=manifold.distance(codes))
        for value in manifold.distance(rng.standard_normal((50, 30)) * spread):
            said.append(manifold.is_far(value))
            in_their_own.append(own.is_far(value))
    assert 0.01 < np.mean(said) < 0.07
    # Why training scans are left out of the Gaussian that they are compared with.
    assert np.mean(in_their_own) > 0.2


def test_scans_of_one_subject_are_left_out_together():
    rng = np.random.default_rng(0)
    once = rng.standard_normal((12, 4))
    once[0] += 30
    twice = np.repeat(once, 2, axis=0)
    manifold = Manifold.fit(twice, [f"p{n // 2}" for n in range(24)])
    # With its twin left in, the outlier would explain itself.
    assert manifold.distances[0] > 4 * np.median(manifold.distances)


def test_few_scans_mark_what_is_farther_than_all():
    codes = np.random.default_rng(0).standard_normal((8, 2))
    manifold = Manifold.fit(codes, list("abcdefgh"))
    assert manifold.limit == pytest.approx(1 / 9)
    assert manifold.is_far(manifold.distances.max() + 1)
    assert not manifold.is_far(manifold.distances.max())


def test_too_few_subjects_are_refused():
    with pytest.raises(DataError, match=r"2 subject\(s\); expected at least 3"):
        Manifold.fit(np.zeros((4, 2)), list("aabb"))


def manifest(**columns):
    cases = [
        Case(f"c{row}", f"s{row}", (Path("x.nii"),), attributes={name: values[row] for name, values in columns.items()})
        for row in range(3)
    ]
    return Manifest("mine", Path(), tuple(cases))


def test_columns_are_numbers_or_two_texts():
    age = covariate(manifest(age=("30", "n/a", "41.5")), "age")
    assert (age.values, age.names) == ({"c0": 30.0, "c2": 41.5}, ())
    assert age.words(41.52) == "41.5"
    sex = covariate(manifest(sex=("M", "F", "M")), "sex")
    assert sex.values == {"c0": 1.0, "c1": 0.0, "c2": 1.0}
    assert [sex.words(value) for value in (0.0, 0.25, 1.0)] == ["F", "25 % M", "M"]


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (("30", "41", "50"), "sex", "no column 'sex' with values; it has age; correct --along"),
        (("a", "b", "c"), "age", "holds 3 different texts, the first 'a'; expected numbers, or two different texts"),
        (("inf", "1", "2"), "age", "not finite"),
    ],
)
def test_other_columns_are_refused(values, name, message):
    with pytest.raises(DataError, match=message):
        covariate(manifest(age=values), name)


def test_volumes_of_labels():
    labels = torch.tensor([0, 1, 2, 2, 2]).view(1, 1, 5, 1, 1)
    assert label_volumes(labels, (1, 2, 3), 500.0) == {1: 0.5, 2: 1.5, 3: 0.0}
