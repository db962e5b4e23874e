"""Bad labels stop an augment run before anything is written, by name and in one line; own label schemes go through."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.data.integrity import check
from medgen.data.layouts.detect import load_cohort
from medgen.pipelines.cli.app import main
from medgen.synthesis import SyntheticDataset
from medgen.volume import Grid, Volume

TINY = Path(__file__).parents[3] / "configs" / "tiny" / "augment.yaml"
# The grid of the cohort itself: 2 x 2 x 5 mm.
THICK = ["preprocess.shape=[16,16,16]", "preprocess.spacing=[2,2,5]", "preprocess.center_on=fov", "device=cpu"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, write_thick_slices: Callable[..., Path]) -> Path:
    return write_thick_slices(tmp_path_factory.mktemp("sound") / "cohort")


@pytest.fixture
def cohort(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "cohort"))


def mask_of(cohort: Path, number: int) -> tuple[Path, Volume]:
    path = cohort / "labelsTr" / f"case{number}.nii.gz"
    return path, io.read(path)


def medgen(*arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and error stream of the console entry point."""
    monkeypatch.setattr("sys.argv", ["medgen", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0), capsys.readouterr().err


def other_grid(cohort: Path) -> None:
    path, mask = mask_of(cohort, 1)
    io.write(Volume(mask.data, Grid(mask.grid.shape, np.diag([2.0, 2.0, 4.0, 1.0]))), path)


def undeclared(cohort: Path) -> None:
    path, mask = mask_of(cohort, 1)
    io.write(mask.with_data(np.where(mask.data == 7, 9, mask.data)), path)


def fractional(cohort: Path) -> None:
    path, mask = mask_of(cohort, 1)
    io.write(mask.with_data(mask.data.astype(np.float32) * 0.99), path)


def negative(cohort: Path) -> None:
    path, mask = mask_of(cohort, 1)
    io.write(mask.with_data(-mask.data), path)


def empty(cohort: Path) -> None:
    path, mask = mask_of(cohort, 1)
    io.write(mask.with_data(mask.data * 0), path)


def missing_class(cohort: Path) -> None:
    description = json.loads((cohort / "dataset.json").read_text())
    description["labels"]["spare part"] = 31
    (cohort / "dataset.json").write_text(json.dumps(description))


def channels(cohort: Path) -> None:
    # A folder without dataset.json says nothing about channels: the manifest's rows are looked at.
    lines = ["id,subject,image,mask"]
    shutil.copy(cohort / "imagesTr" / "case1_0000.nii.gz", cohort / "imagesTr" / "case1_0001.nii.gz")
    for number in range(8):
        images = f"imagesTr/case{number}_0000.nii.gz"
        second = ";imagesTr/case1_0001.nii.gz" if number == 1 else ""
        lines.append(f"case{number},s{number},{images}{second},labelsTr/case{number}.nii.gz")
    (cohort / "manifest.csv").write_text("\n".join(lines))


def no_masks(cohort: Path) -> None:
    shutil.rmtree(cohort / "labelsTr")
    (cohort / "dataset.json").unlink()


def two_subjects(cohort: Path) -> None:
    (cohort / "subjects.csv").write_text("case,subject\n" + "\n".join(f"case{n},s{n % 2}" for n in range(8)))


@pytest.mark.parametrize(
    ("spoil", "words", "also_check"),
    [
        (other_grid, ["case1.nii.gz", "positions differ by up to 11 mm"], True),
        (undeclared, ["case1.nii.gz", "undeclared labels 9", "0, 2, 7, 30"], True),
        (fractional, ["case1.nii.gz", "fractional labels"], True),
        (negative, ["case1.nii.gz", "negative labels down to -30"], True),
        (empty, ["case1.nii.gz", "an empty mask"], True),
        (channels, ["case1_0000.nii.gz", "2 channels", "1 as in most cases"], True),
        (missing_class, ["label 31 (spare part)", "in no mask", "labelled training scans"], False),
        (no_masks, ["has a mask"], False),
        (two_subjects, ["2 labelled subjects", "at least 3"], False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input_is_refused_by_name(
    spoil: Callable[[Path], None],
    words: list[str],
    also_check: bool,
    cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(cohort)
    commands = [("augment", "run", TINY, f"data={cohort}", f"out={tmp_path / 'out'}", "labelled_subjects=null", *THICK)]
    commands += [("augment", "run", TINY, "--dry-run", *commands[0][3:])]
    commands += [("data", "check", cohort)] if also_check else []
    for command in commands:
        code, message = medgen(*command, monkeypatch=monkeypatch, capsys=capsys)
        lines = [line for line in message.splitlines() if line.strip()]
        assert code == 2
        assert len(lines) == 1, message
        assert all(word in lines[0] for word in words), message
        assert not (tmp_path / "out").exists()


def test_every_wrong_mask_is_named_at_once(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, spoil in ((0, "fractional"), (4, "undeclared"), (7, "empty")):
        path, mask = mask_of(cohort, number)
        data = {"fractional": mask.data / 7, "undeclared": mask.data + 1, "empty": mask.data * 0}[spoil]
        io.write(mask.with_data(data), path)
    command = ("augment", "run", TINY, f"data={cohort}", f"out={tmp_path / 'out'}", "labelled_subjects=null", *THICK)
    code, message = medgen(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    for name in ("case0.nii.gz", "case4.nii.gz", "case7.nii.gz"):
        assert name in message
    assert "case1.nii.gz" not in message


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(
    cohort: Path, out: Path, *settings: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["augment", "run", TINY, "-q", f"data={cohort}", f"out={out}", "labelled_subjects=null", *THICK]
    code, message = medgen(*command, "scans=2", *settings, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, message


def check_export(folder: Path, kept: tuple[int, ...], original: tuple[int, ...]) -> None:
    """Numbers, names and voxel size of a synthetic cohort."""
    synthetic = load_cohort(folder)
    assert tuple(synthetic.labels) == kept
    assert [synthetic.labels[label] for label in kept] == [f"part {label}" for label in original]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["original_labels"] == {str(a): b for a, b in zip(kept, original, strict=True)}
    found: set[int] = set()
    for case in synthetic:
        image = case.read_image()
        assert image.grid.spacing == pytest.approx((2, 2, 5))
        mask = case.read_mask(image)
        assert mask is not None
        found |= set(np.unique(mask.data).tolist())
    assert found == {0, *kept}


def test_some_labels_of_thick_slices_one_of_them_not_everywhere(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, mask = mask_of(cohort, 2)
    io.write(mask.with_data(np.where(mask.data == 30, 7, mask.data)), path)
    settings = ["labels=[2, 30]", "generators.joint=null", "value.enabled=false"]
    run(cohort, tmp_path / "out", *settings, monkeypatch=monkeypatch, capsys=capsys)
    check_export(tmp_path / "out" / "synthetic", (2, 30), (2, 30))


def test_large_label_numbers_and_partly_annotated_scans_end_to_end(
    tmp_path: Path,
    write_thick_slices: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort = write_thick_slices(tmp_path / "cohort", labels=(2, 7, 1035))
    lines = ["id,subject,image,mask,annotated"]
    for number in range(8):
        marked = "2;7" if number in (1, 5) else ""
        lines.append(f"case{number},s{number},imagesTr/case{number}_0000.nii.gz,labelsTr/case{number}.nii.gz,{marked}")
        if marked:
            # Lends its image only: its broken mask does not matter, since nothing reads it.
            path, mask = mask_of(cohort, number)
            io.write(mask.with_data(mask.data / 7), path)
    (cohort / "manifest.csv").write_text("\n".join(lines))
    labels = "cohort.labels={2: part 2, 7: part 7, 1035: part 1035}"
    out = tmp_path / "out"
    settings = [labels, "generators.joint=null", "value.seeds=1"]
    run(cohort, out, *settings, monkeypatch=monkeypatch, capsys=capsys)
    check_export(out / "synthetic", (1, 2, 3), (2, 7, 1035))
    part = {row["case"]: row["part"] for row in rows(out / "splits.csv")}
    assert {part["case1"], part["case5"]} == {"unlabelled"}
    values = rows(out / "value_cases.csv")
    assert {int(row["label"]) for row in values} == {1, 2, 3}
    # What users do with the run: their own label numbers in their own script, consecutive ones in nnU-Net.
    numbers = {int(value) for item in SyntheticDataset(out / "synthetic") for value in item["label"].unique()}
    assert numbers == {0, 2, 7, 1035}
    command = ["augment", "nnunet", out, "--out", tmp_path / "raw", "--id", 501, "--name", "Thick"]
    assert medgen(*command, monkeypatch=monkeypatch, capsys=capsys)[0] == 0
    dataset = load_cohort(tmp_path / "raw" / "Dataset501_Thick")
    assert dataset.labels == {1: "part 2", 2: "part 7", 3: "part 1035"}
    assert check(dataset.root).faults == []
    # The run's own manifest still describes the files as they are.
    assert tuple(load_cohort(out / "manifest.csv").labels) == (2, 7, 1035)
