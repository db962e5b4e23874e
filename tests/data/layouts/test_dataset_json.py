import json
import unicodedata
from pathlib import Path

import pytest

from medgen.data.integrity import check
from medgen.data.layouts.dataset_json import label_names
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.faults import FaultyDataError
from tests.builders.cohort_folders import labels, scan, taken


def write(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content))


def test_version_1_of_nnunet(tmp_path):
    for number in range(3):
        for channel in range(2):
            scan(tmp_path / f"imagesTr/MS_{number:03d}_{channel:04d}.nii.gz", number)
        labels(tmp_path / f"labelsTr/MS_{number:03d}.nii.gz")
    listed = [{"image": f"./imagesTr/MS_{n:03d}.nii.gz", "label": f"./labelsTr/MS_{n:03d}.nii.gz"} for n in range(3)]
    about = {"modality": {"0": "FLAIR", "1": "T1"}, "labels": {"0": "background", "1": "lesion", "2": "csf"}}
    for training in ({"training": listed, "numTraining": 3}, {}):
        write(tmp_path, name="MS", **about, **training)
        manifest = load_cohort(tmp_path)
        assert (manifest.intake.layout, manifest.intake.channels) == ("nnunet", ("FLAIR", "T1"))
        assert [len(case.images) for case in manifest] == [2, 2, 2]
        assert len(manifest.labelled()) == 3
        assert manifest.labels == {1: "lesion", 2: "csf"}


def test_a_list_of_files_wins_over_rules_for_names(tmp_path):
    for name in ("a", "b"):
        scan(tmp_path / f"scans/{name}_t1.nii.gz")
        scan(tmp_path / f"scans/{name}_t2.nii.gz")
        labels(tmp_path / f"drawn/{name}.nii.gz")
    about = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1, "y": 2}, "file_ending": ".nii.gz"}
    single = [{"image": f"scans/{n}_t1.nii.gz", "label": f"drawn/{n}.nii.gz"} for n in ("a", "b")]
    write(tmp_path, **about, training=single)
    assert taken(tmp_path)["a_t1"] == ("a_t1", ["scans/a_t1.nii.gz"], "drawn/a.nii.gz")
    about["channel_names"] = {"0": "T1", "1": "T2"}
    several = [
        {"image": [f"scans/{n}_t1.nii.gz", f"scans/{n}_t2.nii.gz"], "label": f"drawn/{n}.nii.gz"} for n in ("a", "b")
    ]
    write(tmp_path, **about, training=several)
    assert taken(tmp_path)["b_t1"][1] == ["scans/b_t1.nii.gz", "scans/b_t2.nii.gz"]
    own = {item["label"][6]: {"images": item["image"], "label": item["label"]} for item in several}
    write(tmp_path, **about, dataset=own)
    assert taken(tmp_path)["b"] == ("b", ["scans/b_t1.nii.gz", "scans/b_t2.nii.gz"], "drawn/b.nii.gz")


def test_two_phases_of_a_patient(tmp_path):
    for patient in range(3):
        for frame in ("01", "12"):
            scan(tmp_path / f"imagesTr/patient{patient}_frame{frame}_0000.nii.gz", patient)
            labels(tmp_path / f"labelsTr/patient{patient}_frame{frame}.nii.gz")
    write(tmp_path, channel_names={"0": "cine"}, labels={"background": 0, "a": 1, "b": 2}, file_ending=".nii.gz")
    with pytest.raises(FaultyDataError) as caught:
        load_cohort(tmp_path)
    assert "'cohort.subjects={subject}_frame*'" in str(caught.value)
    assert "'cohort.leave_out=*_frame01*.nii.gz'" in str(caught.value)
    assert len(load_cohort(tmp_path, CohortConfig(subjects="{subject}_frame*")).subjects) == 3
    assert len(load_cohort(tmp_path, CohortConfig(leave_out="*_frame01*.nii.gz"))) == 3


def test_regions_and_channels_survive_a_manifest(tmp_path):
    scan(tmp_path / "imagesTr/t_0000.nii.gz")
    labels(tmp_path / "labelsTr/t.nii.gz")
    regions = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    write(
        tmp_path,
        channel_names={"0": "CT"},
        labels={"background": 0, **regions},
        regions_class_order=[1, 2, 3],
        file_ending=".nii.gz",
    )
    first = load_cohort(tmp_path)
    first.write_csv(tmp_path / "manifest.csv")
    for manifest in (first, load_cohort(tmp_path / "manifest.csv")):
        assert manifest.intake.channels == ("CT",)
        assert manifest.intake.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
        assert manifest.intake.class_order == (1, 2, 3)
        assert manifest.labels == {1: "rest of whole", 2: "rest of core", 3: "enhancing"}


def test_names_of_numbers_in_regions(tmp_path):
    assert label_names({"background": 0, "whole": [1, 2, 3], "core": 3}, tmp_path) == {
        1: "rest of whole-1",
        2: "rest of whole-2",
        3: "core",
    }
    assert label_names({"all": [1, 2], "other": 4}, tmp_path) == {1: "all-1", 2: "all-2", 4: "other"}


def nnunet_folder(tmp_path, names, masks, **about):
    for name in names:
        scan(tmp_path / "imagesTr" / name)
    for name in masks:
        labels(tmp_path / "labelsTr" / name)
    told = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({**told, **about}))
    return [(Path(fault.file).name, fault.found) for fault in check(tmp_path).faults]


def test_a_wrong_file_ending_is_one_fault(tmp_path):
    names = [f"c{number}_0000.nii.gz" for number in range(3)]
    masks = [f"c{number}.nii.gz" for number in range(3)]
    ((file, found),) = nnunet_folder(tmp_path, names, masks, file_ending=".nii")
    assert (file, found) == ("dataset.json", "file_ending '.nii', but files in imagesTr end with '.nii.gz'")
    assert nnunet_folder(tmp_path, names, masks) == []


def test_wrong_channels_leave_no_mask_without_image(tmp_path):
    ((file, found),) = nnunet_folder(
        tmp_path, ["a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"], ["a.nii.gz", "b.nii.gz"]
    )
    assert (file, found) == ("imagesTr", "channels 0000, 0001 of case b")


def test_accents_match_however_they_are_stored(tmp_path):
    one, two = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    assert nnunet_folder(tmp_path / "v2", [f"{one}_0000.nii.gz"], [f"{two}.nii.gz"]) == []
    listed = tmp_path / "listed"
    entry = {"image": f"imagesTr/{one}.nii.gz", "label": f"labelsTr/{two}.nii.gz"}
    assert nnunet_folder(listed, [f"{two}.nii.gz"], [f"{one}.nii.gz"], training=[entry]) == []
    (listed / "dataset.json").unlink()
    (listed / "manifest.csv").write_text(f"id,image,mask\nzoe,{entry['image']},{entry['label']}\n", encoding="utf-8")
    assert check(listed).ok
    scan(tmp_path / "flat" / f"{one}.nii.gz")
    labels(tmp_path / "flat" / f"{two}_mask.nii.gz")
    assert check(tmp_path / "flat").ok
