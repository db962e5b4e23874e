"""The nnU-Net data set: its format by nnU-Net's own rules, folds by subject, and no generator that has seen them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgen.data.integrity import check
from medgen.data.layouts.detect import load_cohort
from medgen.errors import AuditError, DataError
from medgen.pipelines.cli.app import main
from medgen.synthesis.export.nnunet import write_nnunet
from medgen.system import files


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, write_thick_slices: Callable[..., Path]) -> Path:
    """Eight scans of four subjects, labels 2, 7 and 30."""
    folder = write_thick_slices(tmp_path_factory.mktemp("data") / "cohort", n=8)
    (folder / "subjects.csv").write_text("case,subject\n" + "\n".join(f"case{n},s{n // 2}" for n in range(8)))
    return folder


@pytest.fixture
def finish(cohort: Path, tmp_path: Path, write_thick_slices: Callable[..., Path]) -> Callable[..., Path]:
    """Writes what a finished run leaves: who was in which part, and three synthetic scans with a parent each."""

    def write(name: str, held_out: Sequence[str], part: str = "test", parent: str | None = None) -> Path:
        run = tmp_path / name
        manifest = load_cohort(cohort).with_hashes()
        manifest.write_csv(run / "manifest.csv")
        rows = [
            {"case": case.id, "subject": case.subject, "part": part if case.subject in held_out else "labelled"}
            for case in manifest
        ]
        files.write_csv(run / "splits.csv", rows, ("case", "subject", "part"))
        write_thick_slices(run / "synthetic", n=3, prefix="syn-000", seed=sum(name.encode()))
        learnt = [case.id for case in manifest if case.subject not in held_out]
        for number in range(3):
            parents = [{"case": parent or learnt[number], "sha256": {}}]
            files.write_json(run / "synthetic" / "provenance" / f"syn-000{number}.json", {"parents": parents})
        return run

    return write


def splits(folder: Path) -> list[dict[str, list[str]]]:
    return json.loads((folder / "splits_final.json").read_text())


def test_one_run_gives_one_fold_in_nnunets_format(finish: Callable[..., Path], cohort: Path, tmp_path: Path) -> None:
    made = write_nnunet([finish("run", ["s0", "s3"])], tmp_path / "raw", number=501, name="Thick")
    assert made.folder == tmp_path / "raw" / "Dataset501_Thick"
    assert check(made.folder).faults == []
    description = json.loads((made.folder / "dataset.json").read_text())
    assert set(description) >= {"channel_names", "labels", "numTraining", "file_ending"}
    values = list(description["labels"].values())
    assert values == [0, 1, 2, 3]
    assert description["labels"] == {"background": 0, "part 2": 1, "part 7": 2, "part 30": 3}
    images = sorted(path.name for path in (made.folder / "imagesTr").iterdir())
    masks = sorted(path.name for path in (made.folder / "labelsTr").iterdir())
    assert images == [name.replace(".nii.gz", "_0000.nii.gz") for name in masks]
    assert description["numTraining"] == len(images) == 11
    (fold,) = splits(made.folder)
    assert fold["val"] == ["case0", "case1", "case6", "case7"]
    assert fold["train"] == ["case2", "case3", "case4", "case5", "syn-0000", "syn-0001", "syn-0002"]
    numbers = {0: 0, 2: 1, 7: 2, 30: 3}
    for name in masks:
        image = nib.load(made.folder / "imagesTr" / name.replace(".nii.gz", "_0000.nii.gz"))
        mask = nib.load(made.folder / "labelsTr" / name)
        assert np.allclose(image.affine, mask.affine)
        assert image.shape == mask.shape
        assert mask.get_data_dtype() == np.uint8
        assert (b"SYNTHETIC" in bytes(mask.header["descrip"])) == name.startswith("syn-")
    before = np.asarray(nib.load(cohort / "labelsTr" / "case3.nii.gz").dataobj)
    after = np.asarray(nib.load(made.folder / "labelsTr" / "case3.nii.gz").dataobj)
    assert np.array_equal(np.vectorize(numbers.get)(before), after)
    with (made.folder / "subjects.csv").open(newline="") as file:
        kinds = {row["case"]: (row["subject"], row["kind"]) for row in csv.DictReader(file)}
    assert kinds["case3"] == ("s1", "real")
    assert kinds["syn-0001"] == ("syn-0001", "synthetic")
    with pytest.raises(DataError, match="exists and is not empty"):
        write_nnunet([tmp_path / "run"], tmp_path / "raw", number=501, name="Thick")


def test_synthetic_scans_take_the_scale_of_their_parent(
    finish: Callable[..., Path], cohort: Path, tmp_path: Path
) -> None:
    run = finish("run", ["s0"], parent="case5")
    path = run / "synthetic" / "imagesTr" / "syn-0000_0000.nii.gz"
    small = nib.load(path)
    scaled = (np.asarray(small.dataobj) - 300) / 500
    nib.save(nib.Nifti1Image(scaled.astype(np.float32), small.affine, small.header), path)
    made = write_nnunet([run], tmp_path / "raw", number=1, name="A")
    result = np.asarray(nib.load(made.folder / "imagesTr" / "syn-0000_0000.nii.gz").dataobj)
    parent = np.asarray(nib.load(cohort / "imagesTr" / "case5_0000.nii.gz").dataobj)
    assert np.percentile(result, [5, 95]) == pytest.approx(np.percentile(parent, [5, 95]), rel=0.1)


def test_folds_have_only_scans_of_generators_that_have_not_seen_them(
    finish: Callable[..., Path], tmp_path: Path
) -> None:
    runs = [finish(f"fold{k}", [f"s{2 * k}", f"s{2 * k + 1}"]) for k in range(2)]
    made = write_nnunet(runs, tmp_path / "raw", number=7, name="Folds", channels=["CT"])
    assert check(made.folder).faults == []
    first, second = splits(made.folder)
    assert first["val"] == ["case0", "case1", "case2", "case3"]
    assert second["val"] == ["case4", "case5", "case6", "case7"]
    # A generator of the other fold has learnt from this fold's validation subjects.
    assert [name for name in first["train"] if "syn" in name] == ["syn-f0-0000", "syn-f0-0001", "syn-f0-0002"]
    assert [name for name in second["train"] if "syn" in name] == ["syn-f1-0000", "syn-f1-0001", "syn-f1-0002"]
    for fold in (first, second):
        assert not set(fold["train"]) & set(fold["val"])
        assert not any(name.startswith("syn") for name in fold["val"])
        assert len([name for name in fold["train"] if name.startswith("case")]) == 4
    assert json.loads((made.folder / "dataset.json").read_text())["channel_names"] == {"0": "CT"}
    assert made.synthetic == 6


def test_a_validation_part_is_validated_on_and_the_test_part_stays_out(
    finish: Callable[..., Path], tmp_path: Path
) -> None:
    run = finish("run", ["s3"])
    text = (run / "splits.csv").read_text()
    (run / "splits.csv").write_text(text.replace("s1,labelled", "s1,validation"))
    for number in range(3):
        files.write_json(run / "synthetic" / "provenance" / f"syn-000{number}.json", {"parents": []})
    made = write_nnunet([run], tmp_path / "raw", number=7, name="A")
    (fold,) = splits(made.folder)
    assert fold["val"] == ["case2", "case3"]
    assert sorted(path.name for path in (made.folder / "labelsTs").iterdir()) == ["case6.nii.gz", "case7.nii.gz"]
    assert made.test == 2
    assert not {"case6", "case7"} & set(fold["train"])
    assert check(made.folder).faults == []


def test_leaks_and_wrong_runs_are_refused_by_the_command(
    finish: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refusal(*arguments: object) -> str:
        command = ["medgen", "augment", "nnunet", *arguments, "--out", tmp_path / "raw", "--id", 9, "--name", "A"]
        monkeypatch.setattr("sys.argv", [str(word) for word in command])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        message = capsys.readouterr().err
        assert len(message.strip().splitlines()) == 1
        assert not (tmp_path / "raw" / "Dataset009_A").exists()
        return message

    # A parent in the test set.
    assert "syn-0000 has the parent 'case6'" in refusal(finish("leak", ["s3"], parent="case6"))
    # The same subject is held out in one part and learnt from in another.
    torn = finish("torn", ["s0"])
    text = (torn / "splits.csv").read_text()
    (torn / "splits.csv").write_text(text.replace("case1,s0,test", "case1,s0,unlabelled"))
    assert "'s0' is to be validated on, but the generators learnt from it" in refusal(torn)
    one, two = finish("one", ["s0", "s1"]), finish("two", ["s1", "s2"])
    assert "subject 's1' is held out in" in refusal(one, two)
    # One run given twice is no second fold, and a copy of it is none either.
    assert "is the same run as" in refusal(one, one)
    assert "is the same run as" in refusal(one, shutil.copytree(one, tmp_path / "copy"))
    shutil.copytree(one, tmp_path / "three", ignore=shutil.ignore_patterns("dataset.json"))
    assert "has no synthetic/dataset.json" in refusal(tmp_path / "three")
    assert "nothing to validate on" in refusal(finish("all", []))
    with pytest.raises(DataError, match="expected a number from 1 to 999"):
        write_nnunet([one], tmp_path / "raw", number=9, name="A B")
    with pytest.raises(AuditError):
        write_nnunet([torn], tmp_path / "raw", number=9, name="A")


def test_scans_that_changed_since_the_run_are_refused(
    cohort: Path, finish: Callable[..., Path], tmp_path: Path
) -> None:
    run = finish("run", ["s0"])
    text = (run / "manifest.csv").read_text()
    recorded = text.splitlines()[3].split(",")[4]
    (run / "manifest.csv").write_text(text.replace(recorded, "0" * 64))
    with pytest.raises(DataError, match="this case changed since the run"):
        write_nnunet([run], tmp_path / "raw", number=9, name="A")
