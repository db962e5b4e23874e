"""Voxels that nobody judged: the check of a cohort says the same of them as every plan."""

import json

import pytest

from medgen.data.integrity import check
from medgen.data.layouts.detect import load_cohort
from tests.builders.cohort_folders import labels, scan

NAMES = {"background": 0, "a": 1, "ignore": 2}


@pytest.fixture
def nnunet(tmp_path):
    for number in range(3):
        scan(tmp_path / "imagesTr" / f"c{number}_0000.nii.gz")
        labels(tmp_path / "labelsTr" / f"c{number}.nii.gz")
    about = {"channel_names": {"0": "T1"}, "labels": NAMES, "numTraining": 3, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    return tmp_path


def test_voxels_to_ignore_are_asked_about_until_a_column_says_what_is_complete(nnunet):
    faults = check(nnunet).faults
    assert [fault.found for fault in faults] == ["voxels to ignore (label 2)"] * 3
    assert 'such as "1" for case c0' in faults[0].action
    lines = [f"c{number},s{number},1" for number in range(3)]
    (nnunet / "subjects.csv").write_text("\n".join(["case,subject,annotated", *lines]))
    assert check(nnunet).ok


def test_the_number_to_ignore_is_no_structure_in_the_column(nnunet):
    lines = [f"c{number},s{number},1;2" for number in range(3)]
    (nnunet / "subjects.csv").write_text("\n".join(["case,subject,annotated", *lines]))
    (fault,) = check(nnunet).faults
    assert fault.found == "the column annotated names label 2, which stands for voxels to ignore (and 2 more cases)"
    assert fault.action.endswith('"1"')
    (nnunet / "subjects.csv").write_text("case,subject,annotated\nc0,s0,x\nc1,s1,1\nc2,s2,1")
    (fault,) = check(nnunet).faults
    assert (fault.file, fault.found) == ("case c0", "annotated 'x'")


def test_a_manifest_beside_a_dataset_json_has_its_labels(nnunet):
    rows = [f"c{n},s{n},imagesTr/c{n}_0000.nii.gz,labelsTr/c{n}.nii.gz,1;2" for n in range(3)]
    (nnunet / "manifest.csv").write_text("\n".join(["id,subject,image,mask,annotated", *rows]))
    assert load_cohort(nnunet).labels == {1: "a", 2: "ignore"}
    (fault,) = check(nnunet).faults
    assert "stands for voxels to ignore" in fault.found
