import json
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.config import parse_config
from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.errors import ConfigError
from medgen.faults import FaultyDataError
from medgen.volume import Grid, Volume

SMALL = Volume(np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3), Grid((3, 3, 3), np.eye(4)))


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        io.write(SMALL, folder / name)
    return folder


def summary(manifest):
    return [(case.id, case.subject, [p.name for p in case.images], case.mask and case.mask.name) for case in manifest]


def refusal(path, **config) -> str:
    with pytest.raises(FaultyDataError) as caught:
        load_cohort(path, CohortConfig(**config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plain_folder(tmp_path):
    tree(tmp_path, "b.nii.gz", "a.nrrd", "a_mask.nii.gz")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._b.nii.gz").write_bytes(b"x")
    found = summary(load_cohort(tmp_path))
    assert found == [("a", "a", ["a.nrrd"], "a_mask.nii.gz"), ("b", "b", ["b.nii.gz"], None)]


def test_folders_beside_each_other(tmp_path):
    tree(tmp_path, "images/x 1.nii.gz", "images/y_T1w.nii.gz", "masks/x 1_seg.nii.gz", "masks/y.nii.gz")
    assert summary(load_cohort(tmp_path)) == [
        ("x-1", "x-1", ["x 1.nii.gz"], "x 1_seg.nii.gz"),
        ("y_T1w", "y_T1w", ["y_T1w.nii.gz"], "y.nii.gz"),
    ]


def test_numbered_names_are_not_ambiguous(tmp_path):
    tree(tmp_path, "s_1.nii", "s_2.nii", "s_3.nii")
    assert len(load_cohort(tmp_path)) == 3


def test_ambiguous_names_are_refused_and_patterns_help(tmp_path):
    tree(tmp_path, *(f"{n}_{kind}.nii.gz" for n in (10, 11) for kind in ("T1w", "tissues", "labels")))
    assert "cohort.images=" in refusal(tmp_path)
    manifest = load_cohort(tmp_path, CohortConfig(images="*_T1w.nii.gz", masks="{id}_labels.nii.gz"))
    assert summary(manifest)[0] == ("10", "10", ["10_T1w.nii.gz"], "10_labels.nii.gz")
    assert "no file matches 'cohort.masks={id}_n" in refusal(tmp_path, images="*_T1w.nii.gz", masks="{id}_n.nii.gz")
    assert "no images" in refusal(tmp_path, images="*_T3w.nii.gz")
    assert "cohort.masks without cohort.images" in refusal(tmp_path, layout="folder", masks="{id}_labels.nii.gz")


def test_masks_without_images(tmp_path):
    tree(tmp_path, "images/a.nii", "masks/a.nii", "masks/b.nii")
    assert "b.nii: a mask without image" in refusal(tmp_path)


def test_patterns_in_subfolders(tmp_path):
    tree(tmp_path, "p1/t1.nii", "p1/roi.nii", "p2/t1.nii")
    manifest = load_cohort(tmp_path, CohortConfig(images="*/t1.nii", masks="{id}/roi.nii"))
    assert summary(manifest) == [("p1", "p1", ["t1.nii"], "roi.nii"), ("p2", "p2", ["t1.nii"], None)]


def test_subject_lists(tmp_path):
    tree(tmp_path, "a.nii", "b.nii", "c.nii")
    (tmp_path / "subjects.csv").write_text("scan,who\na,s1\nb,s1\nc,s2\nd,s3\n")
    assert load_cohort(tmp_path).subjects == ["s1", "s2"]
    (tmp_path / "subjects.csv").write_text("scan,who\na,s1\na,s2\n")
    found = refusal(tmp_path)
    assert "subjects.csv:3" in found
    assert "no subject for 2 of 3 cases, such as b" in found
    (tmp_path / "subjects.csv").write_text("scan\na\n")
    assert "expected case id and subject" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path, subjects="people.csv")


def test_msd(tmp_path):
    tree(tmp_path, *(f"{f}/{n}.nii.gz" for f in ("imagesTr", "labelsTr") for n in ("a", "b")), "imagesTs/c.nii.gz")
    (tmp_path / "imagesTr" / "._a.nii.gz").write_bytes(b"x")
    items = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("a", "b")]
    content = {"name": "Task", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "x"}, "training": items}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    manifest = load_cohort(tmp_path / "dataset.json")
    assert manifest.name == "Task"
    assert manifest.labels == {1: "x"}
    assert summary(manifest) == [
        ("a", "a", ["a.nii.gz"], "a.nii.gz"),
        ("b", "b", ["b.nii.gz"], "b.nii.gz"),
        ("c", "c", ["c.nii.gz"], None),
    ]
    content["modality"]["1"] = "T2"
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert all(case.attributes == {"channels": "2"} for case in load_cohort(tmp_path))
    tree(tmp_path, "imagesTr/extra.nii.gz")
    (tmp_path / "labelsTr" / "a.nii.gz").unlink()
    found = refusal(tmp_path)
    assert "a.nii.gz: is not there" in found
    assert "dataset.json does not list, such as extra.nii.gz" in found
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(Exception, match="cannot be read as JSON"):
        load_cohort(tmp_path)


def test_nnunet(tmp_path):
    names = [f"imagesTr/{n}_{c}.nii.gz" for n in ("a", "b") for c in ("0000", "0001")]
    tree(tmp_path, *names, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "imagesTs/c_0000.nii.gz", "imagesTs/c_0001.nii.gz")
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "edema": [1, 2], "core": 2},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    manifest = load_cohort(tmp_path)
    assert manifest.labels == {1: "rest of edema", 2: "core"}
    assert summary(manifest)[0] == ("a", "a", ["a_0000.nii.gz", "a_0001.nii.gz"], "a.nii.gz")
    assert summary(manifest)[2] == ("c", "c", ["c_0000.nii.gz", "c_0001.nii.gz"], None)
    (tmp_path / "imagesTr" / "a_0001.nii.gz").unlink()
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    tree(tmp_path, "labelsTr/z.nii.gz", "imagesTr/odd.nii.gz")
    found = refusal(tmp_path)
    for words in ("channels 0000 of case a", "no mask of case b", "a mask without image", "without channel number"):
        assert words in found


def test_pairs_are_one_image_each(tmp_path):
    tree(tmp_path, "masks/a.nii.gz", "masks/b.nii.gz")
    (tmp_path / "images").mkdir()
    for name in ("a.hdr", "a.img", "b.HDR.gz", "b.img.gz", "other.hdr"):
        (tmp_path / "images" / name).touch()
    assert [(row[0], row[3]) for row in summary(load_cohort(tmp_path))] == [("a", "a.nii.gz"), ("b", "b.nii.gz")]


def test_bids(tmp_path):
    tree(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz",
        "sub-02/ses-2/func/sub-02_ses-2_bold.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_dseg.nii.gz",
    )
    manifest = load_cohort(tmp_path)
    assert [row[:2] for row in summary(manifest)] == [
        ("sub-01_T1w", "sub-01"),
        ("sub-02_ses-1_T1w", "sub-02"),
        ("sub-02_ses-2_T1w", "sub-02"),
    ]
    assert manifest.cases[0].mask is not None
    assert manifest.cases[1].mask is None
    other = load_cohort(tmp_path, CohortConfig(layout="bids", images="*_T2w.nii.gz", masks="{id}_dseg.nii.gz"))
    assert [(row[0], row[3]) for row in summary(other)] == [("sub-01_T2w", "sub-01_dseg.nii.gz")]
    for file in tmp_path.glob("sub-*/**/*_T1w.nii.gz"):
        file.unlink()
    tree(tmp_path, "sub-02/anat/sub-02_FLAIR.nii.gz")
    assert "several kinds: FLAIR, T2w" in refusal(tmp_path)


def test_bids_participants(tmp_path):
    tree(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tage\tsex\timage\nsub-01\t61\tF\tx\nsub-02\tn/a\tM\tx\nsub-03\t1\tM\tx\n")
    assert [dict(case.attributes) for case in load_cohort(tmp_path)] == [{"age": "61", "sex": "F"}, {"sex": "M"}]
    (tmp_path / "subjects.csv").write_text("case,subject,age\nsub-01_T1w,a,62\nsub-02_ses-1_T1w,b,\n")
    cases = load_cohort(tmp_path).cases
    assert [case.subject for case in cases] == ["a", "b"]
    for text, words in (
        ("name\tage\nsub-01\t61\n", "first column 'name'"),
        ("participant_id\tage\nsub-01\t61\nsub-01\t62\n", "participants.tsv:3: participant 'sub-01' twice"),
        ("participant_id\tage\nsub-01\n", "participants.tsv:2: 1 cells"),
        ('participant_id\tage\nsub-01\t"61\n', "a UTF-8 TSV file"),
    ):
        table.write_text(text)
        assert words in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,image\na,a.nii\n", "columns name, image"),
        ("id,image\na,absent.nii\nb,gone.nii\n", "manifest.csv:2: absent.nii is not there"),
        ("id,image\na,absent.nii\nb,gone.nii\n", "manifest.csv:3: gone.nii is not there"),
        ("id,image,mask\na,a.nii,none.nii\n", "manifest.csv:2: none.nii is not there"),
        ("id,image\na,a.nii\nA,a.nii\n", "case id 'A' twice"),
        ("id,image\n../a,a.nii\n", "case id '../a'"),
        ("id,image\n,a.nii\n", "manifest.csv:2: an empty id or image"),
        ("id,image\na,a.nii,3\n", "manifest.csv:2: 3 cells"),
        ("id,image,image\na,a.nii,3\n", "each column once"),
        ("id,image,sha256_image\na,a.nii,1;2\n", "2 hashes; expected 1"),
        ("", "columns none"),
        ("id,image\n", "no images"),
    ],
)
def test_faulty_manifests(tmp_path, text, words):
    tree(tmp_path, "a.nii")
    (tmp_path / "manifest.csv").write_text(text)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize(
    "config", [CohortConfig(masks="{id}.nii"), CohortConfig(roots=(Path("nowhere"),)), CohortConfig(images="/a/*")]
)
def test_options_that_cannot_be_followed(tmp_path, config):
    tree(tmp_path, "a.nii")
    (tmp_path / "manifest.csv").write_text("id,image\na,a.nii\n")
    with pytest.raises(FaultyDataError):
        load_cohort(tmp_path, config)


@pytest.mark.parametrize(
    "wrong", [{"labels": {-1: "a"}}, {"labels": {1: ""}}, {"labels": {1 << 40: "a"}}, {"fill": 1e39}]
)
def test_options_that_cannot_be(wrong):
    with pytest.raises(ConfigError):
        parse_config(CohortConfig, wrong, "here")


def test_nothing_there(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "absent")
    assert "no images" in refusal(tmp_path)
    tree(tmp_path, "a.nii")
    assert "a single file" in refusal(tmp_path / "a.nii")


def test_real_cohorts(shared_data):
    hippocampus = load_cohort(shared_data / "hippocampus")
    assert (len(hippocampus), len(hippocampus.labelled()), len(hippocampus.subjects)) == (272, 188, 136)
    assert hippocampus.labels == {1: "Anterior", 2: "Posterior"}
    oasis = load_cohort(shared_data / "oasis", CohortConfig(images="*_T1w.nii.gz", masks="{id}_labels.nii.gz"))
    assert (len(oasis), len(oasis.labelled())) == (29, 29)
    assert len(oasis.subjects) < 29
    advice = refusal(shared_data / "oasis")
    assert "'cohort.leave_out=*_tissues.nii.gz' or 'cohort.leave_out=*_labels.nii.gz'" in advice
    assert "'cohort.images=*_T1w.nii.gz' 'cohort.masks=*_labels.nii.gz'" in advice
    assert len(load_cohort(shared_data / "lesions")) == 60


def test_further_columns_of_the_subject_list_stay_with_the_cases(tmp_path):
    tree(tmp_path, "a.nii.gz", "b.nii.gz")
    (tmp_path / "subjects.csv").write_text("scan,who,age,Sex,image\na,s1,45,F,x\nb,s2,,M,x\n")
    manifest = load_cohort(tmp_path)
    assert [dict(case.attributes) for case in manifest] == [{"age": "45", "Sex": "F"}, {"Sex": "M"}]
    manifest.write_csv(tmp_path / "manifest.csv")
    assert [dict(case.attributes) for case in load_cohort(tmp_path / "manifest.csv")] == [
        {"age": "45", "Sex": "F"},
        {"Sex": "M"},
    ]


def test_dicom_beside_other_images_is_never_half_read_without_a_word(tmp_path, shared_data):
    series = sorted((shared_data / "dicom" / "t1_sagittal_384").rglob("*.dcm"))
    for folder in (tmp_path / "flat", tmp_path / "tree" / "P1" / "t1"):
        folder.mkdir(parents=True)
        for file in series:
            (folder / file.name).write_bytes(file.read_bytes())
    flat, deep = tree(tmp_path / "flat", "a.nii.gz", "b.nii.gz"), tree(tmp_path / "tree", "a.nii.gz", "b.nii.gz")
    text = refusal(flat)
    assert f"{len(series)} DICOM files" in text
    assert "medgen data import" in text
    (fault,) = check(flat).faults
    assert "beside 2 other images" in fault.found
    only = load_cohort(flat, CohortConfig(images="*.nii.gz"))
    assert [case.id for case in only] == ["a", "b"]
    (left,) = load_cohort(deep).intake.left_out
    assert left.count == len(series)
    assert left.reason.startswith("DICOM, not read")
    (other,) = load_cohort(flat, CohortConfig(layout="dicom")).intake.left_out
    assert other.files == ("a.nii.gz", "b.nii.gz")


def test_names_that_are_stored_in_two_ways_are_told_apart(tmp_path):
    # On some disks ü is one sign, on others u and two dots: the same to every eye.
    for name in ("M\u00fcller_01", "Mu\u0308ller_01"):
        io.write(Volume(np.ones((1, 4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4))), tmp_path / f"{name}.nii.gz")
    with pytest.raises(FaultyDataError) as refused:
        load_cohort(tmp_path)
    for name in ("M\\xfcller_01.nii.gz", "Mu\\u0308ller_01.nii.gz"):
        assert name in str(refused.value)
