"""The bias of inferred labels: what is measured, what counts as bias, and who may judge whom."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from medgen.errors import DataError
from medgen.metrics.interval import Interval
from medgen.preprocessing.dataset import Dataset
from medgen.synthesis.cohort.label_bias import LabelBias, compare, halves_differ, measure_bias
from medgen.system.files import plain
from tests.builders.labelled_scans import blobs


def cubes(sides: list[int], label: int = 1) -> np.ndarray:
    """A label map per side: a bar of so many voxels."""
    maps = np.zeros((len(sides), 1, 1, 64), dtype=np.uint8)
    for row, side in enumerate(sides):
        maps[row, ..., :side] = label
    return maps


def test_ratio_and_dice_are_those_of_the_volumes() -> None:
    human, inferred = cubes([40, 50, 40, 50]), cubes([30, 40, 30, 40])
    found = compare(inferred, human, list("abcd"), 1, 0.05, seed=0)
    assert found.volume_ratio.estimate == pytest.approx(140 / 180)
    assert found.dice.estimate == pytest.approx(np.mean([60 / 70, 80 / 90] * 2))
    assert found.volume_ratio.low <= found.volume_ratio.estimate <= found.volume_ratio.high
    assert found.scans == 4
    assert found.volume_ratio.n == 4


def test_a_bias_within_what_real_scans_differ_by_counts_as_none() -> None:
    subjects = [f"s{row}" for row in range(8)]
    alike, unlike = [40, 41] * 4, [20, 60] * 4
    for sides, biased in ((alike, True), (unlike, False)):
        found = compare(cubes([side * 4 // 5 for side in sides]), cubes(sides), subjects, 1, 0.05, seed=0)
        assert found.volume_ratio.estimate == pytest.approx(0.8, abs=0.02)
        assert found.biased is biased
    # A difference that may be chance is no bias: half of the scans too small, half too large by nearly as much.
    found = compare(cubes([30, 52] * 4), cubes([40] * 8), subjects, 1, 0.001, seed=0)
    assert found.volume_ratio.low < 1 < found.volume_ratio.high
    assert not found.biased


def test_labels_drawn_where_nobody_has_them_make_the_volume_larger() -> None:
    found = compare(cubes([10, 10, 10, 10]), cubes([10, 10, 0, 0]), list("abcd"), 1, 0.05, seed=0)
    assert found.volume_ratio.estimate == 2.0
    assert found.dice.estimate == 1.0
    assert found.scans == 2


def test_what_is_never_seen_or_cannot_be_measured_is_not_inferred() -> None:
    assert compare(cubes([0] * 4), cubes([10, 12, 10, 12]), list("abcd"), 1, 0.05, seed=0).biased
    nowhere = compare(cubes([0] * 4), cubes([0] * 4), list("abcd"), 1, 0.05, seed=0)
    assert math.isnan(nowhere.volume_ratio.estimate)
    assert nowhere.biased


def test_halves_differ_as_they_do_when_split_at_random() -> None:
    rng = np.random.default_rng(0)
    values = list(rng.normal(size=7))
    splits = [rng.permutation(values) for _ in range(20_000)]
    drawn = [order[:4].mean() - order[4:].mean() for order in splits]
    assert halves_differ(values) == pytest.approx(np.sqrt(np.mean(np.square(drawn))), rel=0.03)
    assert math.isnan(halves_differ([1.0]))


def test_nobody_judges_a_scan_that_it_has_learnt_from() -> None:
    data = blobs(6, 0, "a")
    data = replace(data, subjects=("x", "x", "y", "y", "z", "w"))
    asked: list[str] = []

    def infer(others: Dataset, images: Tensor, fold: int) -> Tensor:
        assert data.labels is not None
        rows = [row for image in images for row in range(6) if torch.equal(image, data.images[row])]
        held_out = {data.subjects[row] for row in rows}
        assert not held_out & set(others.subjects)
        assert held_out | set(others.subjects) == {*data.subjects}
        asked.extend(data.ids[row] for row in rows)
        return data.labels[rows]

    found = measure_bias(data, (1, 4), infer, folds=3, least=0.05, seed=0)
    assert sorted(asked) == sorted(data.ids)
    assert [item.volume_ratio.estimate for item in found] == [1.0, 1.0]
    assert not any(item.biased for item in found)
    with pytest.raises(DataError, match="two labelled subjects, found 1"):
        measure_bias(data.subset(data.ids[:2]), (1, 4), infer, folds=3, least=0.05, seed=0)


def test_plain_data_keeps_the_finding() -> None:
    found = compare(cubes([30, 40, 30]), cubes([40, 50, 40]), list("abc"), 1, 0.05, seed=0)
    assert LabelBias.from_plain(plain(found.to_plain())) == found


def test_the_sentence_follows_the_fields() -> None:
    item = LabelBias(1, 6, Interval(0.8, 0.75, 0.86, 6), Interval(0.7, 0.6, 0.8, 6), 0.06, 0.06)
    assert item.sentence("CSF") == (
        "CSF: not inferred; out of fold it is seen 20 % too small (volume ratio 0.800 [0.750, 0.860]), where 6.2 % "
        "counts as no bias."
    )
    larger = replace(item, volume_ratio=Interval(1.3, 0.9, 1.7, 6))
    assert "CSF: inferred; out of fold it is seen 30 % too large" in larger.sentence("CSF")
