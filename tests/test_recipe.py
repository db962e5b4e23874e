"""The automatic recipe covers the cohort and respects what the user has decided."""

from __future__ import annotations

import numpy as np
import pytest

from medgen import io
from medgen.cases import Case, Manifest
from medgen.errors import ConfigError, DataError
from medgen.recipe import fit_preprocess
from medgen.volume import Grid, Volume


def cohort(folder, shape, spacing, radius=None, axes=(0, 1, 2)):
    rng = np.random.default_rng(0)
    cases = []
    for index in range(3):
        data = rng.uniform(100, 200, shape).astype(np.float32)
        if radius is not None:
            centre = (np.array(shape) - 1) / 2
            distance = np.linalg.norm((np.indices(shape).T - centre) * spacing, axis=-1).T
            data[distance > radius] = 0
        affine = np.eye(4)
        affine[:3, :3] = np.diag(spacing)[:, list(axes)]
        path = folder / f"case{index}.nii.gz"
        io.write(Volume(data[None], Grid(shape, affine)), path)
        cases.append(Case(f"case{index}", f"case{index}", (path,), None, {}, {}))
    return Manifest("cohort", folder, tuple(cases), {})


def test_crops_are_centred_at_their_own_spacing(tmp_path):
    recipe = fit_preprocess(cohort(tmp_path, (30, 40, 25), (1.0, 1.0, 1.0)), {}, max_side=64)
    assert recipe.align == "center"
    assert recipe.spacing == (1.0, 1.0, 1.0)
    assert recipe.shape == (32, 40, 32)


def test_organs_in_air_are_registered_and_only_the_organ_is_covered(tmp_path):
    recipe = fit_preprocess(cohort(tmp_path, (60, 60, 60), (2.0, 2.0, 2.0), radius=40), {}, max_side=64)
    assert recipe.align == "affine"
    assert recipe.spacing == (2.0, 2.0, 2.0)
    assert recipe.shape == (48, 48, 48)


def test_too_fine_cohorts_get_coarser_voxels(tmp_path):
    recipe = fit_preprocess(cohort(tmp_path, (60, 80, 60), (1.0, 1.0, 1.0)), {}, max_side=32)
    assert recipe.shape[1] == 32
    assert recipe.spacing[0] == pytest.approx(2.5)


def test_axis_order_of_the_file_does_not_matter(tmp_path):
    recipe = fit_preprocess(cohort(tmp_path, (24, 32, 40), (1.0, 1.0, 1.0), axes=(2, 0, 1)), {}, max_side=64)
    assert recipe.shape == (32, 40, 24)


def test_what_is_decided_stays(tmp_path):
    manifest = cohort(tmp_path, (30, 40, 25), (1.0, 1.0, 1.0))
    recipe = fit_preprocess(manifest, {"spacing": [2, 2, 2], "percentiles": [2, 98]}, max_side=64)
    assert recipe.spacing == (2, 2, 2)
    assert recipe.shape == (16, 24, 16)
    assert recipe.percentiles == (2, 98)
    with pytest.raises(ConfigError, match="spacings"):
        fit_preprocess(manifest, {"spacings": [2, 2, 2]}, max_side=64)


def test_an_empty_cohort_is_refused(tmp_path):
    with pytest.raises(DataError, match="no scan"):
        fit_preprocess(Manifest("none", tmp_path, (), {}), {}, max_side=64)


def test_thick_slices_stay_thick_whatever_the_axis_order(tmp_path):
    recipe = fit_preprocess(cohort(tmp_path, (30, 40, 9), (1.0, 1.0, 5.0)), {}, max_side=64)
    assert recipe.spacing == (1.0, 1.0, 5.0)
    assert recipe.shape == (32, 40, 16)
    turned = fit_preprocess(cohort(tmp_path, (9, 30, 40), (5.0, 1.0, 1.0), axes=(0, 1, 2)), {}, max_side=20)
    assert turned.spacing == (5.0, 2.0, 2.0)
    slightly = fit_preprocess(cohort(tmp_path, (30, 40, 25), (1.0, 1.0, 1.2)), {}, max_side=64)
    assert slightly.spacing == (1.0, 1.0, 1.0)
