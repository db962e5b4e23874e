from dataclasses import replace

from medgen.data.account import account, to_plain
from medgen.data.intake import Intake, LeftOut
from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from tests.builders.cohort_folders import labels, scan
from tests.builders.dicom_folders import COLUMNS, ROWS, SLICES, series


def cohort(folder):
    for number in range(3):
        scan(folder / f"p{number}.nii.gz", number)
        labels(folder / f"p{number}_gt.nii.gz")
        (folder / f"p{number}.json").write_text("{}")
        (folder / f"._p{number}.nii.gz").write_bytes(b"x")
        (folder / f"p{number}.par").write_bytes(b"x")
    (folder / "README.txt").write_text("x")
    return load_cohort(folder)


def test_what_was_taken_for_what(tmp_path):
    assert account(cohort(tmp_path)) == [
        "layout: folder (made out from what is there)",
        "scans: 3, such as p0.nii.gz",
        "masks: of 3 scans, such as p0_gt.nii.gz; told by names (gt)",
        "subjects: 3 (nothing says whose scans they are: each counts as another subject's)",
        "left out: 9 files: 3 *.json (p0.json), 3 *.par, a format that is not read (p0.par), "
        "3 ._* of macOS (._p0.nii.gz)",
    ]


def test_every_line_follows_its_field(tmp_path):
    manifest = cohort(tmp_path)
    told = set(account(manifest))
    changed = {
        "subjects: 3 (from a list)": {"subjects": "from a list"},
        "decided: this": {"decisions": ("this",)},
        "left out: 2 files: 2 *.x": {"left_out": (LeftOut("*.x", (), 2),)},
        "regions: whole = 1 + 2": {"regions": {"whole": (1, 2)}},
        "layout: nnunet (made out from what is there)": {"layout": "nnunet"},
        "layout: folder": {"chosen": False},
        "scans: 3 (CT), such as p0.nii.gz": {"channels": ("CT",)},
        "masks: of 3 scans, such as p0_gt.nii.gz; told by dice": {"masks": "dice"},
    }
    for line, fields in changed.items():
        own = account(replace(manifest, intake=replace(manifest.intake, **fields)))
        assert line in own
        assert line not in told
    bare = replace(manifest, intake=Intake(), cases=tuple(replace(case, mask=None) for case in manifest))
    assert account(bare) == ["scans: 3, such as p0.nii.gz", "masks: none", "subjects: 3"]
    assert not any("p0" in line for line in account(manifest, examples=False))


def test_the_record_counts_what_the_lines_say(tmp_path):
    told = to_plain(cohort(tmp_path))
    assert (told["scans"], told["masks"], told["subjects"]) == (3, 3, 3)
    assert {item["reason"]: item["count"] for item in told["left_out"]} == {
        "*.json": 3,
        "*.par, a format that is not read": 3,
        "._* of macOS": 3,
    }
    assert load_cohort(tmp_path, CohortConfig(images="p?.nii.gz")).intake.left_out[-1].count == 3


def test_a_dicom_folder_says_what_it_is(tmp_path):
    series(tmp_path / "s")
    about, scans = check(tmp_path / "s").scan
    assert about == f"layout: one DICOM series (MR, {SLICES} files)"
    assert scans.startswith(f"scans: 1, {COLUMNS} x {ROWS} x {SLICES} voxels of ")


def test_a_single_file_says_what_it_is(tmp_path):
    scan(tmp_path / "a.nii.gz")
    result = check(tmp_path / "a.nii.gz")
    assert result.scan == ("layout: one file", "scans: 1, 12 x 14 x 10 voxels of 2 x 2 x 2 mm, axes RAS")
