"""Brains are found in whole heads, drawn hard around simulated and real brains, and what is no head is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medgen import io
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.errors import DataError
from medgen.preprocessing.brain_extraction import BrainExtraction, extract_brain, is_stripped
from medgen.volume import Grid, Volume
from tests.builders.whole_heads import WholeHead, whole_head

OASIS = Path(__file__).parents[3] / "shared/data/oasis"


def dice(first, second) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


@pytest.fixture(scope="module")
def head() -> WholeHead:
    brain = SubjectDrawer(cohort_grid(2.0)).draw(3, 0).image
    return whole_head(brain, 1, turn=(6, -4, 8))


@pytest.fixture(scope="module")
def found(head: WholeHead) -> BrainExtraction:
    return extract_brain(head.image)


def test_the_brain_is_found_in_a_head(head, found) -> None:
    truth = head.brain.data > 0
    assert found.mask.grid.same_as(head.image.grid)
    assert found.mask.data.dtype == np.bool_
    assert dice(found.mask.data, truth) > 0.95
    assert found.volume_ml == pytest.approx(truth.sum() * 8 / 1000, rel=0.06)


def test_no_scalp_no_eye_and_no_neck_are_taken_along(head, found) -> None:
    far = ndimage.distance_transform_edt(head.brain.data[0] == 0) * 2 > 10
    assert not found.mask.data[0][far].any()


def test_the_numbers_speak_for_a_good_mask(found) -> None:
    assert found.problem() is None
    assert found.similarity > 0.5
    assert found.symmetry > 0.9
    assert found.cut == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"volume_ml": 650.0}, "650 ml"),
        ({"volume_ml": 2300.0}, "800 to 2200 ml"),
        ({"similarity": 0.2}, "correlation with the MNI brain is 0.20"),
        ({"symmetry": 0.5}, "overlap by 0.50 when mirrored"),
        ({"cut": 0.3}, "30% of the brain"),
    ],
)
def test_what_cannot_be_believed_says_why(found, change, reason) -> None:
    assert reason in replace(found, **change).problem()


def test_half_a_head_is_refused(head) -> None:
    image = head.image
    half = image.data[:, : image.data.shape[1] * 5 // 9]
    with pytest.raises(DataError, match=r"no brain was found that can be believed.*preprocess.brain=keep"):
        extract_brain(Volume(half, Grid(half.shape[1:], image.grid.affine)))


def test_inverted_contrast_is_refused(head) -> None:
    """Fluid as bright as in T2-weighted scans."""
    data = head.image.data
    with pytest.raises(DataError, match=r"preprocess.brain=keep"):
        extract_brain(head.image.with_data(np.where(data > 30, data.max() * 1.02 - data, data)))


def test_stripped_scans_are_recognised_and_heads_are_not(head) -> None:
    stripped = head.image.with_data(np.where(head.brain.data > 0, head.image.data, 0))
    assert is_stripped(stripped)
    assert not is_stripped(head.image)
    # Air set to zero, as defacing tools do: still a head.
    assert not is_stripped(head.image.with_data(np.where(head.image.data > 60, head.image.data, 0)))


@pytest.mark.skipif(not OASIS.is_dir(), reason="the OASIS scans are not in ../shared/data")
def test_a_head_around_an_oasis_brain() -> None:
    scan = io.read(OASIS / "1128_T1w.nii.gz")
    every = scan.data[:, ::2, ::2, ::2]
    head = whole_head(Volume(every, Grid(every.shape[1:], scan.grid.affine @ np.diag([2, 2, 2, 1]))), 7)
    assert dice(extract_brain(head.image).mask.data, head.brain.data > 0) > 0.92
