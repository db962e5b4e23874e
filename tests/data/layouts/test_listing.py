"""What of a folder is found: links that lead nowhere are refused by name, and what was left out says why."""

import shutil
from pathlib import Path

import pytest

from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from tests.builders.cohort_folders import labels, scan

LAYOUTS = [
    ("{name}.nii.gz", {}),
    ("sub-{name}/anat/sub-{name}_T1w.nii.gz", {}),
    ("sub-{name}/anat/sub-{name}_T1w.nii.gz", {"images": "*_T1w.nii.gz"}),
    ("{name}/{name}_t1.nii.gz", {"images": "*/*_t1.nii.gz"}),
    ("{name}/t1.nii.gz", {"images": "*/t1.nii.gz"}),
]


@pytest.mark.parametrize(("file", "config"), LAYOUTS)
def test_a_link_to_a_scan_that_is_not_there_is_refused_in_every_layout(tmp_path, file, config):
    for name in ("a", "b", "c"):
        scan(tmp_path / file.format(name=name))
    link = tmp_path / file.format(name="d")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / ".git" / "annex" / "key")
    (fault,) = check(tmp_path, CohortConfig(**config)).faults
    assert (fault.file, fault.found) == (str(link), "a link to a file that is not there")
    assert check(tmp_path, CohortConfig(**config, leave_out=link.relative_to(tmp_path).as_posix())).ok


@pytest.mark.parametrize(("file", "config"), LAYOUTS[1:])
def test_a_link_to_a_folder_that_is_not_there_is_refused(tmp_path, file, config):
    for name in ("a", "b", "c"):
        scan(tmp_path / file.format(name=name))
    link = tmp_path / Path(file.format(name="d")).parts[0]
    link.symlink_to(tmp_path / "nowhere")
    (fault,) = check(tmp_path, CohortConfig(**config)).faults
    assert (fault.file, fault.found) == (str(link), "a link to what is not there")


def test_a_link_to_a_mask_that_is_not_there_is_refused(tmp_path):
    for name in ("a", "b"):
        scan(tmp_path / f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
        labels(tmp_path / f"sub-{name}/anat/sub-{name}_dseg.nii.gz")
    mask = tmp_path / "sub-b/anat/sub-b_dseg.nii.gz"
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere")
    for config in ({}, {"images": "*_T1w.nii.gz", "masks": "{id}_dseg.nii.gz"}):
        (fault,) = check(tmp_path, CohortConfig(**config)).faults
        assert (fault.file, fault.found) == (str(mask), "a link to a file that is not there")


def test_participants_behind_a_link_that_leads_nowhere_are_not_unknown(tmp_path):
    scan(tmp_path / "sub-a/anat/sub-a_T1w.nii.gz")
    (tmp_path / "participants.tsv").symlink_to(tmp_path / "nowhere")
    (fault,) = check(tmp_path).faults
    assert fault.file.endswith("participants.tsv")


def test_what_a_user_left_out_is_called_so(tmp_path):
    for name in ("a0", "a1"):
        scan(tmp_path / f"{name}_T1w.nii.gz")
        scan(tmp_path / f"{name}_T2w.nii.gz")
        labels(tmp_path / f"{name}_other.nii.gz")
    config = CohortConfig(images="*_T1w.nii.gz", leave_out="*_other.nii.gz")
    left_out = {item.reason: item.count for item in load_cohort(tmp_path, config).intake.left_out}
    assert left_out == {
        "left out as you said ('cohort.leave_out=*_other.nii.gz')": 2,
        "images that your pattern does not name ('cohort.images=*_T1w.nii.gz')": 2,
    }


def test_dicom_beside_other_images_says_how_it_is_read(tmp_path, shared_data):
    scan(tmp_path / "a.nii.gz")
    shutil.copytree(shared_data / "dicom" / "ct_head_tilted", tmp_path / "ct")
    (left,) = load_cohort(tmp_path).intake.left_out
    assert left.reason.startswith("DICOM, not read beside other images (these alone: cohort.layout=dicom")
    assert [case.id for case in load_cohort(tmp_path, CohortConfig(layout="dicom"))] == ["ct"]
