import pytest

from medgen.data.layouts.by_file_name import mask_base, safe_id
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.faults import FaultyDataError
from tests.builders.cohort_folders import brain, labels, scan, taken

PAIRS = {
    "lits": ("volume-{}.nii", "segmentation-{}.nii"),
    "underscore_gt": ("p{}.nii.gz", "p{}_gt.nii.gz"),
    "word": ("p{}.nii.gz", "p{}_segmentation.nii.gz"),
    "dotseg": ("p{}.nii.gz", "p{}.seg.nii.gz"),
    "no-word": ("p{}.nii.gz", "p{}_final.nii.gz"),
    "no-word-first": ("ct_{}.nii.gz", "tumour_{}.nii.gz"),
    "folders": ("images/Image_{}.nii.gz", "labels/Label_{}.nii.gz"),
    "brain-mask": ("sub{}.nii.gz", "sub{}_brain_mask.nii.gz"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_label_maps_are_masks_and_no_scans(tmp_path, case):
    image, mask = PAIRS[case]
    for number in range(3):
        scan(tmp_path / image.format(number), number)
        labels(tmp_path / mask.format(number))
    found = taken(tmp_path)
    assert len(found) == 3
    assert all(files == [image.format(n)] and own == mask.format(n) for n, (_, files, own) in enumerate(found.values()))


def test_copies_without_skull_are_left_out_and_said(tmp_path):
    for number in range(3):
        brain(tmp_path / f"s{number}_brain.nii.gz", scan(tmp_path / f"s{number}.nii.gz", number))
        labels(tmp_path / f"s{number}_brain_mask.nii.gz")
    manifest = load_cohort(tmp_path)
    assert taken(tmp_path)["s0"] == ("s0", ["s0.nii.gz"], "s0_brain_mask.nii.gz")
    assert len(manifest) == 3
    assert "'cohort.images=*_brain.nii.gz'" in manifest.intake.decisions[0]
    (left,) = manifest.intake.left_out
    assert (left.reason, left.count) == ("copies without skull (*_brain.nii.gz)", 3)
    assert list(taken(tmp_path, images="*_brain.nii.gz")) == ["s0", "s1", "s2"]


def test_other_copies_are_asked_about(tmp_path):
    for number in range(3):
        scan(tmp_path / f"s{number}.nii.gz", number)
        scan(tmp_path / f"s{number}_brain.nii.gz", number + 9)
    with pytest.raises(FaultyDataError) as caught:
        load_cohort(tmp_path)
    text = str(caught.value)
    for words in ("s0, s0_brain", "'cohort.leave_out=*_brain.nii.gz'", "'cohort.subjects={subject}'"):
        assert words in text
    assert len(taken(tmp_path, leave_out="*_brain.nii.gz")) == 3
    assert len(load_cohort(tmp_path, CohortConfig(subjects="{subject}")).subjects) == 6


def test_two_label_maps_of_one_scan(tmp_path):
    for number in range(2):
        scan(tmp_path / f"s{number}_T1w.nii.gz", number)
        labels(tmp_path / f"s{number}_labels.nii.gz")
        labels(tmp_path / f"s{number}_tissues.nii.gz")
    with pytest.raises(FaultyDataError, match=r"two masks, s0_tissues.nii.gz and s0_labels.nii.gz, for s0_T1w.nii.gz"):
        load_cohort(tmp_path)


def test_label_maps_of_two_raters(tmp_path):
    for number in range(3):
        scan(tmp_path / f"p{number}.nii.gz", number)
        labels(tmp_path / f"p{number}_r1.nii.gz")
        labels(tmp_path / f"p{number}_r2.nii.gz")
    with pytest.raises(FaultyDataError, match=r"two label maps, p0_r1.nii.gz and p0_r2.nii.gz, for p0.nii.gz"):
        load_cohort(tmp_path)
    assert taken(tmp_path, leave_out="*_r2.nii.gz")["p0"][2] == "p0_r1.nii.gz"


def test_a_mask_that_two_scans_share_belongs_to_neither(tmp_path):
    for name in ("P0_V1", "P0_V2", "P1_V1", "P1_V2"):
        scan(tmp_path / f"{name}.nii.gz")
    labels(tmp_path / "P0_mask.nii.gz")
    with pytest.raises(FaultyDataError, match=r"P0_mask.nii.gz: a mask without image"):
        load_cohort(tmp_path)


def test_ids_stay_apart(tmp_path):
    names = ["Müller_01", "Möller_01", "患者一", "患者二", "Patient 3 (pre op)", "Zoë", "Muller_01"]
    for name in names:
        scan(tmp_path / "images" / f"{name}.nii.gz")
        labels(tmp_path / "labels" / f"{name}.nii.gz")
    found = taken(tmp_path)
    assert len(found) == len(names)
    assert {mask for _, _, mask in found.values()} == {f"labels/{name}.nii.gz" for name in names}
    assert "Moller_01" in found
    assert safe_id("患者一_V1").partition("_")[0] == safe_id("患者一_V2").partition("_")[0]


def test_words_for_masks():
    assert [mask_base(name) for name in ("a_GT", "mask-1", "a_lesion_roi", "gt", "T1w")] == [
        "a",
        "1",
        "a_lesion",
        "",
        "",
    ]


def test_advice_is_made_of_files_that_are_there(tmp_path):
    for number in range(2):
        scan(tmp_path / f"p{number}.nii.gz")
        labels(tmp_path / f"p{number}_mask.nii.gz")
        labels(tmp_path / f"p{number}_lesion.nii.gz")
    with pytest.raises(
        FaultyDataError, match=r"leave one of them out, for example .* or 'cohort.leave_out=p\*_mask.nii.gz'"
    ):
        load_cohort(tmp_path)
    assert taken(tmp_path, leave_out="p*_mask.nii.gz")["p0"][2] == "p0_lesion.nii.gz"
    labels(tmp_path / "p7_lesion.nii.gz")
    with pytest.raises(FaultyDataError, match=r"or leave it out: cohort.leave_out=p7_lesion.nii.gz"):
        load_cohort(tmp_path, CohortConfig(leave_out="p*_mask.nii.gz"))
    with pytest.raises(FaultyDataError, match=r"set both, for example 'cohort.images=p\*.nii.gz'"):
        load_cohort(tmp_path, CohortConfig(masks="p*_mask.nii.gz"))


def test_a_pattern_that_finds_nothing_is_named_with_what_is_there(tmp_path):
    scan(tmp_path / "p0.nii.gz")
    with pytest.raises(FaultyDataError, match=r"no file matches '\*_T1w.nii.gz'.*there are p0.nii.gz"):
        load_cohort(tmp_path, CohortConfig(images="*_T1w.nii.gz"))


def test_a_mask_in_a_folder_of_masks_is_left_out_by_its_place(tmp_path):
    for number in range(3):
        labels(tmp_path / "labels" / f"p{number}.nii.gz")
    for number in range(2):
        scan(tmp_path / "images" / f"p{number}.nii.gz")
    with pytest.raises(FaultyDataError, match=r"leave it out: cohort.leave_out=labels/p2.nii.gz"):
        load_cohort(tmp_path)
    assert len(taken(tmp_path, leave_out="labels/p2.nii.gz")) == 2


def test_scans_of_several_subjects_in_a_folder_of_each_visit(tmp_path):
    for visit in ("visit1", "visit2"):
        for number in range(2):
            scan(tmp_path / visit / f"ID{number}.nii.gz")
    with pytest.raises(FaultyDataError, match=r"for example 'cohort.images=\*/ID\*.nii.gz'"):
        load_cohort(tmp_path)
    assert len(load_cohort(tmp_path, CohortConfig(images="*/ID*.nii.gz"), ask=False)) == 4
