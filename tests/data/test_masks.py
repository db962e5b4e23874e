"""Masks as people store them: rounded within what storing does, on the grid of their image or moved where declared."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.data.masks import on_grid, read_labels
from medgen.errors import GeometryError
from medgen.faults import FaultyDataError
from medgen.system.advice import as_options
from medgen.volume import Grid, Volume

SHAPE = (24, 28, 20)
AFFINE = np.array([[-1.2, 0, 0, 14], [0, 1.2, 0, -16], [0, 0, 2.0, -20], [0, 0, 0, 1]])


def labels():
    data = np.zeros(SHAPE)
    data[6:14, 8:16, 5:12], data[14:18, 8:16, 5:12], data[18:20, 8:12, 5:12] = 1, 2, 3
    return data


def stored(path, data, affine=AFFINE, dtype=None):
    """With nibabel's own scale where the type calls for one."""
    image = nib.Nifti1Image(data, affine)
    if dtype is not None:
        image.set_data_dtype(dtype)
    elif data.dtype != np.float64:
        image.header["scl_slope"], image.header["scl_inter"] = 1, 0
    nib.save(image, path)
    return path


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.int8])
def test_labels_stored_with_a_scale_are_whole_again(tmp_path, dtype):
    path = stored(tmp_path / "mask.nii.gz", labels() * 1.0, dtype=dtype)
    read = io.read(path).data
    assert read.dtype.kind == "f"  # or this test shows nothing
    np.testing.assert_array_equal(read_labels(path).data[0], labels())


@pytest.mark.parametrize("factor", [1 + 1e-7, 1 - 1e-7, 1 - 2e-5])
def test_labels_in_single_precision_are_whole_again(tmp_path, factor):
    path = stored(tmp_path / "mask.nii.gz", (labels() * factor).astype(np.float32))
    mask = read_labels(path)
    assert mask.data.dtype == np.int32
    np.testing.assert_array_equal(mask.data[0], labels())


@pytest.mark.parametrize("value", [0.5, 0.02, 1.98, 2.2])
def test_fractions_are_refused_with_advice(tmp_path, value):
    data = labels().astype(np.float32)
    data[10, 10, 8] = value
    path = stored(tmp_path / "mask.nii.gz", data)
    with pytest.raises(FaultyDataError, match=rf"1 voxels with fractional labels, such as {value}.*before they were"):
        read_labels(path)


def scans(folder, affine=AFFINE, data=None, shape=SHAPE):
    rng = np.random.default_rng(0)
    stored(folder / "p1_img.nii.gz", rng.normal(100, 20, SHAPE).astype(np.float32))
    stored(folder / "p1_msk.nii.gz", (labels() if data is None else data).astype(np.uint8), affine)
    return CohortConfig(images="*_img.nii.gz", masks="{id}_msk.nii.gz")


@pytest.mark.parametrize("shift", [1e-5, 3e-4, 2e-3])
def test_what_orientations_are_rounded_to_is_no_difference(tmp_path, shift):
    moved = AFFINE.copy()
    moved[:3, 3] += shift
    config = scans(tmp_path, moved)
    assert check(tmp_path, config).faults == []
    case = load_cohort(tmp_path, config).cases[0]
    image = case.read_image()
    mask = case.read_mask(image)
    assert mask is not None
    # The very grid, so that nothing downstream has to judge again.
    np.testing.assert_array_equal(mask.grid.affine, image.grid.affine)


def test_a_mask_on_another_grid_is_refused_and_moved_where_declared(tmp_path):
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] += (AFFINE[:3, :3] @ np.ones(3)) * -0.25
    data = labels().repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    config = scans(tmp_path, fine, data)
    (fault,) = check(tmp_path, config).faults
    assert "(cohort.resample_masks=true)" in str(fault)
    declared = config.model_copy(update={"resample_masks": True})
    assert check(tmp_path, declared).faults == []
    case = load_cohort(tmp_path, declared).cases[0]
    mask = case.read_mask()
    assert mask is not None
    np.testing.assert_array_equal(mask.data[0], labels())
    # How a mask is read is part of what was read.
    cohorts = [load_cohort(tmp_path, settings) for settings in (config, declared)]
    assert cohorts[0].digest() != cohorts[1].digest()


def test_a_mask_of_another_place_is_refused_even_then(tmp_path):
    away = AFFINE.copy()
    away[:3, 3] += 60
    declared = scans(tmp_path, away).model_copy(update={"resample_masks": True})
    (fault,) = check(tmp_path, declared).faults
    assert "expected a mask of the same part of the body" in str(fault)


def test_an_empty_mask_is_a_fault_unless_declared(tmp_path):
    config = scans(tmp_path, data=np.zeros(SHAPE))
    (fault,) = check(tmp_path, config).faults
    assert "(cohort.empty_masks=true)" in str(fault)
    # What data check prints of it.
    assert as_options(str(fault)).endswith("(--empty-masks)")
    declared = config.model_copy(update={"empty_masks": True})
    assert check(tmp_path, declared).faults == []
    assert load_cohort(tmp_path, declared).cases[0].empty_mask


def test_grids_are_compared_by_their_own_voxels():
    image = Volume(np.zeros((1, 8, 8, 8)), Grid((8, 8, 8), np.diag([0.1, 0.1, 0.1, 1])))
    shifted = np.diag([0.1, 0.1, 0.1, 1])
    shifted[0, 3] = 0.005  # a twentieth of a voxel
    mask = Volume(np.ones((1, 8, 8, 8), np.uint8), Grid((8, 8, 8), shifted))
    with pytest.raises(GeometryError, match=r"positions differ by up to 0.005 mm"):
        on_grid(mask, image, "mask", "image", move=False)


def test_options_reach_every_case(tmp_path):
    config = scans(tmp_path)
    manifest = load_cohort(tmp_path, config.model_copy(update={"resample_masks": True, "empty_masks": True}))
    plain = load_cohort(tmp_path, config)
    assert isinstance(plain, Manifest)
    assert [replace(case, resample_mask=False, empty_mask=False) for case in manifest] == list(plain)
    assert all(isinstance(case, Case) for case in manifest)
