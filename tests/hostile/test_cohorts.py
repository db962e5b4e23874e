"""Tables, dataset.json, links and masks that are wrong or meant to harm: one line with the file's name, no more."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.data.integrity import check, check_scans
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.errors import DataError
from medgen.faults import FaultyDataError
from medgen.volume import Grid, Volume

GRID = Grid((6, 7, 8), np.diag([1.0, 2.0, 1.5, 1.0]))
HEAD = b"id,subject,image,mask\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for number in range(3):
        io.write(
            Volume(rng.normal(size=(1, *GRID.shape)).astype(np.float32), GRID), folder / f"images/c{number}.nii.gz"
        )
        io.write(
            Volume(rng.integers(0, 3, (1, *GRID.shape)).astype(np.uint8), GRID), folder / f"masks/c{number}.nii.gz"
        )
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.nii.gz")}


@pytest.fixture
def cohort(tmp_path, files):
    folder = tmp_path / "cohort"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def refused(path, name, config=None):
    faults = check(path, config or CohortConfig()).faults
    assert faults
    for fault in faults:
        text = str(fault)
        assert text.isprintable()
        assert fault.found
        assert fault.expected
        assert fault.action
    assert any(name in fault.file for fault in faults), faults
    return faults


TABLES = {
    "empty": b"",
    "header": HEAD,
    "null": HEAD + b"a\0,s,images/c0.nii.gz,\n",
    "null-in-path": HEAD + b"a,s,images/c0\0.nii.gz,\n",
    "open-quote": HEAD + b'a,"s,images/c0.nii.gz,\n',
    "latin-1": HEAD + "ä,s,images/c0.nii.gz,\n".encode("latin-1"),
    "utf-16": HEAD.decode().encode("utf-16"),
    "binary": bytes(range(256)) * 10,
    "too-few-cells": HEAD + b"a,s,images/c0.nii.gz\n",
    "id-twice": HEAD + b"a,s,images/c0.nii.gz,\na,t,images/c1.nii.gz,\n",
    "id-twice-by-case": HEAD + b"a,s,images/c0.nii.gz,\nA,t,images/c1.nii.gz,\n",
    "id-of-path": HEAD + b"../a,s,images/c0.nii.gz,\n",
    "id-of-lines": HEAD + b'"a\nb",s,images/c0.nii.gz,\n',
    "id-missing": HEAD + b",s,images/c0.nii.gz,\n",
    "formula-in-id": HEAD + b"=1+1,s,images/c0.nii.gz,\n",
    "formula": HEAD + b'a,"=HYPERLINK(""x"")",images/c0.nii.gz,\n',
    "formula-by-sign": HEAD + b"a,+cmd|' /C calc'!A0,images/c0.nii.gz,\n",
    "escape-codes": HEAD + b"a,\x1b[31ms,images/c0.nii.gz,\n",
    "column-missing": b"name,file\na,images/c0.nii.gz\n",
    "column-twice": b"id,id,image\na,b,images/c0.nii.gz\n",
    "semicolons-and-commas": b"id;image,mask\na;images/c0.nii.gz,\n",
    "password-file": HEAD + b"a,s,/etc/passwd,\n",
    "device": HEAD + b"a,s,/dev/zero,\n",
    "leaves": HEAD + b"a,s,../../../../../../etc/passwd,\n",
    "absent": HEAD + b"a,s,images/c9.nii.gz,\n",
    "long-name": HEAD + b"a,s," + b"x" * 300 + b".nii,\n",
    "long-cell": HEAD + b"a,s," + b"x" * 200000 + b",\n",
    "channels-in-words": b"id,image,channels\na,images/c0.nii.gz,many\n",
    "channels-negative": b"id,image,channels\na,images/c0.nii.gz,-3\n",
    "channels-huge": b"id,image,channels\na,images/c0.nii.gz,99999999999999999999\n",
    "hash-wrong": b"id,image,sha256_image\na,images/c0.nii.gz,deadbeef\n",
    "hashes-too-many": b"id,image,sha256_image\na,images/c0.nii.gz,a;b\n",
    "folder": HEAD + b"a,s,images,\n",
    "channels-none": b"id,image,channels\na,images/c0.nii.gz,0\n",
    "channel-empty": b"id,image\na,images/c0.nii.gz;;images/c1.nii.gz\n",
    "channel-twice": b"id,image\na,images/c0.nii.gz;images/../images/c0.nii.gz\n",
    "subject-missing": HEAD + b"a,s,images/c0.nii.gz,\nb,,images/c1.nii.gz,\n",
    "mask-is-image": HEAD + b"a,s,images/c0.nii.gz,images/c0.nii.gz\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(cohort, name):
    (cohort / "manifest.csv").write_bytes(TABLES[name])
    refused(cohort, "")
    refused(cohort / "manifest.csv", "")


@pytest.mark.parametrize("name", ["header", "id-twice", "id-of-path"])
def test_faults_of_a_whole_table_name_it(cohort, name):
    (cohort / "manifest.csv").write_bytes(TABLES[name])
    refused(cohort, "manifest.csv")


@pytest.mark.parametrize("text", ["[1]", '"cohort"', '{"name": ["a"]}', '{"labels": {"1": "a", "1": "b"}}'])
def test_sidecars_of_manifests(cohort, text):
    (cohort / "manifest.csv").write_bytes(HEAD + b"a,s,images/c0.nii.gz,\n")
    (cohort / "manifest.json").write_text(text)
    refused(cohort, "manifest.json")


def test_plain_cells_are_accepted(cohort):
    rows = b"a,s-1,images/c0.nii.gz,-3.5,+1,T1 (post),\xc3\xa9\nb,@home,images/c1.nii.gz,-,1e-3,x|y,\n"
    (cohort / "manifest.csv").write_bytes(b"\xef\xbb\xbfid,subject,image,change,sign,note,name\n" + rows)
    assert check(cohort).ok


@pytest.mark.parametrize(
    "content",
    [
        b"case,subject\nc0,s\n",
        b"case,subject\nc0,s\nc0,t\nc1,s\nc2,s\n",
        b"case\nc0\n",
        b'case,subject\nc0,"s\n',
        "case,subject\nc0,é\n".encode("latin-1"),
        b"case,subject\nc0,=A1\nc1,s\nc2,s\n",
    ],
)
def test_subject_lists(cohort, content):
    (cohort / "subjects.csv").write_bytes(content)
    refused(cohort, "subjects.csv")


ONE = '"training": [{"image": "images/c0.nii.gz"}]'
DESCRIPTIONS = {
    "not-json": "{",
    "list": "[]",
    "nan": '{"numTraining": NaN}',
    "deep": "[" * 100000,
    "training-is-text": '{"training": "abc"}',
    "training-is-number": '{"training": 5}',
    "entry-is-null": '{"training": [null]}',
    "absolute": '{"training": [{"image": "/etc/passwd"}]}',
    "leaves": '{"training": [{"image": "../../x.nii"}]}',
    "null-byte": '{"training": [{"image": "a\\u0000b"}]}',
    "surrogate": '{"training": [{"image": "\\ud800.nii"}]}',
    "label-is-number": '{"training": [{"image": "images/c0.nii.gz", "label": 5}]}',
    "twice": '{"training": [{"image": "images/c0.nii.gz"}, {"image": "images/c0.nii.gz"}]}',
    "labels-negative": f'{{{ONE}, "labels": {{"a": -1}}}}',
    "labels-fractional": f'{{{ONE}, "labels": {{"a": 1.5}}}}',
    "labels-nested": f'{{{ONE}, "labels": {{"a": {{"b": 1}}}}}}',
    "labels-list": f'{{{ONE}, "labels": [1]}}',
    "labels-true": f'{{{ONE}, "labels": {{"a": true}}}}',
    "labels-twice": f'{{{ONE}, "labels": {{"1": "a", "01": "b"}}}}',
    "labels-twice-by-name": f'{{{ONE}, "labels": {{"a": 1, "b": 1}}}}',
    "label-is-0": '{"training": [{"image": "images/c0.nii.gz", "label": 0}]}',
    "ending-empty": '{"channel_names": {"0": "MR"}, "file_ending": ""}',
    "key-twice": f'{{{ONE}, "name": "a", "name": "b"}}',
    "count": f'{{{ONE}, "numTraining": 7}}',
    "channels-list": '{"channel_names": ["MR"]}',
    "channels-words": '{"channel_names": {"x": "MR"}}',
    "channels-gap": '{"channel_names": {"1": "MR"}}',
    "ending": '{"channel_names": {"0": "MR"}, "file_ending": "../x"}',
    "modality": '{"modality": 5, "training": []}',
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions(cohort, name):
    (cohort / "dataset.json").write_text(DESCRIPTIONS[name])
    refused(cohort, str(cohort))


@pytest.mark.parametrize("name", ["manifest.csv", "dataset.json", "subjects.csv"])
def test_pipes_and_lost_links_instead_of_lists(cohort, name):
    os.mkfifo(cohort / name)
    refused(cohort, str(cohort))
    (cohort / name).unlink()
    (cohort / name).symlink_to("nowhere")
    refused(cohort, str(cohort))


@pytest.mark.parametrize("folder", ["images", "masks"])
@pytest.mark.parametrize("kind", ["out", "dangling", "loop", "pipe", "device", "folder"])
def test_links_and_pipes(cohort, folder, kind):
    path = cohort / folder / "c1.nii.gz"
    outside = path.rename(cohort.parent / "outside.nii.gz")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"out": outside, "dangling": "nowhere", "loop": path.name, "device": "/dev/zero"}[kind])
    refused(cohort, "c1.nii.gz")


def test_links_within_declared_roots(cohort):
    path = cohort / "images" / "c1.nii.gz"
    store = cohort.parent / "store"
    store.mkdir()
    path.symlink_to(path.rename(store / "c1.nii.gz"))
    assert "a link that leaves the cohort" in refused(cohort, "c1.nii.gz")[0].found
    assert check(cohort, CohortConfig(roots=(store,))).ok
    (cohort / "kept").mkdir()
    path.unlink()
    path.symlink_to((store / "c1.nii.gz").rename(cohort / "kept" / "c1.nii.gz"))
    assert check(cohort).ok


def moved(**changes):
    affine = GRID.affine.copy()
    for place, value in changes.items():
        affine[int(place[1]), int(place[2])] = value
    return Grid(GRID.shape, affine)


ONES = np.ones(GRID.shape, np.uint8)
MASKS = {
    "shape": (ONES[:5], Grid((5, 7, 8), GRID.affine), "shape"),
    "transposed": (np.ones((7, 6, 8), np.uint8), Grid((7, 6, 8), GRID.affine), "shape"),
    "mirrored": (ONES, moved(a00=-1, a03=5), "array axes run LAS, not RAS"),
    "shifted": (ONES, moved(a03=1), "positions differ by up to 1 mm"),
    "shifted-a-little": (ONES, moved(a13=0.01), "positions differ by up to 0.01 mm"),
    "spacing": (ONES, moved(a22=1.6), "voxel sizes"),
    "negative": (-ONES.astype(np.int16), GRID, "negative labels"),
    "fractional": (ONES * np.float32(0.5), GRID, "fractional"),
    "empty": (ONES * 0, GRID, "an empty mask"),
    "undeclared": (ONES * 9, GRID, "undeclared labels 9"),
    "beyond-integers-as-integers": (ONES.astype(np.int64) << 40, GRID, "labels up to 1.09951e+12"),
    "beyond-integers": (ONES * np.float32(1e20), GRID, "labels up to 1e+20"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(cohort, name):
    data, grid, words = MASKS[name]
    io.write(Volume(data[None], grid), cohort / "masks" / "c1.nii.gz")
    faults = refused(cohort, "c1.nii.gz", CohortConfig(labels={1: "a", 2: "b"}))
    assert words in faults[0].found


def test_an_image_is_no_mask_of_itself(cohort):
    values = np.random.default_rng(1).integers(1, 99, (1, *GRID.shape)).astype(np.int16)
    for folder, kind in (("images", np.float32), ("masks", np.int16)):
        io.write(Volume(values.astype(kind), GRID), cohort / folder / "c1.nii.gz")
    assert "the same voxels as images/c1.nii.gz" in refused(cohort, "masks/c1.nii.gz")[0].found


def test_all_that_is_wrong_with_a_mask(cohort):
    io.write(Volume(ONES[None] * 9, moved(a03=1)), cohort / "masks" / "c1.nii.gz")
    faults = refused(cohort, "c1.nii.gz", CohortConfig(labels={1: "a", 2: "b"}))
    assert ["positions differ" in faults[0].found, "undeclared" in faults[1].found] == [True, True]


def test_training_is_not_begun_on_a_cohort_with_bad_files(cohort):
    good = load_cohort(cohort)
    assert check_scans(good).digest() == good.digest()
    for number in (0, 2):
        path = cohort / "images" / f"c{number}.nii.gz"
        path.write_bytes(path.read_bytes()[:-3])
    (cohort / "masks" / "c1.nii.gz").write_bytes(b"")
    with pytest.raises(FaultyDataError) as caught:
        check_scans(good)
    assert {Path(fault.file).parent.name + Path(fault.file).name for fault in caught.value.faults} == {
        "imagesc0.nii.gz",
        "imagesc2.nii.gz",
        "masksc1.nii.gz",
    }
    with pytest.raises(FaultyDataError) as caught:
        check_scans(good, masks=False)
    assert len(caught.value.faults) == 2


def test_the_record_of_a_check(cohort):
    record = check(cohort).to_plain(cohort)
    scans = record.pop("scans")
    assert [scan["id"] for scan in scans] == ["c0", "c1", "c2"]
    assert (scans[0]["shape"], scans[0]["spacing"], scans[0]["axes"]) == (GRID.shape, GRID.spacing, "RAS")
    assert record == {
        "schema": 1,
        "path": str(cohort),
        "ok": True,
        "cases": 3,
        "files": [],
        "faults": [],
        "notes": [],
        "taken": {
            "layout": "folder",
            "subjects_from": "nothing says whose scans they are: each counts as another subject's",
            "masks_from": "the folder masks",
            "decisions": [],
            "left_out": [],
            "channels": [],
            "regions": {},
            "scans": 3,
            "masks": 3,
            "subjects": 3,
        },
    }
    (cohort / "images" / "c0.nii.gz").write_bytes(b"x")
    record = check(cohort).to_plain(cohort)
    assert record["files"] == [str(cohort / "images" / "c0.nii.gz")]
    assert set(record["faults"][0]) == {"file", "found", "expected", "action"}


def test_filled_and_unscaled_cohorts_are_other_cohorts(cohort):
    plain = load_cohort(cohort)
    filled = load_cohort(cohort, CohortConfig(fill=0))
    assert len({plain.digest(), filled.digest(), load_cohort(cohort, CohortConfig(unscaled=True)).digest()}) == 3
    data = np.ones(GRID.shape, np.float32)
    data[0], data[1] = 2, np.nan
    io.write(Volume(data[None], GRID), cohort / "images" / "c0.nii.gz")
    case = load_cohort(cohort).cases[0]
    with pytest.raises(DataError, match="56 NaN voxels"):
        case.read_image()
    assert replace(case, fill=-7.0).read_image().data.min() == -7
