"""Drawn labels: their volumes and places are those of the training anatomies, and their borders are the view's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.models.code_pool import ShapeLimits, shape_descriptors
from medgen.synthesis.backend import FitContext
from medgen.synthesis.label_sources.shape import ShapeConfig, ShapeLabels
from medgen.synthesis.sources import Sources
from tests.builders.labelled_scans import blobs

SETTINGS = {
    "mask": {"widths": (16,), "latent": 4, "components": 3, "narrow": 4},
    "mask_training": {"steps": 4, "batch_size": 2, "log_every": 1, "augment": None},
    "mask_spread": 1.0,
}


@pytest.fixture(scope="module")
def cohort() -> Sources:
    return Sources(blobs(12, 0, "a"), blobs(4, 1, "u", labelled=False), (1, 4), {})


@pytest.fixture(scope="module")
def drawing(cohort: Sources, context: FitContext) -> ShapeLabels:
    return ShapeLabels.fit(cohort, ShapeConfig.model_validate(SETTINGS), context)


def described(labels: np.ndarray) -> np.ndarray:
    return shape_descriptors(torch.from_numpy(labels)[None, None], (1, 4))[0]


def test_drawn_anatomies_are_within_the_limits_of_real_ones(drawing: ShapeLabels, cohort: Sources) -> None:
    assert cohort.labelled.labels is not None
    limits = ShapeLimits.fit(shape_descriptors(cohort.labelled.labels, (1, 4)))
    drawn = [drawing.draw(seed) for seed in range(24)]
    outside = [limits.excess(described(anatomy.labels)) > 0 for anatomy in drawn]
    draws = [anatomy.facts["draws"] for anatomy in drawn]
    # Without drawing again, as many would be outside as were drawn more than once.
    assert np.mean(outside) <= 0.1 < np.mean(np.array(draws) > 1)
    assert np.all(np.array(draws)[outside] > max(np.array(draws)[~np.array(outside)]) - 1)


def test_labels_have_the_mean_volumes_of_real_ones(drawing: ShapeLabels, cohort: Sources) -> None:
    assert cohort.labelled.labels is not None
    for label in (1, 4):
        real = (cohort.labelled.labels == label).flatten(1).sum(1).float().mean()
        drawn = np.mean([(drawing.draw(seed).labels == label).sum() for seed in range(24)])
        assert drawn == pytest.approx(float(real), rel=0.15)


def test_a_drawn_anatomy_is_in_view_and_nothing_else_is(drawing: ShapeLabels) -> None:
    """All that these scans show has a label."""
    for seed in range(6):
        anatomy = drawing.draw(seed)
        assert anatomy.view is not None
        assert np.array_equal(anatomy.view, anatomy.labels > 0)
