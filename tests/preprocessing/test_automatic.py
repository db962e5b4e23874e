"""The automatic recipe covers the cohort and respects what the user has decided."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgen import io
from medgen.data.cases import Case, Manifest
from medgen.errors import ConfigError, DataError
from medgen.preprocessing.automatic import fit_preprocess
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


def short_axis(folder, turns, shape=(40, 40, 7), spacing=(3.0, 3.0, 10.0)):
    """Ellipsoids in air on stacks of thick slices, each turned as given, stored left-handed as scanners do."""
    rng = np.random.default_rng(0)
    voxels = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"), axis=-1) * spacing
    cases = []
    for index, turn in enumerate(turns):
        body = np.linalg.norm(voxels / (45, 35, 29), axis=-1) < 1
        data = np.where(body, rng.uniform(100, 200, shape), rng.uniform(0, 4, shape)).astype(np.float32)
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag([-1, -1, 1]) * spacing
        path = folder / f"heart{index}.nii.gz"
        io.write(Volume(data[None], Grid(shape, affine)), path)
        cases.append(Case(f"heart{index}", f"heart{index}", (path,), None, {}, {}))
    return Manifest("hearts", folder, tuple(cases), {})


@pytest.mark.parametrize(
    ("tilt", "turn", "scatter"),
    [(0, 0, 0), (43.5, 26, 1), (37, 25, 8), (54.7, 45, 3), (45, 45, 6), (90, 44, 3), (20, 80, 4)],
)
def test_thick_slices_are_planned_as_such_at_any_angle(tmp_path, tilt, turn, scatter):
    rng = np.random.default_rng(1)
    angles = [(turn + rng.normal(0, scatter), tilt + rng.normal(0, scatter)) for _ in range(5)]
    turns = [Rotation.from_euler("zx", pair, degrees=True).as_matrix() for pair in angles]
    manifest = short_axis(tmp_path, turns)
    recipe = fit_preprocess(manifest, {}, max_side=64)
    assert sorted(recipe.spacing) == [3.0, 3.0, 10.0]
    # Ellipsoids of 90 x 70 x 58 mm and 5 % around: no axis is cut or empty for having been mistaken for another.
    covered = np.array(recipe.shape) * recipe.spacing
    assert covered[np.argmax(recipe.spacing)] == 160  # 16 slices are the least
    assert 70 <= np.sort(covered)[0] <= np.sort(covered)[1] <= 90 * 1.05 + 24
    for case in manifest:
        grid = recipe.plan(case.read_image().grid) if recipe.align == "center" else None
        assert grid is None or np.linalg.det(grid.affine) > 0


def test_random_rotations_keep_the_voxel_sizes(tmp_path):
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        turn = Rotation.random(random_state=seed).as_matrix()
        recipe = fit_preprocess(short_axis(tmp_path / str(seed), [turn] * 2), {}, max_side=64)
        assert sorted(recipe.spacing) == [3.0, 3.0, 10.0]


def test_a_frame_orders_the_axes_of_new_scans_as_those_of_the_cohort(tmp_path):
    turns = [Rotation.from_euler("zx", pair, degrees=True).as_matrix() for pair in ((44, 54), (46, 56), (47, 53))]
    manifest = short_axis(tmp_path, turns)
    recipe = fit_preprocess(manifest, {"align": "center"}, max_side=64)
    assert recipe.frame is not None
    thick = int(np.argmax(recipe.spacing))
    for case in manifest:
        native = case.read_image().grid
        grid = recipe.plan(native)
        # The model's thick axis runs along the scan's own, and the same way in every scan.
        assert native.directions[:, 2] @ grid.directions[:, thick] == pytest.approx(1)
        assert (np.diag(np.array(recipe.frame) @ grid.directions) > 0.99).all()


def test_scans_along_the_body_need_no_frame(tmp_path):
    recipe = fit_preprocess(cohort(tmp_path, (30, 40, 25), (1.0, 1.0, 1.0)), {}, max_side=64)
    assert recipe.frame is None


def test_a_frame_that_is_none_is_refused(tmp_path):
    manifest = cohort(tmp_path, (30, 40, 25), (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="perpendicular unit vectors"):
        fit_preprocess(manifest, {"frame": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}, max_side=64)


def test_small_animals_keep_their_voxels(tmp_path):
    spacing = (0.06, 0.06, 0.06)
    recipe = fit_preprocess(cohort(tmp_path, (60, 60, 60), spacing, radius=1.5), {}, max_side=64)
    assert recipe.align == "affine"
    assert recipe.spacing == spacing


def test_what_is_too_thin_to_register_is_centred_or_refused_before_anything_is_done(tmp_path):
    manifest = cohort(tmp_path, (80, 80, 10), (2.0, 2.0, 2.0), radius=60)
    recipe = fit_preprocess(manifest, {}, max_side=64)
    assert recipe.align == "center"
    with pytest.raises(ConfigError, match=r"at least 32 mm .* found 20 mm; set preprocess.align=center"):
        fit_preprocess(manifest, {"align": "affine"}, max_side=64)
