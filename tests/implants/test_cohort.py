import numpy as np
import pytest

from medgen import io
from medgen.data.cards.card import lint, read_card
from medgen.data.cases import Case, Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError, DataError
from medgen.faults import FaultyDataError
from medgen.implants import implant_cohort
from medgen.implants.catalogue import registered
from medgen.implants.cohort import read_shape
from medgen.volume import Grid, Volume

VALIDATION = ("twist", "sharpen", "fade", "ramp")
AFFINE = np.array([[-1, 0, 0, 10], [0, 0, 1.5, -7], [0, 1, 0, 3], [0, 0, 0, 1]], dtype=float)


def healthy(folder, n=3, channels=1):
    cases = []
    for index in range(n):
        rng = np.random.default_rng(index)
        grid = Grid((24 + index, 26, 20), AFFINE)  # native grids differ
        images = []
        for channel in range(channels):
            data = (100 + 20 * rng.standard_normal(grid.shape)).astype(np.int16)
            images.append(folder / f"{index}_{channel}.nii.gz")
            io.write(Volume(data[None], grid), images[-1])
        cases.append(Case(f"c{index}", f"s{index // 2}", tuple(images)))
    return Manifest("phantoms", folder, tuple(cases)).with_hashes()


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "lesions"
    folder.mkdir()
    for index, spacing in enumerate((1.0, 2.0)):
        data = np.zeros((1, 16, 16, 16), np.uint8)
        data[0, 4:12, 5 + index : 9, 6:10] = 1
        io.write(Volume(data, Grid((16, 16, 16), np.diag([1, 1, spacing, 1]))), folder / f"lesion-{index}.nii.gz")
    return folder


def test_healthy_twins_and_implants(tmp_path, masks):
    source = healthy(tmp_path / "in")
    done = []
    out = tmp_path / "out"
    result = implant_cohort(
        source,
        out,
        seed=0,
        masks=masks,
        radius_mm=(3, 4),
        contrast=(1, 2),
        per_scan=5,
        progress=lambda i, n: done.append((i, n)),
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert len(result) == 3 * 6
    assert result.subjects == source.subjects
    loaded = load_cohort(out)
    assert loaded.digest() == result.digest()
    assert loaded.labels == {1: "implant"}
    originals = {case.id: case for case in source}
    kinds = []
    for case in loaded:
        original = originals[case.attributes["source"]]
        before, after, truth = original.read_image(), case.read_image(), case.read_mask()
        assert case.subject == original.subject
        assert after.grid.same_as(before.grid, tolerance=1e-6)
        assert after.data.dtype == np.float32
        changed = before.data != after.data
        assert np.array_equal(changed[0], truth.data[0] == 1)
        kind = case.attributes["kind"]
        assert changed.any() == (kind != "none")
        if kind == "none":
            assert (case.attributes["radius_mm"], case.attributes["contrast"]) == ("0", "0")
        else:
            kinds.append(kind)
            assert 3 <= float(case.attributes["radius_mm"]) <= 4
            assert 1 <= float(case.attributes["contrast"]) <= 2
    # Kinds take turns: 15 implants of 14 kinds hold every kind.
    assert set(kinds) == set(registered()) - set(VALIDATION)
    card = read_card(out / "card.md")
    assert lint(out / "card.md") == []
    assert card.fields.provenance.parents_sha256 == source.digest()
    assert card.fields.n_cases == 18
    assert card.fields.n_subjects == 2


def test_deterministic_in_the_seed(tmp_path):
    source = healthy(tmp_path / "in", 2)
    a, b, c = (
        implant_cohort(source, tmp_path / name, seed, ["uniform"]) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert a.digest() == b.digest() != c.digest()


def test_channels_share_the_place(tmp_path):
    source = healthy(tmp_path / "in", 1, channels=2)
    result = implant_cohort(source, tmp_path / "out", 0, ["hyperintense"], radius_mm=(4, 4), contrast=(2, 2))
    case = result.cases[1]
    assert len(case.images) == 2
    changed = case.read_image().data != source.cases[0].read_image().data
    assert changed[0].sum() > 50
    assert np.array_equal(changed[0], changed[1])


def test_default_kinds_leave_out_what_is_not_there(tmp_path):
    source = healthy(tmp_path / "in", 1)
    result = implant_cohort(source, tmp_path / "out", 0, per_scan=20)
    kinds = {case.attributes["kind"] for case in result}
    assert kinds == set(registered()) - {"foreign", "poisson", "lesion", *VALIDATION} | {"none"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kinds": ["additive"]}, ConfigError, "unknown implant kind 'additive'"),
        ({"kinds": []}, ConfigError, "no implant kind"),
        ({"kinds": ["lesion"]}, ConfigError, "pass --masks"),
        ({"kinds": ["foreign"]}, ConfigError, "at least two subjects"),
        ({"radius_mm": (0, 4)}, ConfigError, "radius_mm"),
        ({"radius_mm": (5, 4)}, ConfigError, "radius_mm"),
        ({"contrast": (0, 4)}, ConfigError, "contrast"),
        ({"contrast": (1e-9, 1e-9)}, DataError, "changes nothing at any of 10 places"),
        ({"per_scan": 0}, ConfigError, "per_scan"),
        ({"radius_mm": (30, 40)}, DataError, "0_0.nii.gz: an implant of radius"),
        ({"masks": "nowhere"}, DataError, "no such folder"),
    ],
)
def test_wrong_arguments(tmp_path, options, error, message):
    source = healthy(tmp_path / "in", 1)
    with pytest.raises(error, match=message):
        implant_cohort(source, tmp_path / "out", **{"seed": 0, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_folder_of_masks(tmp_path, masks):
    with pytest.raises(DataError, match="no scan"):
        implant_cohort(Manifest("none", tmp_path, ()), tmp_path / "out", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in it"):
        implant_cohort(healthy(tmp_path / "first", 1), tmp_path / "out", 0, masks=tmp_path / "empty")
    # Voxels of 1 x 1 x 2 mm become cubes.
    assert read_shape(masks / "lesion-1.nii.gz").shape == (16, 16, 32)
    io.write(Volume(np.ones((1, 4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4))), masks / "template.nii.gz")
    with pytest.raises(DataError, match="leave other images out"):
        read_shape(masks / "template.nii.gz")
    source = healthy(tmp_path / "in", 1)
    result = implant_cohort(source, tmp_path / "out", 0, ["lesion"], masks, per_scan=6, radius_mm=(3, 4))
    assert len(result) == 7  # the template is passed over
    (masks / "template.nii.gz").write_bytes((masks / "template.nii.gz").read_bytes()[:-9])
    with pytest.raises(FaultyDataError, match=r"template\.nii\.gz: the gzip stream ends too early"):
        implant_cohort(source, tmp_path / "other", 0, ["lesion"], masks)
    io.write(Volume(np.ones((1, 4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4))), masks / "template.nii.gz")
    for path in masks.glob("lesion-*"):
        path.unlink()
    with pytest.raises(DataError, match="none of 1 images is a lesion mask"):
        implant_cohort(source, tmp_path / "other", 0, ["lesion"], masks)


def test_real_cohort_and_real_lesions(shared_data, tmp_path):
    source = load_cohort(shared_data / "hippocampus")
    ids = [case.id for case in source][:6:2]
    result = implant_cohort(source.subset(ids), tmp_path / "out", 0, radius_mm=(3, 8))
    assert len(result) == 6
    shapes = sorted((shared_data / "lesions").glob("Subject_*.nii.gz"))[::20]
    assert all(0 < read_shape(path).mean() < 0.1 for path in shapes)
