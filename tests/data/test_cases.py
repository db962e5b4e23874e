import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from medgen import io
from medgen.data.cases import Case, Manifest, is_safe_id, kfold_subjects, sha256_of, split_subjects, write_splits
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.errors import DataError, GeometryError
from medgen.system.files import sha256_file
from medgen.volume import Grid, Volume
from tests.builders.dicom_folders import series

GRID = Grid((4, 5, 6), np.diag([1.0, 2.0, 1.5, 1.0]))


def save(path, value=1, grid=GRID, dtype=np.int16, channels=1):
    data = (np.arange(np.prod(grid.shape)).reshape(1, *grid.shape) % 7 * value).astype(dtype)
    io.write(Volume(np.repeat(data, channels, axis=0), grid), path)
    return path


def virtual(owners) -> Manifest:
    """A manifest without files: one case per entry, owned by the named subject."""
    return Manifest("m", None, tuple(Case(f"c{n}", owner, ()) for n, owner in enumerate(owners)))  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path):
    cases = []
    for number in range(6):
        images = tuple(save(tmp_path / "data" / f"c{number}_{name}.nii.gz", number + 1) for name in ("t1", "t2"))
        mask = save(tmp_path / "data" / f"c{number}_mask.nii.gz", 1, dtype=np.uint8) if number % 2 else None
        cases.append(Case(f"c{number}", f"s{number // 2}", images, mask, {"age": str(40 + number)}))
    return Manifest("pairs", tmp_path / "data", tuple(cases), {1: "left", 6: "right"})


def test_reading(manifest):
    case = manifest.cases[1]
    image = case.read_image()
    assert image.data.shape == (2, 4, 5, 6)
    assert case.read_mask().data.max() == 6
    assert case.read_mask(image).data.dtype == np.uint8
    assert manifest.cases[0].read_mask() is None


def test_other_grids_are_refused(manifest, tmp_path):
    moved = save(tmp_path / "moved.nii.gz", 1, GRID.moved(np.array([[1, 0, 0, 0.5], *np.eye(4)[1:]])))
    smaller = save(tmp_path / "smaller.nii.gz", 1, Grid((4, 5, 3), GRID.affine))
    case = manifest.cases[1]
    with pytest.raises(
        GeometryError, match=r"moved.nii.gz: positions differ by up to 0.5 mm from those of c1_t1.nii.gz"
    ):
        replace(case, images=(case.images[0], moved)).read_image()
    with pytest.raises(GeometryError, match=r"shape 4x5x3 differs from 4x5x6 of c1_t1.nii.gz"):
        replace(case, mask=smaller).read_mask()


def test_fractional_and_negative_masks_are_refused(manifest, tmp_path):
    case = manifest.cases[1]
    half = io.read(save(tmp_path / "half.nii.gz", 0.5, dtype=np.float32))
    with pytest.raises(DataError, match="fractional labels"):
        replace(case, mask=tmp_path / "half.nii.gz").read_mask()
    io.write(half.with_data(half.data * 2), tmp_path / "whole.nii.gz")
    assert replace(case, mask=tmp_path / "whole.nii.gz").read_mask().data.dtype.kind == "i"
    save(tmp_path / "negative.nii.gz", -1)
    with pytest.raises(DataError, match="negative labels down to -6"):
        replace(case, mask=tmp_path / "negative.nii.gz").read_mask()


def test_channels_on_other_grids_are_moved_where_that_is_declared(tmp_path):
    finer = Grid((8, 10, 12), GRID.affine @ np.diag([0.5, 0.5, 0.5, 1.0]))
    first, second = save(tmp_path / "a_t1.nii.gz"), tmp_path / "a_t2.nii.gz"
    x = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in finer.shape], indexing="ij")
    io.write(Volume(sum(x)[None], finer), second)
    case = Case("a", "a", (first, second))
    with pytest.raises(GeometryError, match=r"a_t2.nii.gz: .*one grid.*\(cohort.resample_channels=true\)"):
        case.read_image()
    image = replace(case, resample_channels=True).read_image()
    assert image.grid.same_as(GRID)
    np.testing.assert_array_equal(image.data[:1], io.read(first).data)
    # A linear ramp stays what it is at every place that both grids cover.
    expected = sum(np.meshgrid(*[2.0 * np.arange(n) for n in GRID.shape], indexing="ij"))
    np.testing.assert_allclose(image.data[1][1:-1, 1:-1, 1:-1], expected[1:-1, 1:-1, 1:-1], atol=0.05)


def test_declared_channels(tmp_path):
    nib.Nifti1Image(np.zeros((4, 5, 6, 3), np.float32), GRID.affine).to_filename(tmp_path / "a.nii")
    assert Case("a", "a", (tmp_path / "a.nii",), attributes={"channels": "3"}).read_image().data.shape == (3, 4, 5, 6)
    with pytest.raises(DataError, match="3 channels; expected 2"):
        Case("a", "a", (tmp_path / "a.nii",), attributes={"channels": "2"}).read_image()
    with pytest.raises(DataError, match="4D"):
        Case("a", "a", (tmp_path / "a.nii",)).read_image()


@pytest.mark.parametrize("kind", ["nifti pair", "mhd", "dicom"])
def test_the_hash_of_a_scan_covers_every_file_that_is_read(tmp_path, kind):
    data = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    if kind == "nifti pair":
        nib.Nifti1Pair(data, GRID.affine).to_filename(tmp_path / "a.hdr")
        first, other = tmp_path / "a.hdr", tmp_path / "a.img"
    elif kind == "mhd":
        sitk.WriteImage(sitk.GetImageFromArray(data), str(tmp_path / "a.mhd"))
        first, other = tmp_path / "a.mhd", tmp_path / "a.raw"
    else:
        first, other = sorted(series(tmp_path).iterdir())[:2]
    manifest = Manifest("x", tmp_path, (Case("a", "a", (first,)),))
    before, content = manifest.with_hashes().digest(), other.read_bytes()
    assert manifest.with_hashes().digest() == before
    other.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    assert manifest.with_hashes().digest() != before


def test_the_header_of_a_pair_under_another_name_is_one_file(tmp_path):
    nib.Nifti1Pair(np.zeros((4, 5, 6), np.int16), GRID.affine).to_filename(tmp_path / "a.hdr")
    path = (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
    assert sha256_of(path) == sha256_file(path)


def test_csv_round_trip(manifest, tmp_path):
    hashed = manifest.with_hashes()
    hashed.write_csv(tmp_path / "run" / "manifest.csv")
    text = (tmp_path / "run" / "manifest.csv").read_text()
    assert text.splitlines()[0] == "id,subject,image,mask,sha256_image,sha256_mask,age"
    assert "../data/c0_t1.nii.gz;../data/c0_t2.nii.gz" in text
    assert str(tmp_path) not in text
    back = load_cohort(tmp_path / "run" / "manifest.csv")
    assert (back.name, back.labels, back.digest()) == ("pairs", manifest.labels, hashed.digest())
    assert [(c.id, c.subject, dict(c.attributes)) for c in back] == [
        (c.id, c.subject, dict(c.attributes)) for c in manifest
    ]
    assert [sorted(c.sha256.values()) for c in back] == [sorted(c.sha256.values()) for c in hashed]
    back.write_csv(tmp_path / "run" / "again.csv")
    assert (tmp_path / "run" / "again.csv").read_text() == text
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["labels"] == {"1": "left", "6": "right"}


def test_digest_sees_content_only(manifest, tmp_path):
    digest = manifest.digest()
    shuffled = replace(manifest, cases=manifest.cases[::-1], name="other")
    assert shuffled.digest() == digest == manifest.with_hashes().digest()
    assert replace(manifest, labels={}).digest() != digest
    save(manifest.cases[0].images[0], 99)
    assert manifest.digest() != digest


def test_parts_of_a_manifest(manifest):
    assert len(manifest) == 6
    assert manifest.subjects == ["s0", "s1", "s2"]
    assert [case.id for case in manifest.labelled()] == ["c1", "c3", "c5"]
    assert [case.id for case in manifest.unlabelled()] == ["c0", "c2", "c4"]
    assert [case.id for case in manifest.subset(["c4", "c1"])] == ["c1", "c4"]
    with pytest.raises(DataError, match="no case 'x'"):
        manifest.subset(["x"])


def test_ids_are_safe_and_unique():
    for name in ("..", "a/b", "", "a b", "-a", "a.", "é", "x" * 101):
        assert not is_safe_id(name)
        with pytest.raises(DataError, match="case id"):
            Manifest("m", None, (Case(name, "s", ()),))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="twice"):
        Manifest("m", None, (Case("a", "s", ()), Case("A", "s", ())))  # type: ignore[arg-type]


owners = st.lists(st.sampled_from([f"s{n}" for n in range(12)]), min_size=3, max_size=40).filter(
    lambda names: len(set(names)) >= 3
)


@given(owners, st.integers(0, 1000), st.lists(st.floats(0.05, 1), min_size=1, max_size=3))
def test_split_is_by_subject_whole_and_independent_of_order(names, seed, sizes):
    manifest = virtual(names)
    shares = {f"p{n}": size for n, size in enumerate(sizes)}
    parts = split_subjects(manifest, shares, seed)
    assert list(parts) == list(shares)
    assert sorted(case.id for part in parts.values() for case in part) == sorted(case.id for case in manifest)
    assert all(len(part) for part in parts.values())
    subjects = [name for part in parts.values() for name in part.subjects]
    assert sorted(subjects) == manifest.subjects
    for name, part in parts.items():
        ideal = shares[name] / sum(sizes) * len(subjects)
        # Within one subject of its share, unless parts that would be empty took theirs from it.
        assert len(part.subjects) >= 1
        assert len(part.subjects) - ideal < len(parts)
    again = split_subjects(replace(manifest, cases=manifest.cases[::-1]), shares, seed)
    assert {n: set(p.subjects) for n, p in parts.items()} == {n: set(p.subjects) for n, p in again.items()}


def test_split_sizes_and_seeds():
    manifest = virtual(f"s{n}" for n in range(100))
    parts = split_subjects(manifest, {"train": 0.6, "calibration": 0.2, "test": 0.2}, 0)
    assert [len(part) for part in parts.values()] == [60, 20, 20]
    other = split_subjects(manifest, {"train": 0.6, "calibration": 0.2, "test": 0.2}, 1)
    assert set(parts["test"].subjects) != set(other["test"].subjects)
    assert [len(p) for p in split_subjects(virtual("abc"), {"a": 0.98, "b": 0.01, "c": 0.01}, 0).values()] == [1, 1, 1]
    with pytest.raises(DataError, match="2 subjects cannot be split into 3 parts"):
        split_subjects(virtual("aabb"), {"a": 1, "b": 1, "c": 1}, 0)
    with pytest.raises(DataError, match="positive"):
        split_subjects(manifest, {"a": 1, "b": 0}, 0)


@given(owners, st.integers(0, 1000), st.integers(2, 3))
def test_folds(names, seed, k):
    manifest = virtual(names)
    folds = kfold_subjects(manifest, k, seed)
    assert sorted(name for _, held in folds for name in held.subjects) == manifest.subjects
    sizes = [len(held.subjects) for _, held in folds]
    assert max(sizes) - min(sizes) <= 1
    for train, held in folds:
        assert not set(train.subjects) & set(held.subjects)
        assert len(train) + len(held) == len(manifest)


def test_too_many_folds():
    with pytest.raises(DataError, match="4 folds of 3 subjects"):
        kfold_subjects(virtual("abc"), 4, 0)


def test_write_splits(tmp_path):
    manifest = virtual("aabb")
    write_splits(tmp_path / "splits.csv", split_subjects(manifest, {"x": 1, "y": 1}, 0))
    lines = (tmp_path / "splits.csv").read_text().splitlines()
    assert lines[0] == "case,subject,part"
    assert len(lines) == 5
    with pytest.raises(DataError, match="subject 'a' is in 'x' and 'y'"):
        write_splits(tmp_path / "splits.csv", {"x": manifest.subset(["c0"]), "y": manifest.subset(["c1"])})


def test_labels_of_the_config_win(manifest, tmp_path):
    manifest.write_csv(tmp_path / "manifest.csv")
    assert load_cohort(tmp_path, CohortConfig(labels={5: "five"})).labels == {5: "five"}
