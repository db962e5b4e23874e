"""Sentences of an exploration follow the fields that hold what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medgen.models.exploration import Covariate, Manifold, Regression
from medgen.report.exploration import Step, covariate_words, far_meaning, far_words

MANIFOLD = Manifold(np.zeros(2), np.eye(2), np.linspace(1, 2, 40))
STEP = Step(0.0, "first", 1.0, 0.5, far=False, volumes={})
AGE = Covariate("age", {"c1": 41.0})


def test_marked_steps_are_named():
    far = replace(STEP, caption="last", far=True)
    assert far_words([STEP, STEP], MANIFOLD) == (
        "None of the 2 steps is farther from the middle of the codes than 95 % of the training scans."
    )
    assert far_words([STEP, far], MANIFOLD).startswith("1 of 2 steps is farther")
    assert ": last. What is drawn there is extrapolated." in far_words([STEP, far], MANIFOLD)
    assert far_words([far, far], MANIFOLD).startswith("2 of 2 steps are farther")


@pytest.mark.parametrize(("n", "said"), [(19, "95 % of the training scans"), (18, "than all training scans")])
def test_a_mark_means_what_so_few_scans_allow(n, said):
    manifold = replace(MANIFOLD, distances=np.linspace(1, 2, n))
    assert far_meaning(manifold).endswith(said)
    assert manifold.is_far(3.0)


def test_a_covariate_that_chance_explains_is_called_so():
    found = Regression(np.zeros(2), explained=0.123, p=0.004, subjects=30)
    said = covariate_words(AGE, found, "c1")
    assert "over 30 subjects" in said
    assert "c1 (age 41): 12.3 % of the variance" in said
    assert "p = 0.004" in said
    assert "no more than chance" not in said
    assert "no more than chance" in covariate_words(AGE, replace(found, p=0.2), "c1")
