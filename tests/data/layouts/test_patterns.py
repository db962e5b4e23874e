import pytest

from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.data.layouts.patterns import stars_of
from medgen.faults import FaultyDataError
from tests.builders.cohort_folders import labels, scan, taken


def refusal(path, **config):
    with pytest.raises(FaultyDataError) as caught:
        load_cohort(path, CohortConfig(**config))
    return str(caught.value)


def brats(folder, count=3):
    for number in range(count):
        base = f"BraTS_{number:03d}/BraTS_{number:03d}"
        for kind in ("flair", "t1", "t1ce"):
            scan(folder / f"{base}_{kind}.nii", number)
        labels(folder / f"{base}_seg.nii")


@pytest.mark.parametrize("masks", ["*/*_seg.nii", "{id}/{id}_seg.nii", "{id}/*_seg.nii"])
def test_one_folder_per_case(tmp_path, masks):
    brats(tmp_path)
    found = taken(tmp_path, images="*/*_t1.nii", masks=masks)
    assert found["BraTS_001"] == ("BraTS_001", ["BraTS_001/BraTS_001_t1.nii"], "BraTS_001/BraTS_001_seg.nii")
    assert len(found) == 3


def test_channels_by_name_or_as_a_list(tmp_path):
    brats(tmp_path)
    files = ["BraTS_000/BraTS_000_t1.nii", "BraTS_000/BraTS_000_flair.nii"]
    listed = CohortConfig(images=("*/*_t1.nii", "*/*_flair.nii"), masks="*/*_seg.nii")
    named = CohortConfig(images={"T1": "*/*_t1.nii", "FLAIR": "*/*_flair.nii"}, masks="*/*_seg.nii")
    for config in (listed, named):
        manifest = load_cohort(tmp_path, config)
        assert [manifest.key(file) for file in manifest.cases[0].images] == files
        assert len(manifest.labelled()) == 3
        assert manifest.cases[0].read_image().data.shape[0] == 2
    assert load_cohort(tmp_path, named).intake.channels == ("T1", "FLAIR")
    assert load_cohort(tmp_path, listed).intake.channels == ()
    (tmp_path / "BraTS_001" / "BraTS_001_flair.nii").unlink()
    assert "BraTS_001_t1.nii: no file of the pattern '*/*_flair.nii' goes with it" in refusal(
        tmp_path, images=named.images
    )


def test_names_that_vary_are_matched_by_their_folder(tmp_path):
    for number, (image, mask) in enumerate((("a7_t1", "rater1_seg_3"), ("b_t1", "seg_9"), ("t1", "my_seg_x"))):
        scan(tmp_path / f"case{number}/{image}.nii.gz", number)
        labels(tmp_path / f"case{number}/{mask}.nii.gz")
    found = taken(tmp_path, images="*/*t1.nii.gz", masks="*/*seg_*.nii.gz")
    assert [mask for _, _, mask in found.values()] == [
        "case0/rater1_seg_3.nii.gz",
        "case1/seg_9.nii.gz",
        "case2/my_seg_x.nii.gz",
    ]


def test_two_scans_in_a_folder_are_matched_by_their_names(tmp_path):
    for number in range(3):
        for frame in ("01", f"1{number}"):
            base = tmp_path / f"patient{number}" / f"patient{number}_frame{frame}"
            scan(base.with_name(f"{base.name}.nii.gz"), number)
            labels(base.with_name(f"{base.name}_gt.nii.gz"))
        scan(tmp_path / f"patient{number}/patient{number}_4d.nii.gz")
    patterns = {"images": "*/*_frame??.nii.gz", "masks": "*/*_frame??_gt.nii.gz"}
    assert "patient0-01, patient0-10" in refusal(tmp_path, **patterns)
    found = taken(tmp_path, **patterns, subjects="{subject}-*")
    assert len(found) == 6
    assert {owner for owner, _, _ in found.values()} == {"patient0", "patient1", "patient2"}
    assert all(mask == files[0].replace(".nii", "_gt.nii") for _, files, mask in found.values())
    # One mask pattern for two scans of a folder, which says not which: no guess.
    assert "goes with no image" in refusal(tmp_path, images="*/*_frame??.nii.gz", masks="*/*_gt.nii.gz")


def test_files_of_macs_are_left_alone_by_patterns_too(tmp_path):
    scan(tmp_path / "a_T1w.nii.gz")
    for name in ("._a_T1w.nii.gz", "__MACOSX/x_T1w.nii.gz", ".cache/y_T1w.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    for glob in ("*_T1w.nii.gz", "**/*_T1w.nii.gz"):
        manifest = load_cohort(tmp_path, CohortConfig(images=glob))
        assert [case.id for case in manifest] == ["a"]
        assert [(item.reason, item.count) for item in manifest.intake.left_out] == [("._* of macOS", 2)]


def test_parts_that_vary():
    assert stars_of("*/t?_[ab]*.nii", "p/t1_ax.nii") == ("p", "1", "a", "x")
    assert stars_of("**/x_*.nii", "a/b/x_1.nii") == ("a/b", "1")
    assert stars_of("[!.]*.nii", "x1.nii") == ("x", "1")
