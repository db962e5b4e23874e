"""The guess that does not look at the scan: what most training scans have at each place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from medgen.errors import DataError
from medgen.metrics.segmentation import dice
from medgen.synthesis.value.blind import BlindGuess, blind_dice
from medgen.synthesis.value.cells import TestSet
from tests.builders.labelled_scans import blobs


def test_shares_are_those_of_the_training_scans() -> None:
    real = blobs(5, 0, "a")
    guess = BlindGuess.of(real, (1, 4))
    assert guess.classes == (0, 1, 4)
    assert torch.allclose(guess.shares.sum(dim=0), torch.ones(real.shape))
    assert real.labels is not None
    assert torch.allclose(guess.shares[2], (real.labels[:, 0] == 4).float().mean(dim=0))
    assert guess.probabilities(real.images[:2]).shape == (2, 3, *real.shape)
    with pytest.raises(DataError, match="found none"):
        BlindGuess.of(replace(real, labels=None), (1, 4))


def test_dice_is_that_of_the_majority_and_subjects_count_alike() -> None:
    real, test = blobs(5, 0, "a"), blobs(3, 1, "t")
    test = replace(test, subjects=("x", "x", "y"), prepared=cast(Any, (None,) * 3))
    assert real.labels is not None
    assert test.labels is not None
    masks = tuple(SimpleNamespace(data=test.labels[row].numpy(), grid=None) for row in range(3))
    # The native grid is the model grid.
    recipe = SimpleNamespace(restore=lambda data, prepared, order: SimpleNamespace(data=data))
    found = blind_dice(real, TestSet(test, cast(Any, masks), cast(Any, recipe)), (1, 4))
    counts = np.stack([(real.labels[:, 0] == value).sum(dim=0).numpy() for value in (0, 1, 4)])
    guess = np.array((0, 1, 4))[counts.argmax(axis=0)]
    each = [np.mean([dice(guess, test.labels[row, 0].numpy(), label) for label in (1, 4)]) for row in range(3)]
    assert found == pytest.approx((np.mean(each[:2]) + each[2]) / 2)
