"""Which labels are lesions: those named, else those that look like it, else none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medgen.errors import DataError
from medgen.synthesis.cohort.label_facts import LabelFacts
from medgen.synthesis.estimates import Outline
from medgen.synthesis.lesions.focal import FocalConfig, expected_lesions, focal_lesions
from medgen.synthesis.sources import Sources
from tests.builders.labelled_scans import sources

__all__ = ["sources"]

ORGAN = LabelFacts(1, 1.0, 1.0, 0.1, 0.05, 0.01, 9, 9, (8, 8, 8))
LESION = LabelFacts(4, 0.7, 3.0, 0.01, 1.0, 0.2, 6, 18, (5, 5, 5))


def test_organs_are_no_lesions_unless_they_are_named(sources: Sources) -> None:
    for refused in (
        lambda: focal_lesions(sources, FocalConfig()),
        lambda: expected_lesions(FocalConfig(), Outline((32, 32, 32), 1, (1, 4), 9, 0, facts=(ORGAN,))),
    ):
        with pytest.raises(DataError, match=r"found organs only \(labels 1.*name the lesions"):
            refused()
    assert focal_lesions(sources, FocalConfig(lesion_labels=(4,))).labels == (4,)


def test_the_plan_takes_what_looks_focal() -> None:
    outline = Outline((32, 32, 32), 1, (1, 4), 9, 0, facts=(ORGAN, LESION))
    assert expected_lesions(FocalConfig(), outline)[1:] == (1, [LESION])
    assert expected_lesions(FocalConfig(lesion_labels=(1, 4)), outline)[1:] == (2, [ORGAN, LESION])
    # Nothing is known of the labels before scans are read: all of them are expected.
    assert expected_lesions(FocalConfig(), replace(outline, facts=()))[1:] == (2, [])
