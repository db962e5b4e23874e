"""Planted patient data: nothing of it may leave the source, and what is printed is harmless where it is read."""

from __future__ import annotations

import base64
import csv
import gzip
import stat
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medgen import io
from medgen.data.faces import NOTE, may_show_face
from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.data.pseudonyms import plain_attributes
from medgen.data.simulation import simulate
from medgen.errors import DataError
from medgen.pipelines import import_cohort as importing
from medgen.pipelines import patient_names
from medgen.report.cohort import limits
from medgen.system import files
from medgen.volume import Grid, Volume

TINY = Path(__file__).parents[2] / "configs" / "tiny"
CANARIES = (
    "Mueller-Kanari",
    "PID-Kanari-4711",
    "19510203",
    "ACC-Kanari-9",
    "Klinik-Kanari",
    "Dr-Kanari-Arzt",
    "Kommentar-Kanari",
    "Privat-Kanari",
    "Descrip-Kanari",
    "Aux-Kanari",
    "Db-Kanari",
    "Intent-Kanari",
    "Extension-Kanari",
    "Station-Kanari",
    "Spalte-Kanari",
)


def bytes_of(path: Path) -> bytes:
    content = path.read_bytes()
    return content + (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b"")


def in_base64(word: bytes, before: int) -> bytes:
    """The characters that a word alone decides where ``before`` other bytes of its group of three come first.

    A character more would miss it; a few fewer, and the pictures of a report would hold a short word by chance.
    """
    text = base64.b64encode(b"\0" * before + word + b"\0\0")
    return text[-(-before * 8 // 6) : (before + len(word)) * 8 // 6]


def hits(folder: Path, words) -> list[tuple[str, str]]:
    """Every place below a folder where a word is, in its names or its bytes, in UTF-8, UTF-16 or base64."""
    found = []
    for path in folder.rglob("*"):
        content = str(path.relative_to(folder)).encode() + (bytes_of(path) if path.is_file() else b"")
        for word in words:
            forms = [word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be")]
            forms += [in_base64(word.encode(), pad) for pad in range(3)]
            found += [(str(path), word) for form in forms if form in content]
    return found


def dicom_of(volume: Volume, folder: Path, number: int, make_image) -> None:
    data = volume.data[0]
    scaled = ((data - data.min()) / (data.max() - data.min()) * 4000).astype(np.uint16)
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.grid.affine
    row, column, step = (affine[:3, axis] for axis in range(3))
    for index in range(scaled.shape[2]):
        item = make_image(np.ascontiguousarray(scaled[:, :, index].T))
        item.SeriesInstanceUID = f"1.2.3.{number}"
        item.ImageOrientationPatient = [*(row / np.linalg.norm(row)), *(column / np.linalg.norm(column))]
        item.PixelSpacing = [np.linalg.norm(column), np.linalg.norm(row)]
        item.ImagePositionPatient = list(affine[:3, 3] + index * step)
        item.PatientName, item.PatientID = f"Mueller-Kanari^{number}", f"PID-Kanari-4711-{number}"
        item.PatientBirthDate, item.AccessionNumber = "19510203", "ACC-Kanari-9"
        item.InstitutionName, item.ReferringPhysicianName = "Klinik-Kanari", "Dr-Kanari-Arzt"
        item.PatientComments, item.StationName = "Kommentar-Kanari", "Station-Kanari"
        item.private_block(0x0019, "Privat-Kanari", create=True).add_new(1, "LO", "Privat-Kanari")
        folder.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(folder / f"Mueller-Kanari_{index:03d}.dcm", item, enforce_file_format=True)


def nifti_of(volume: Volume, path: Path, dtype) -> None:
    image = nib.Nifti1Image(volume.data[0].astype(dtype), volume.grid.affine)
    image.header.set_sform(volume.grid.affine, 1)
    image.header["descrip"], image.header["aux_file"] = b"Descrip-Kanari", b"Aux-Kanari"
    image.header["db_name"], image.header["intent_name"] = b"Db-Kanari", b"Intent-Kanari"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Extension-Kanari"))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """One simulated cohort as a DICOM tree and as NIfTI files with a table, both full of patient data."""
    from tests.builders.dicom_folders import image

    base = tmp_path_factory.mktemp("Klinik-Kanari")
    simulate(base / "plain", n=8, seed=0, spacing=8.0)
    rows = []
    for number, case in enumerate(load_cohort(base / "plain")):
        volume, mask = case.read_image(), case.read_mask()
        dicom_of(volume, base / "dicom" / f"Mueller-Kanari_{number}_19510203" / "t1", number, image)
        name = f"Mueller-Kanari_{number}_19510203"
        nifti_of(volume, base / "nifti" / "images" / f"{name}.nii.gz", np.float32)
        nifti_of(mask, base / "nifti" / "masks" / f"{name}.nii.gz", np.uint8)
        rows.append(f"{name},Mueller-Kanari-{number},{60 + number},Spalte-Kanari")
    (base / "nifti" / "subjects.csv").write_text("case,subject,age,comment\n" + "\n".join(rows) + "\n")
    return {"dicom": base / "dicom", "nifti": base / "nifti"}


@pytest.fixture(scope="module")
def imported(sources, tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("out")
    for name, source in sources.items():
        # Ids, and with them the parts of a run, would be others every time.
        files.write_json(importing.key_file(base / name), {"format": "medgen-pseudonyms", "key": "5" * 64, "table": {}})
        importing.run(source, base / name, CohortConfig(), workers=1)
    return {name: base / name for name in sources}


def test_the_search_finds_what_is_planted(tmp_path):
    word = "Mueller-Kanari"
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" + word.encode()))
    (tmp_path / "b").write_bytes(word.encode("utf-16"))
    for pad in range(3):
        (tmp_path / f"c{pad}").write_bytes(base64.b64encode(b"z" * pad + word.encode() + b"more"))
    (tmp_path / word).touch()
    assert {Path(path).name for path, _ in hits(tmp_path, [word])} == {"a.gz", "b", "c0", "c1", "c2", word}


@pytest.mark.parametrize("name", ["dicom", "nifti"])
def test_an_imported_cohort_holds_nothing_of_the_patients(name, sources, imported):
    out = imported[name]
    assert hits(out, CANARIES) == []
    assert hits(out, [str(sources[name]), str(out.parent), str(Path.home()) + "/"]) == []
    assert check(out).ok
    key = importing.key_file(out)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "Mueller-Kanari" in key.read_text()
    assert hits(out, [files.read_json(key)["key"]]) == []


def test_values_ages_and_subjects_survive(sources, imported):
    manifest = load_cohort(imported["nifti"])
    table = files.read_json(importing.key_file(imported["nifti"]))["table"]
    for case in load_cohort(sources["nifti"]):
        mine = manifest.subset([table[f"case: {case.id}"]]).cases[0]
        np.testing.assert_array_equal(mine.read_image().data, case.read_image().data)
        assert mine.attributes == {"age": case.attributes["age"]}
    assert len(manifest.subjects) == 8


def test_what_medgen_reads_itself_survives_and_free_text_does_not():
    kept = {"annotated": "1;2", "slices": "30", "Sex": "F", "age": "89"}
    assert plain_attributes({**kept, "name": "Muster", "site": "Klinik"}) == kept
    assert plain_attributes({"annotated": "1;Muster", "slices": "about thirty of them", "age": "90"}) == {}


def test_the_same_key_gives_the_same_ids_and_another_one_others(sources, imported, tmp_path):
    importing.run(
        sources["dicom"], tmp_path / "again", CohortConfig(), workers=1, key=importing.key_file(imported["dicom"])
    )
    importing.run(sources["dicom"], tmp_path / "other", CohortConfig(), workers=1, key=tmp_path / "key.json")
    ids = [{case.id for case in load_cohort(path)} for path in (imported["dicom"], tmp_path / "again")]
    assert ids[0] == ids[1]
    assert not ids[0] & {case.id for case in load_cohort(tmp_path / "other")}
    with pytest.raises(DataError, match="must not lie in the new folder"):
        importing.run(sources["dicom"], tmp_path / "x", CohortConfig(), workers=1, key=tmp_path / "x" / "key.json")
    with pytest.raises(DataError, match="give another place with --key"):
        importing.run(sources["dicom"], tmp_path / "x", CohortConfig(), workers=1, key=tmp_path / "absent" / "k.json")
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(DataError, match="not a key file"):
        importing.run(sources["dicom"], tmp_path / "x", CohortConfig(), workers=1, key=tmp_path / "wrong.json")


def test_ids_are_kept_on_request_only(sources, tmp_path):
    importing.run(sources["nifti"], tmp_path / "kept", CohortConfig(), workers=1, keep_ids=True)
    assert "Mueller-Kanari" in load_cohort(tmp_path / "kept").cases[0].id


def test_a_case_that_fails_is_named_on_the_terminal_and_not_in_the_output(sources, tmp_path):
    import shutil

    source = tmp_path / "Mueller-Kanari"
    shutil.copytree(sources["dicom"], source)
    broken = sorted((source / "Mueller-Kanari_0_19510203" / "t1").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-30])
    summary = importing.run(source, tmp_path / "out", CohortConfig(), workers=1)
    assert summary.exit_code == 1
    assert any(broken.name in line for line in summary.lines)
    (row,) = csv.DictReader((tmp_path / "out" / "failures.csv").read_text().splitlines())
    assert "truncated" in row["reason"]
    assert hits(tmp_path / "out", CANARIES) == []


def test_a_training_on_an_imported_cohort_holds_nothing_of_the_patients(
    imported, sources, tmp_path, capfd, monkeypatch
):
    from medgen.config import load_config
    from medgen.pipelines.train import TrainRunConfig, run

    # Where a command is started may name the patient too.
    monkeypatch.chdir(sources["dicom"] / "Mueller-Kanari_0_19510203")
    out = tmp_path / "run"
    config = load_config(TrainRunConfig, TINY / "train_vae.yaml", [f"data={imported['dicom']}", f"out={out}"])
    assert run(config, progress=False).exit_code == 0
    assert hits(tmp_path, [*CANARIES, str(imported["dicom"]), str(Path.home()) + "/"]) == []
    assert hits(out, [str(out)]) == []
    printed = "".join(capfd.readouterr())
    assert not [word for word in CANARIES if word in printed]


@pytest.fixture(scope="module")
def anomaly(imported, tmp_path_factory) -> Path:
    """An anomaly run on the imported cohort, as small as it gets."""
    from medgen.config import load_config
    from medgen.pipelines.anomaly.config import AnomalyRunConfig
    from medgen.pipelines.anomaly.run import run

    out = tmp_path_factory.mktemp("anomaly") / "run"
    settings = [f"data={imported['dicom']}", f"out={out}", "training.steps=2", "evaluation.per_scan=1"]
    settings += ["evaluation.bootstrap=100", "anomaly.validation.enabled=false", "detectability.enabled=false"]
    settings += ["anomaly.scores=[residual]"]
    config = load_config(AnomalyRunConfig, TINY / "anomaly.yaml", settings)
    assert run(config).exit_code in (0, 1)
    return out


@pytest.fixture(scope="module")
def neutral(sources, tmp_path_factory) -> dict[str, Path]:
    """The same scans, headers and table as they were, under file and folder names that say nothing."""
    import shutil

    base = tmp_path_factory.mktemp("neutral")
    for number, folder in enumerate(sorted(sources["dicom"].iterdir())):
        for place, file in enumerate(sorted((folder / "t1").iterdir())):
            target = base / "dicom" / f"p{number}" / f"IM{place:03d}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    rows = ["case,subject,age,comment"]
    for number, image in enumerate(sorted((sources["nifti"] / "images").iterdir())):
        for kind in ("images", "masks"):
            (base / "nifti" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(sources["nifti"] / kind / image.name, base / "nifti" / kind / f"p{number}.nii.gz")
        rows.append(f"p{number},s{number},61,Spalte-Kanari")
    (base / "nifti" / "subjects.csv").write_text("\n".join(rows) + "\n")
    return {name: base / name for name in ("dicom", "nifti")}


@pytest.mark.parametrize("name", ["dicom", "nifti"])
def test_a_run_on_the_source_itself_holds_nothing_of_its_headers(name, neutral, anomaly, tmp_path, capfd):
    from medgen.config import load_config
    from medgen.pipelines.anomaly.score import score
    from medgen.pipelines.train import TrainRunConfig, run

    config = load_config(TrainRunConfig, TINY / "train_vae.yaml", [f"data={neutral[name]}", f"out={tmp_path / 'run'}"])
    summary = run(config)
    scans = [next((neutral[name] / "images").iterdir()) if name == "nifti" else neutral[name] / "p0"]
    scored = score(scans, model=anomaly / "model", out=tmp_path / "scored", ungated=True)
    printed = "".join([*capfd.readouterr(), *summary.lines, *scored.lines])
    assert hits(tmp_path, CANARIES) == []
    assert not [word for word in CANARIES if word in printed]


def test_anomaly_run_and_score_on_an_imported_cohort_hold_nothing_of_the_patients(
    anomaly, imported, sources, tmp_path, capfd, monkeypatch
):
    from medgen.pipelines.anomaly.score import score

    monkeypatch.chdir(sources["dicom"] / "Mueller-Kanari_0_19510203")
    scans = sorted((imported["dicom"] / "images").iterdir())[:1]
    summary = score(scans, model=anomaly / "model", out=tmp_path / "scored", ungated=True)
    assert len(list((tmp_path / "scored" / "heatmaps").iterdir())) == 1
    for folder in (anomaly.parent, tmp_path):
        assert hits(folder, [*CANARIES, str(imported["dicom"]), str(Path.home()) + "/"]) == []
    printed = "".join([*capfd.readouterr(), *summary.lines])
    assert not [word for word in CANARIES if word in printed]
    assert patient_names.NOTE not in printed


def test_an_augment_run_on_an_imported_cohort_holds_nothing_of_the_patients(imported, tmp_path, capfd):
    from medgen.config import load_config
    from medgen.pipelines.augment.config import AugmentRunConfig
    from medgen.pipelines.augment.run import run

    settings = [
        f"data={imported['nifti']}",
        f"out={tmp_path / 'run'}",
        "generators.joint=null",
        "scans=2",
        "attempts=20",
    ]
    settings += ["consensus.members=0", "fidelity.enabled=false", "value.enabled=false"]
    config = load_config(AugmentRunConfig, TINY / "augment.yaml", settings)
    summary = run(config)
    assert summary.exit_code == 0, (tmp_path / "run" / "rejections.csv").read_text()
    assert (tmp_path / "run" / "synthetic" / "provenance" / "learnt_from.json").is_file()
    assert hits(tmp_path, [*CANARIES, str(imported["nifti"]), str(Path.home()) + "/"]) == []
    printed = "".join([*capfd.readouterr(), *summary.lines])
    assert not [word for word in CANARIES if word in printed]


def test_a_scoring_of_a_dicom_series_says_that_its_name_is_in_the_output(anomaly, sources, tmp_path, capfd):
    from medgen.anomaly.artifact import from_artifact
    from medgen.errors import ArtifactError
    from medgen.models.artifact import TrainedModel
    from medgen.pipelines.anomaly.score import score
    from medgen.report.anomaly.scored.scoring import index_sections
    from medgen.report.anomaly.words import LIMITS
    from medgen.report.html import Report

    # Without a model it ends early, and has said it before.
    for scan, times in ((next(sources["dicom"].glob("*/t1")), 1), (next(sources["nifti"].glob("images/*")), 0)):
        with pytest.raises(ArtifactError):
            score([scan], model=tmp_path / "absent", out=tmp_path / "scored")
        assert capfd.readouterr().err.count(patient_names.NOTE) == times
    detector = from_artifact(TrainedModel.load(anomaly / "model", "cpu"))
    for series in (True, False):
        report = Report("Anomaly scores")
        index_sections(report, detector, [], [], "0" * 64)
        report.section("Limits", limits(LIMITS, series))
        report.write(tmp_path / "report.html")
        told = "File and folder names of the DICOM series" in (tmp_path / "report.html").read_text()
        assert told == series


def test_runs_on_dicom_folders_say_once_that_names_become_ids(sources, tmp_path, capfd, monkeypatch):
    from medgen.config import load_config
    from medgen.errors import MedgenError
    from medgen.pipelines import train
    from medgen.pipelines.anomaly import run as anomaly
    from medgen.pipelines.anomaly.config import AnomalyRunConfig
    from medgen.pipelines.augment import run as augment
    from medgen.pipelines.augment import value as augment_value
    from medgen.pipelines.augment.config import AugmentRunConfig
    from medgen.pipelines.augment.value_config import ValueRunConfig

    def full(*_, **__):
        raise MedgenError("the disk is full")

    # A run ends at its first write at the latest, and has said it before.
    for module in (train, anomaly, augment, augment_value):
        monkeypatch.setattr(module, "start_run", full)
    pipelines = {
        "train_vae": (train.TrainRunConfig, train.run),
        "anomaly": (AnomalyRunConfig, anomaly.run),
        "augment": (AugmentRunConfig, augment.run),
        "value": (ValueRunConfig, augment_value.run),
    }
    for layout, times in (("dicom", 1), ("nifti", 0)):
        for name, (kind, run) in pipelines.items():
            settings = [f"data={sources[layout]}", f"out={tmp_path / 'run'}"]
            with pytest.raises(MedgenError):
                run(load_config(kind, TINY / f"{name}.yaml", settings))
            assert capfd.readouterr().err.splitlines().count(f"warning: {patient_names.NOTE}") == times, name
    assert limits("- a\n", False) == "- a\n"
    assert limits("- a\n", True).splitlines()[0] == "- a"
    assert "pseudonyms" in limits("- a\n", True).splitlines()[1]


def test_a_head_among_the_parents_is_known_to_the_sources(tmp_path):
    from medgen.preprocessing.dataset import prepare_dataset
    from medgen.preprocessing.recipe import Preprocess
    from medgen.synthesis.cohort.prepared import PreparedCohort
    from medgen.synthesis.cohort.split import CohortSplit

    shape, spacing = (24, 26, 28), 10.0
    grid = Grid(shape, np.diag([spacing, spacing, spacing, 1.0]))
    points = (np.indices(shape).reshape(3, -1).T - (np.array(shape) - 1) / 2) * spacing
    # 3.7 litres of tissue in air, and 1.3 litres: a head and a skull-stripped brain.
    for name, radii in (("head", (80, 100, 110)), ("brain", (65, 80, 60))):
        inside = (np.linalg.norm(points / np.array(radii), axis=1) < 1).reshape(shape)
        noise = np.random.default_rng(0).normal(0, 1, shape)
        image = np.where(inside, 100 + 5 * noise, np.abs(noise)).astype(np.float32)
        io.write(Volume(image[None], grid), tmp_path / "images" / f"{name}.nii.gz")
        io.write(Volume(inside[None].astype(np.uint8), grid), tmp_path / "masks" / f"{name}.nii.gz")
    manifest = load_cohort(tmp_path)
    # A grid that is far smaller than a head: what is seen there says nothing.
    recipe = Preprocess(shape=(8, 8, 8), spacing=(8.0, 8.0, 8.0))
    data, failures = prepare_dataset(manifest, recipe, workers=1)
    assert not failures
    for cases, faces in ((["brain", "head"], {"head"}), (["brain"], set())):
        prepared = PreparedCohort(recipe, None, {"labelled": data}, (1,), manifest, ())
        nobody = manifest.subset([])
        parts = CohortSplit(manifest.subset(cases), nobody, nobody, nobody)
        assert prepared.sources(parts).faces == faces


def test_whole_heads_are_noticed_and_brains_are_not(shared_data):
    heads = [shared_data / "lesions" / "ch2.nii.gz", shared_data / "dicom" / "t1_sagittal_384"]
    assert all(may_show_face(io.read(path)) for path in heads)
    brains = sorted((shared_data / "oasis").glob("*_T1w.nii.gz"))[:4]
    assert not any(may_show_face(io.read(path)) for path in brains)
    assert NOTE in " ".join(check(heads[0]).notes)


def test_text_in_tables_is_no_formula_and_numbers_stay_numbers(tmp_path):
    rows = [{"a": "=HYPERLINK(1)", "b": "-1.5"}, {"a": "@x", "b": "+cmd"}, {"a": "plain", "b": -2.5}]
    files.write_csv(tmp_path / "t.csv", rows, ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == "a,b\n'=HYPERLINK(1),-1.5\n'@x,'+cmd\nplain,-2.5\n"


def test_escape_sequences_in_names_are_shown(tmp_path, capfd, monkeypatch):
    from medgen.pipelines.cli.app import main

    name = tmp_path / "a\x1b[31m\nb.nii"
    io.write(Volume(np.ones((1, 4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4))), name)
    monkeypatch.setattr(sys, "argv", ["medgen", "data", "check", str(name)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capfd.readouterr()
    assert ended.value.code == 2
    assert "\x1b" not in captured.err
    assert len(captured.err.splitlines()) == 1
