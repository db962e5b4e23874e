import time
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.volume import Grid, Volume
from tests.builders.cohort_folders import brain, labels, scan

GRID = Grid((6, 7, 8), np.diag([1.0, 2.0, 1.5, 1.0]))


def save(path, data, grid=GRID):
    io.write(Volume(np.asarray(data)[None], grid), path)


@pytest.fixture
def cohort(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(5):
        save(tmp_path / "images" / f"c{number}.nii.gz", rng.normal(size=GRID.shape).astype(np.float32))
        save(tmp_path / "masks" / f"c{number}.nii.gz", rng.integers(0, 3, GRID.shape).astype(np.uint8))
    return tmp_path


def found(path, **config):
    return {(fault.file.rsplit("/", 1)[-1], fault.found) for fault in check(path, CohortConfig(**config)).faults}


def test_a_sound_cohort(cohort):
    seen = []
    result = check(cohort, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert result.ok
    assert result.cases == 5
    assert seen == [(number, 5) for number in range(1, 6)]
    assert result.manifest is not None
    assert result.manifest.digest() == load_cohort(cohort).digest()


def test_every_fault_in_one_pass(cohort):
    images, masks = cohort / "images", cohort / "masks"
    content = (images / "c0.nii.gz").read_bytes()
    (images / "c0.nii.gz").write_bytes(content[:300])
    save(images / "c1.nii.gz", np.full(GRID.shape, 3.0, np.float32))
    save(masks / "c1.nii.gz", np.zeros(GRID.shape, np.uint8))
    save(masks / "c2.nii.gz", np.full((6, 7, 5), 1, np.uint8), Grid((6, 7, 5), GRID.affine))
    save(masks / "c3.nii.gz", np.full(GRID.shape, 0.5, np.float32))
    save(masks / "c4.nii.gz", np.full(GRID.shape, 9, np.uint8))
    result = check(cohort, CohortConfig(labels={1: "a", 2: "b"}))
    words = {(fault.file.rsplit("/", 2)[-2], fault.file.rsplit("/", 1)[-1]): fault.found for fault in result.faults}
    assert len(result.faults) == 6
    assert "ends too early" in words["images", "c0.nii.gz"]
    assert words["images", "c1.nii.gz"] == "all voxels are 3"
    assert words["masks", "c1.nii.gz"] == "an empty mask"
    assert "shape 6x7x5 differs" in words["masks", "c2.nii.gz"]
    assert "fractional" in words["masks", "c3.nii.gz"]
    assert words["masks", "c4.nii.gz"] == "undeclared labels 9"
    for fault in result.faults:
        assert fault.expected
        assert fault.action
        assert "\n" not in str(fault)


def test_same_scan_under_two_subjects(cohort):
    image = io.read(cohort / "images" / "c0.nii.gz")
    # Also as another type.
    io.write(image.with_data(image.data.astype(np.float32)), cohort / "images" / "c9.nii")
    (fault,) = check(cohort).faults
    assert "the same voxels as c9 (subject c9), but subject c0" in fault.found
    (cohort / "subjects.csv").write_text("case,subject\n" + "\n".join(f"c{n},s{n % 9}" for n in (0, 1, 2, 3, 4, 9)))
    assert check(cohort).ok


def test_changed_files_and_channels(cohort):
    load_cohort(cohort).with_hashes().write_csv(cohort / "manifest.csv")
    assert check(cohort / "manifest.csv").ok
    image = io.read(cohort / "images" / "c0.nii.gz")
    io.write(image.with_data(np.concatenate([image.data, image.data])), cohort / "images" / "c0.nii.gz")
    faults = check(cohort).faults
    assert any("content changed" in fault.found for fault in faults)
    assert any(fault.found == "2 channels" and "1 as in most" in fault.expected for fault in faults)


def test_a_file_that_is_not_there_is_said_once(cohort):
    for folder in ("images", "masks"):
        (cohort / folder / "c2.nii.gz").unlink()
        (cohort / folder / "c2.nii.gz").symlink_to(cohort / "nowhere.nii.gz")
    faults = check(cohort).faults
    assert [fault.file.rsplit("/", 2)[-2] for fault in faults] == ["images", "masks"]
    assert {fault.found for fault in faults} == {"a link to a file that is not there"}


def test_units(cohort):
    save(
        cohort / "images" / "c0.nii.gz",
        np.arange(336.0).reshape(GRID.shape),
        Grid(GRID.shape, np.diag([30, 30, 30, 1])),
    )
    assert ("c0.nii.gz", "voxel sizes of 30 x 30 x 30 mm") in found(cohort)


def test_layout_faults_and_single_scans(cohort):
    (cohort / "images" / "c0.nii.gz").unlink()
    assert ("c0.nii.gz", "a mask without image") in found(cohort)
    assert check(cohort / "images" / "c1.nii.gz").ok
    (cohort / "images" / "c1.nii.gz").write_bytes(b"x")
    assert check(cohort / "images" / "c1.nii.gz").faults[0].found == "not an image"
    assert "no such file" in check(cohort / "nowhere").faults[0].found
    (cohort / "dataset.json").write_text("{")
    assert "cannot be read as JSON" in check(cohort).faults[0].found


def test_real_cohorts_are_sound(shared_data):
    start = time.monotonic()
    result = check(shared_data / "hippocampus")
    assert result.ok, result.faults[:3]
    assert result.cases == 272
    assert time.monotonic() - start < 30
    assert check(shared_data / "oasis", CohortConfig(images="*_T1w.nii.gz", masks="{id}_labels.nii.gz")).ok


def test_real_series(shared_data):
    words = " ".join(fault.found for fault in check(shared_data / "dicom" / "ct_head_tilted").faults)
    assert "gantry tilt" in words
    assert "irregular spacing" in words


def test_label_maps_among_scans_are_faults(tmp_path):
    for number in range(3):
        scan(tmp_path / f"a{number}x.nii.gz", number)
    labels(tmp_path / "drawn.nii.gz")
    (fault,) = check(tmp_path).faults
    assert Path(fault.file).name == "drawn.nii.gz"
    assert fault.found.startswith("few whole numbers on the grid of a")
    assert "cohort.leave_out=drawn.nii.gz" in fault.action
    assert check(tmp_path, CohortConfig(leave_out="drawn.nii.gz")).ok
    # A cohort of masks alone is one of images.
    for number in range(3):
        (tmp_path / f"a{number}x.nii.gz").unlink()
    assert check(tmp_path).ok


def test_copies_without_skull_among_scans_are_faults(tmp_path):
    for number in range(3):
        whole = scan(tmp_path / f"a{number}x.nii.gz", number)
    brain(tmp_path / "other.nii.gz", whole)
    (fault,) = check(tmp_path).faults
    assert fault.found == "the same scan as a2x.nii.gz with zeros around, but counted as another scan"
    assert "cohort.leave_out=other.nii.gz" in fault.action


def test_copies_stored_in_another_way_are_the_same_scan(tmp_path):
    whole = scan(tmp_path / "a0x.nii.gz", 1)
    scan(tmp_path / "a1x.nii.gz", 2)
    turned = np.diag([-2.0, 2.0, 2.0, 1.0])
    turned[0, 3] = 2.0 * (whole.shape[0] - 1)
    save(tmp_path / "other.nii.gz", 2 * whole[::-1] + 1, Grid(whole.shape, turned))
    (fault,) = check(tmp_path).faults
    assert "the same scan as other (subject other), stored in another way" in fault.found
    (tmp_path / "subjects.csv").write_text("case,subject\na0x,s0\na1x,s1\nother,s0\n")
    assert check(tmp_path).ok


def test_copies_without_skull_and_with_another_number_around(tmp_path):
    for number in range(3):
        whole = scan(tmp_path / f"a{number}x.nii.gz", number)
    emptied = np.full_like(whole, -1)
    emptied[3:-3, 3:-3, 2:-2] = whole[3:-3, 3:-3, 2:-2]
    save(tmp_path / "other.nii.gz", emptied.round().astype(np.int16), Grid(whole.shape, np.diag([2.0, 2.0, 2.0, 1.0])))
    (fault,) = check(tmp_path).faults
    assert fault.found == "the same scan as a2x.nii.gz with -1 around, but counted as another scan"


def test_masks_of_255_among_masks_of_1_are_asked_about(tmp_path):
    for number in range(4):
        data = scan(tmp_path / f"p{number}.nii.gz", number)
        mask = np.zeros(data.shape, np.uint8)
        mask[3:6, 3:8, 2:5] = 255 if number == 3 else 1
        save(tmp_path / f"p{number}_mask.nii.gz", mask, Grid(data.shape, np.diag([2.0, 2.0, 2.0, 1.0])))
    (fault,) = check(tmp_path).faults
    assert (Path(fault.file).name, fault.found) == ("p3_mask.nii.gz", "0 and 255")
    assert fault.expected == "0 and 1 as in 3 other masks"
    assert check(tmp_path, CohortConfig(labels={1: "structure 1", 255: "structure 255"})).ok
    # Two structures, of which a scan may have one or the other.
    labels(tmp_path / "p0_mask.nii.gz")
    assert check(tmp_path).ok


def test_patterns_that_tell_label_maps_from_scans_are_those_of_the_files(tmp_path):
    for number in range(2):
        scan(tmp_path / f"p{number}.nii.gz", number)
        labels(tmp_path / f"zz{number}x.nii.gz")
    faults = [fault for fault in check(tmp_path).faults if "few whole numbers" in fault.found]
    assert "'cohort.images=p*.nii.gz' 'cohort.masks=zz*x.nii.gz'" in faults[0].action
    assert check(tmp_path, CohortConfig(images="p*.nii.gz", masks="zz*x.nii.gz")).ok
