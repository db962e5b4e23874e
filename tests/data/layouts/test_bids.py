import re
import shlex

import numpy as np
import pytest

from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.faults import FaultyDataError
from medgen.volume import Grid
from tests.builders.cohort_folders import SHAPE, labels, scan, taken

MNI = Grid(SHAPE, np.array([[2.0, 0, 0, -10], [0, 2, 0, -10], [0, 0, 2, -10], [0, 0, 0, 1]]))


@pytest.fixture
def derivatives(tmp_path):
    for subject in ("01", "02"):
        base = tmp_path / f"sub-{subject}" / "anat"
        for space, grid in (("", None), ("space-MNI_", MNI)):
            own = {} if grid is None else {"grid": grid}
            scan(base / f"sub-{subject}_{space}desc-preproc_T1w.nii.gz", **own)
            labels(base / f"sub-{subject}_{space}desc-brain_mask.nii.gz", **own)
            labels(base / f"sub-{subject}_{space}dseg.nii.gz", **own)
        scan(base / f"sub-{subject}_label-GM_probseg.nii.gz")
    return tmp_path


def test_one_space_of_each_scan(derivatives):
    manifest = load_cohort(derivatives)
    assert [case.id for case in manifest] == ["sub-01_desc-preproc_T1w", "sub-02_desc-preproc_T1w"]
    spaces, maps = manifest.intake.decisions
    assert spaces.startswith("2 copies of scans in other spaces (MNI) are left out")
    assert "'cohort.masks=*_dseg.nii.gz'" in maps
    assert {item.reason: item.count for item in manifest.intake.left_out} == {
        "copies in space MNI": 2,
        "images of another kind (probseg)": 2,
        "label maps that are not used": 8,
    }
    glob = spaces.rpartition("cohort.images=")[2].rstrip("'")
    other = taken(derivatives, images=glob, masks="*_dseg.nii.gz")
    assert other["sub-01_space-MNI_desc-preproc_T1w"][2] == "sub-01/anat/sub-01_space-MNI_dseg.nii.gz"


def test_spaces_without_a_scan_of_its_own(tmp_path):
    for space in ("A", "B"):
        scan(tmp_path / f"sub-01/anat/sub-01_space-{space}_T1w.nii.gz")
    with pytest.raises(FaultyDataError, match="one scan in several spaces"):
        load_cohort(tmp_path)


def test_masks_of_the_same_session_in_derivatives(tmp_path):
    for session in ("pre", "post"):
        scan(tmp_path / f"sub-01/ses-{session}/anat/sub-01_ses-{session}_run-1_T1w.nii.gz")
        labels(tmp_path / f"derivatives/m/sub-01/anat/sub-01_ses-{session}_run-1_T1w_label-lesion_mask.nii.gz")
    found = taken(tmp_path)
    assert [mask.rpartition("/")[2] for _, _, mask in found.values()] == [
        "sub-01_ses-post_run-1_T1w_label-lesion_mask.nii.gz",
        "sub-01_ses-pre_run-1_T1w_label-lesion_mask.nii.gz",
    ]


def test_channels_of_a_tree(tmp_path):
    for subject in ("01", "02"):
        for kind in ("T1w", "FLAIR"):
            scan(tmp_path / f"sub-{subject}/anat/sub-{subject}_{kind}.nii.gz")
    (tmp_path / "dataset_description.json").write_text("{}")
    images = {"T1w": "sub-*/anat/*_T1w.nii.gz", "FLAIR": "sub-*/anat/*_FLAIR.nii.gz"}
    manifest = load_cohort(tmp_path, CohortConfig(images=images))
    assert manifest.subjects == ["sub-01", "sub-02"]
    assert [file.name for file in manifest.cases[1].images] == ["sub-02_T1w.nii.gz", "sub-02_FLAIR.nii.gz"]


@pytest.mark.parametrize(("one", "other"), [("A", "B"), ("pre", "post"), ("V1", "V2"), ("", "b")])
def test_subjects_that_differ_in_a_letter_or_visit_are_asked_about(tmp_path, one, other):
    names = [f"sub-{number:03d}{part}" for number in range(3) for part in (one, other)]
    for name in names:
        scan(tmp_path / name / "ses-1" / "anat" / f"{name}_ses-1_T1w.nii.gz")
    with pytest.raises(FaultyDataError, match="subjects with one name but for a part") as error:
        load_cohort(tmp_path)
    # Both answers, as they are advised.
    answers = [
        shlex.split(word)[0].partition("=")[2] for word in re.findall(r"'cohort\.subjects=[^']*'", str(error.value))
    ]
    assert load_cohort(tmp_path, CohortConfig(subjects=answers[0])).subjects == ["sub-000", "sub-001", "sub-002"]
    assert load_cohort(tmp_path, CohortConfig(subjects=answers[1])).subjects == sorted(names)
    assert len(load_cohort(tmp_path, ask=False).subjects) == 6


def test_subjects_that_differ_in_more_are_not_asked_about(tmp_path):
    for name in ("ctrl01", "ctrl02", "pat01", "pat02", "A003", "B003"):
        scan(tmp_path / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz")
    assert len(load_cohort(tmp_path).subjects) == 6


@pytest.mark.parametrize(
    ("kinds", "said", "left"),
    [
        (("", "ce-gad_"), "ce-gad and without it", "sub-01_T1w"),
        (("echo-1_", "echo-2_", "echo-3_"), "echo-1, echo-2, echo-3", "sub-01_echo-1_T1w"),
        (("part-mag_", "part-phase_"), "part-mag, part-phase", "sub-01_part-mag_T1w"),
    ],
)
def test_one_suffix_that_shows_several_things_is_asked_about(tmp_path, kinds, said, left):
    for subject in ("01", "02"):
        for kind in kinds:
            scan(tmp_path / f"sub-{subject}" / "anat" / f"sub-{subject}_{kind}T1w.nii.gz")
    with pytest.raises(FaultyDataError, match=f"images of several kinds: {said}") as caught:
        load_cohort(tmp_path)
    # The advice, typed, leaves one kind.
    (word,) = [word for word in shlex.split(str(caught.value)) if word.startswith("cohort.")]
    key, _, value = word.removeprefix("cohort.").partition("=")
    cohort = load_cohort(tmp_path, CohortConfig(**{key: value}))
    assert next(iter(cohort)).id == left
    assert len(cohort) == 2
