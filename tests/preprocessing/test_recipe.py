from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medgen.config import parse_config
from medgen.errors import ConfigError, DataError, GeometryError
from medgen.preprocessing.prepared import Template
from medgen.preprocessing.recipe import Preprocess
from medgen.preprocessing.template import build_template
from medgen.volume import Grid, Volume

CENTER = Preprocess(shape=(40, 44, 38), spacing=(4, 4, 4))
AFFINE = Preprocess(shape=(36, 44, 34), spacing=(4, 4, 4), align="affine")


@pytest.fixture(scope="module")
def template(phantom):
    drawn = phantom.draw(AFFINE.canonical())
    return Template(drawn, drawn.with_data(drawn.data > 0.05))


@settings(max_examples=15, deadline=None)
@given(
    axes=st.sampled_from(["RAS", "LPS", "PIR", "SLA", "AIL"]),
    degrees=st.tuples(*[st.floats(-30, 30)] * 3),
    spacing=st.tuples(*[st.floats(0.8, 3)] * 3),
)
def test_a_planted_blob_comes_back_within_a_tenth_of_a_voxel(phantom, axes, degrees, spacing) -> None:
    grid = phantom.grid_of((40, 36, 32), spacing, degrees=degrees, axes=axes, centre=(15, -60, 210))
    noise = np.random.default_rng(0).uniform(1, 2, size=grid.shape)
    recipe = Preprocess(shape=(48, 48, 48), spacing=(2, 2, 2), mask_background=False)
    prepared = recipe.apply(Volume(noise[None], grid))
    place = grid.center + np.array([2.0, -1.5, 2.0])
    points = prepared.grid.to_world(np.moveaxis(np.indices(prepared.grid.shape), 0, -1))
    blob = np.exp(-(((points - place) / 3) ** 2).sum(-1) / 2)
    home = recipe.restore(blob, prepared, fill=0.0)
    assert home.grid is grid
    found = ndimage.center_of_mass(home.data[0])
    assert np.abs(np.array(found) - grid.to_voxel(place)).max() < 0.1


def test_center_keeps_obliqueness_and_goes_along_ras(phantom) -> None:
    grid = phantom.grid_of((30, 40, 50), (1, 1, 2), degrees=(12, -7, 20), axes="PIR", centre=(5, 6, 7))
    plan = CENTER.plan(grid)
    assert plan.axcodes == "RAS"
    assert np.allclose(plan.center, grid.center)
    assert np.allclose(
        np.abs(plan.affine[:3, :3] / 4).max(axis=0), np.abs(grid.affine[:3, :3] / grid.spacing).max(axis=1)
    )


def test_center_on_foreground_follows_the_organ(phantom) -> None:
    scan = phantom.draw(phantom.grid_of((60, 60, 60), (4, 4, 4)), np.diag([0.6, 0.6, 0.6, 1]) + _shift(30, -20, 40))
    prepared = CENTER.model_copy(update={"center_on": "foreground"}).apply(scan)
    assert np.abs(prepared.grid.center - (30, -20, 40)).max() < 4
    assert prepared.quality["kept"] == pytest.approx(1, abs=0.02)
    assert np.array_equal(prepared.world, np.eye(4))
    assert CENTER.apply(scan).grid.center == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("axes", ["LPI", "LAS", "SRA", "IPL"])
def test_a_finer_scan_is_prepared_alike_however_it_is_stored(phantom, axes) -> None:
    # Even and odd sides, two and three times as fine as the model: flipped, every second voxel from 0 is another one.
    grid = phantom.grid_of((90, 101, 66), (2, 2, 3))
    order = ["RAS".index(code) if code in "RAS" else "LPI".index(code) for code in axes]
    stored = phantom.grid_of(
        tuple(grid.shape[axis] for axis in order), tuple(grid.spacing[axis] for axis in order), axes=axes
    )
    recipe = Preprocess(shape=(24, 28, 24), spacing=(8, 8, 8), center_on="foreground")
    one, other = (recipe.apply(phantom.draw(on)) for on in (grid, stored))
    assert one.grid.same_as(other.grid, tolerance=1e-6)
    assert np.array_equal(one.foreground, other.foreground)
    assert np.abs(one.image - other.image).max() < 1e-5


def _shift(*offset: float) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[:3, 3] = offset
    return matrix


def test_intensities_map_percentiles_to_zero_and_one(phantom) -> None:
    scan = phantom.draw(phantom.grid_of((50, 60, 50), (3, 3, 3)), noise=0.1)
    scan = scan.with_data(np.stack([scan.data[0] * 900, 40 - scan.data[0] * 40]))
    prepared = CENTER.apply(scan)
    for channel, (offset, gain) in zip(prepared.image, prepared.scale, strict=True):
        inside = channel[prepared.foreground]
        low, high = np.percentile(inside, (1, 99))
        assert (low, high) == pytest.approx((0, 1), abs=1e-4)
        assert gain > 0
        assert inside.max() <= 1.5
        assert np.all(channel[~prepared.foreground] == 0)
        assert np.isfinite(offset)
    # Another unit gives the same image.
    again = CENTER.apply(scan.with_data(scan.data * 7 + 3))
    assert np.allclose(again.image, prepared.image, atol=2e-4)


def test_crops_inside_the_body_are_all_foreground() -> None:
    rng = np.random.default_rng(0)
    data = 100 + ndimage.gaussian_filter(rng.normal(size=(30, 34, 28)), 1) * 40
    grid = Grid(data.shape, np.eye(4))
    prepared = Preprocess(shape=(24, 24, 24), spacing=(1, 1, 1)).apply(Volume(data[None], grid))
    assert prepared.foreground.all()
    # Beyond the field of view there is nothing: neither foreground nor intensity.
    wide = Preprocess(shape=(40, 40, 40), spacing=(1, 1, 1), mask_background=False).apply(Volume(data[None], grid))
    assert wide.foreground.sum() == data.size
    assert np.all(wide.image[0][~wide.foreground] == 0)


def test_nan_in_the_scan_is_not_foreground(phantom) -> None:
    scan = phantom.draw(phantom.grid_of((40, 44, 38), (4, 4, 4)))
    data = scan.data.copy()
    data[0, 20:24, 20:24, 20:24] = np.nan
    prepared = CENTER.apply(scan.with_data(data))
    assert not prepared.foreground[21:23, 21:23, 21:23].any()
    assert np.isfinite(prepared.image).all()


def test_affine_puts_anatomy_on_the_template(phantom, template) -> None:
    world = phantom.turn((8, -5, 10)) @ np.diag([1.1, 0.95, 1.05, 1])
    world[:3, 3] = (40, -20, 100)
    grid = phantom.grid_of((64, 100, 90), (3, 2, 2), degrees=(10, 4, -6), axes="LPI", centre=(40, -20, 100))
    prepared = AFFINE.apply(phantom.draw(grid, world, noise=0.05), template)
    assert np.corrcoef(prepared.image.ravel(), template.image.data.ravel())[0, 1] > 0.97
    assert np.allclose(prepared.grid.affine, prepared.world @ template.grid.affine)
    assert prepared.grid.shape == AFFINE.shape
    assert prepared.quality["similarity"] > 0.8
    assert prepared.quality["kept"] > 0.97
    # The template's own mask, taken home, lies on the scan's foreground.
    home = AFFINE.restore(template.foreground.data, prepared, order=0, fill=0).data[0] > 0
    scan = phantom.draw(grid, world).data[0] > 0.05
    assert 2 * (home & scan).sum() / (home.sum() + scan.sum()) > 0.95


def test_whole_head_is_scaled_and_masked_by_the_organ(phantom, template) -> None:
    grid = phantom.grid_of((64, 72, 70), (3, 3, 3))
    brain = phantom.draw(grid, noise=0.03)
    distance = ndimage.distance_transform_edt(brain.data[0] < 0.05) * 3
    head = np.where((distance > 6) & (distance < 15), 5.0, brain.data[0])  # scalp far brighter than brain
    air = np.abs(np.random.default_rng(0).normal(size=grid.shape)) * 0.02
    prepared = AFFINE.apply(Volume((head + air)[None], grid), template)
    stripped = AFFINE.apply(brain, template)
    assert prepared.image.max() <= 1.5
    assert np.corrcoef(prepared.image.ravel(), stripped.image.ravel())[0, 1] > 0.95
    assert prepared.scale[0][1] == pytest.approx(stripped.scale[0][1], rel=0.15)
    assert not prepared.foreground[~(template.foreground.data[0] > 0)].any()


def test_what_helps_scans_that_do_not_register_is_named_as_it_is_typed(phantom) -> None:
    unlike = SimpleNamespace(plausible=lambda least: False)
    scans = [phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4))) for _ in range(2)]
    with pytest.raises(DataError, match=r"0 of 2 training scans .*; use preprocess\.align=center, or"):
        build_template(scans, AFFINE, register=lambda *args, **kwargs: unlike)


def test_what_cannot_be_prepared_is_refused(phantom, template) -> None:
    scan = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    with pytest.raises(ConfigError, match=r"template.*use preprocess\.align=center"):
        AFFINE.apply(scan)
    noise = np.random.default_rng(0).normal(size=scan.data.shape)
    with pytest.raises(DataError, match="cannot be registered"):
        AFFINE.apply(scan.with_data(noise), template)
    with pytest.raises(DataError, match="expected 1 channels"):
        AFFINE.apply(scan.with_data(np.concatenate([scan.data, scan.data])), template)
    with pytest.raises(DataError, match="shape"):
        AFFINE.model_copy(update={"shape": (8, 8, 8)}).apply(scan, template)
    with pytest.raises(GeometryError, match="does not fit"):
        CENTER.restore(np.zeros((3, 3, 3)), CENTER.apply(scan))
    with pytest.raises(ConfigError, match="spacing"):
        parse_config(Preprocess, {"shape": [8, 8, 8], "spacing": [1, 1, -1]}, "test")
    with pytest.raises(ConfigError, match="percentiles"):
        parse_config(Preprocess, {"shape": [8, 8, 8], "spacing": [1, 1, 1], "percentiles": [99, 1]}, "test")


def test_restore_takes_tensors_and_marks_what_was_not_seen(phantom) -> None:
    import torch

    scan = phantom.draw(phantom.grid_of((60, 60, 60), (4, 4, 4)))
    prepared = CENTER.apply(scan)
    home = CENTER.restore(torch.ones(1, 40, 44, 38, dtype=torch.bfloat16), prepared)
    assert np.isnan(home.data).any()
    assert np.nanmin(home.data) == np.nanmax(home.data) == 1
    labels = CENTER.restore(torch.ones(40, 44, 38, dtype=torch.uint8), prepared, order=0, fill=0)
    assert labels.data.dtype == np.uint8
    assert np.array_equal(labels.data == 1, np.isfinite(home.data))


def test_recipe_and_template_travel_as_data(template) -> None:
    again = Template.from_arrays(template.to_arrays())
    assert np.array_equal(again.image.data, template.image.data)
    assert np.array_equal(again.foreground.data > 0, template.foreground.data > 0)
    assert again.grid.same_as(template.grid, 0)
    assert AFFINE.model_dump(mode="json")["align"] == "affine"
    assert Preprocess.model_validate(AFFINE.model_dump(mode="json")) == AFFINE
    with pytest.raises(DataError, match="affine"):
        Template.from_arrays({"image": template.image.data, "foreground": template.foreground.data})


def _cohort(phantom, count: int) -> list[Volume]:
    rng = np.random.default_rng(5)
    scans = []
    for index in range(count):
        world = phantom.turn(tuple(rng.uniform(-8, 8, 3))) @ np.diag([*rng.uniform(0.88, 1.12, 3), 1])
        world[:3, 3] = rng.uniform(-80, 80, 3)
        grid = phantom.grid_of((50, 58, 48), (3.6, 3.6, 3.6), axes="LAS", centre=tuple(world[:3, 3]))
        scans.append(phantom.draw(grid, world, noise=0.05, seed=index))
    return scans


def test_template_is_the_mean_in_size_and_pose(phantom, template) -> None:
    scans = _cohort(phantom, 5)
    calls: list[tuple[int, int]] = []
    built = build_template(scans, AFFINE, iterations=2, progress=lambda *done: calls.append(done))
    assert calls[-1] == (10, 10)
    assert built.grid.same_as(AFFINE.canonical())
    prepared = [AFFINE.apply(scan, built) for scan in scans]
    # Every scan is itself within a few percent of the template: their mean determinant is one.
    assert np.mean([np.log(item.quality["determinant"]) for item in prepared]) == pytest.approx(0, abs=0.03)
    assert min(item.quality["similarity"] for item in prepared) > 0.8
    sharp = np.mean([np.corrcoef(item.image.ravel(), built.image.data.ravel())[0, 1] for item in prepared])
    centred = build_template(scans, AFFINE.model_copy(update={"align": "center", "center_on": "foreground"}))
    loose = AFFINE.model_copy(update={"align": "center", "center_on": "foreground"})
    blurred = np.mean([np.corrcoef(loose.apply(s).image.ravel(), centred.image.data.ravel())[0, 1] for s in scans])
    assert sharp > blurred + 0.02
    one, two = (build_template(scans[:2], AFFINE, iterations=1, workers=workers) for workers in (1, 2))
    assert np.array_equal(one.image.data, two.image.data)


def test_template_leaves_out_what_does_not_register(phantom, caplog) -> None:
    scans = _cohort(phantom, 3)
    noise = np.where(scans[0].data > 0, np.random.default_rng(0).uniform(1, 2, scans[0].data.shape), 0)
    with caplog.at_level("WARNING"):
        build_template([*scans, scans[0].with_data(noise)], AFFINE, iterations=1)
    assert "scan 3 was left out" in caplog.text
    with pytest.raises(DataError, match="at least one"):
        build_template([], AFFINE)


def test_brain_template_on_real_scans(phantom, shared_data) -> None:
    import nibabel as nib

    paths = sorted((shared_data / "oasis").glob("*_T1w.nii.gz"))[:3]
    scans = []
    for path in paths:
        image = nib.load(path)
        scans.append(Volume(np.asarray(image.dataobj, dtype=np.float32)[None], Grid(image.shape, image.affine)))
    recipe = Preprocess(shape=(40, 50, 40), spacing=(4.5, 4.5, 4.5), align="affine")
    built = build_template(scans[:2], recipe, iterations=1)
    prepared = recipe.apply(scans[2], built)
    assert prepared.quality["similarity"] > 0.6
    assert prepared.quality["kept"] > 0.9
    assert 0.9e6 < built.foreground.data.sum() * 4.5**3 < 2.2e6
