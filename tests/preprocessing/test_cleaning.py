"""Steps on the scan's own grid: only where they are asked for, said in words, and nothing moves."""

from __future__ import annotations

import numpy as np
import pytest

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.errors import DataError
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.bias_field import n4
from medgen.preprocessing.brain_extraction import BrainExtraction
from medgen.preprocessing.recipe import Preprocess
from medgen.preprocessing.template import build_template
from medgen.volume import Grid, Volume
from tests.builders.whole_heads import WholeHead, whole_head

RECIPE = Preprocess(shape=(24, 28, 24), spacing=(7, 7, 7), center_on="foreground", modality="MR")


@pytest.fixture(scope="module")
def brain() -> Volume:
    return SubjectDrawer(cohort_grid(4.0)).draw(3, 0).image


@pytest.fixture(scope="module")
def head(brain) -> WholeHead:
    return whole_head(brain, 1)


@pytest.fixture
def extracted(monkeypatch, head) -> list[Volume]:
    """Extraction by the truth, which takes no time; what it was asked for."""
    asked = []

    def truth(scan: Volume) -> BrainExtraction:
        asked.append(scan)
        return BrainExtraction(head.brain.with_data(head.brain.data > 0), 1234.0, 0.71, 0.96, 0.0, np.eye(4))

    monkeypatch.setattr("medgen.preprocessing.cleaning.extract_brain", truth)
    return asked


@pytest.mark.parametrize("brain_key", ["auto", "extract"])
def test_a_head_is_stripped_and_its_map_comes_back_to_its_own_voxels(head, extracted, brain_key) -> None:
    recipe = RECIPE.model_copy(update={"brain": brain_key})
    prepared = recipe.apply(head.image)
    inside = head.brain.data > 0
    assert len(extracted) == 1
    assert not prepared.cleaned.data[~inside].any()
    np.testing.assert_array_equal(prepared.cleaned.data[inside], head.image.data[inside])
    assert "extracted from the whole head: 1234 ml" in prepared.steps[0]
    assert "0.71" in prepared.steps[0]
    heat = recipe.restore(np.where(prepared.foreground, 1.0, np.nan), prepared)
    assert heat.grid.same_as(head.image.grid)
    scored = np.isfinite(heat.data)
    assert 2 * (scored & inside).sum() / (scored.sum() + inside.sum()) > 0.9


def test_a_stripped_head_is_as_one_that_came_stripped(head, extracted) -> None:
    stripped = head.image.with_data(np.where(head.brain.data > 0, head.image.data, 0))
    one = RECIPE.model_copy(update={"brain": "auto"}).apply(head.image)
    other = RECIPE.apply(stripped)
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.foreground, other.foreground)


def test_what_is_stripped_or_was_not_asked_for_stays(brain, head, extracted) -> None:
    auto, extract = (RECIPE.model_copy(update={"brain": key}).clean(brain) for key in ("auto", "extract"))
    assert auto.steps == ()
    assert "stand in a background of one value, as of a brain that was stripped already" in extract.steps[0]
    small = brain.with_data(np.where(np.indices(brain.grid.shape).sum(0) < 50, brain.data, 0))
    assert (
        "ml stand in a background of one value, no whole head"
        in RECIPE.model_copy(update={"brain": "extract"}).clean(small).steps[0]
    )
    for done in (auto, extract, RECIPE.clean(head.image)):
        assert done.changed is None
    assert extracted == []
    np.testing.assert_array_equal(extract.scan.data, brain.data)


def test_the_grid_covers_brains_where_heads_are_stripped(brain, head, extracted, tmp_path) -> None:
    cases = []
    for number in range(6):
        path = tmp_path / f"h{number}.nii.gz"
        io.write(head.image, path)
        cases.append(Case(f"h{number}", f"h{number}", (path,)))
    heads = Manifest("heads", tmp_path, tuple(cases))
    path = tmp_path / "brain.nii.gz"
    io.write(head.image.with_data(np.where(head.brain.data > 0, head.image.data, 0)), path)
    stripped = fit_preprocess(Manifest("brains", tmp_path, (Case("b", "b", (path,)),)), {}, 64)
    kept = fit_preprocess(heads, {"brain": "keep"}, 64)
    assert extracted == []
    for key in ("auto", "extract"):
        chosen = fit_preprocess(heads, {"brain": key}, 64)
        assert (chosen.shape, chosen.spacing) == (stripped.shape, stripped.spacing)
        assert np.prod(np.multiply(kept.shape, kept.spacing)) > 1.5 * np.prod(np.multiply(chosen.shape, chosen.spacing))
        # A few heads are enough.
        assert len(extracted) == 4
        extracted.clear()


def test_templates_are_made_of_stripped_heads_stripped_once(head, extracted) -> None:
    template = build_template([head.image], RECIPE.model_copy(update={"brain": "extract"}))
    assert len(extracted) == 1
    np.testing.assert_array_equal(template.image.data, RECIPE.apply(extracted[0].with_data(
        np.where(head.brain.data > 0, head.image.data, 0))).image)  # fmt: skip


def test_n4_divides_a_known_field_out_and_says_how_much() -> None:
    rng = np.random.default_rng(0)
    points = np.indices((26, 26, 26)) - 12.5
    inside = np.linalg.norm(points, axis=0) < 12
    tissue = np.where(points[0] // 4 % 2 > 0, 600.0, 900.0) + 15 * rng.standard_normal(inside.shape)
    field = np.exp(0.4 * points[1] / 12)
    scan = Volume(
        np.where(inside, tissue * field, 0)[None].astype(np.float32), Grid((26, 26, 26), np.diag([4.0, 4, 4, 1]))
    )
    corrected, low, high = n4(scan)
    bright = inside & (points[0] // 4 % 2 == 0)
    rest = corrected.data[0][bright]
    assert scan.data[0][bright].std() / scan.data[0][bright].mean() > 0.15
    assert rest.std() / rest.mean() < 0.06
    assert low == pytest.approx(np.exp(-0.4), rel=0.15)
    assert high == pytest.approx(np.exp(0.4), rel=0.15)
    done = RECIPE.model_copy(update={"bias_field": "n4"}).clean(scan)
    np.testing.assert_array_equal(done.changed.data, corrected.data)
    assert f"{low:.2f} to {high:.2f} times" in done.steps[0]
    with pytest.raises(DataError, match="MR magnitude"):
        n4(scan.with_data(scan.data - 50))
