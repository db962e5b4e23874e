"""A planted case is forgotten: no byte of its name or its voxels stays, and every run that knew it verifies."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import sqlite3
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.audit.forgetting import cohorts
from medgen.audit.forgetting import forget as forgetting
from medgen.audit.forgetting import names as naming
from medgen.audit.tombstone import FILE, hashed, read_tombstones
from medgen.audit.verify import verify_run
from medgen.errors import AuditError, ConfigError
from medgen.models.artifact import TrainedModel
from medgen.pipelines.anomaly import score as scoring
from medgen.pipelines.cli import app
from medgen.runs import journal, outputs, tracking
from medgen.system import files
from medgen.volume import Grid, Volume
from tests.builders.noise_detector import CUBE, save_noise_detector

CASE, OTHER = "canary-Zq7", "plain-b"
# Found in no noise: values that the scan has at a place of its own.
PATTERN = [7351.0, 7352.5, 7353.25, 7354.125]


def write_scan(path: Path, seed: int, planted: bool = False) -> Path:
    data = np.random.default_rng(seed).random((1, *CUBE)).astype(np.float32)
    if planted:
        # NIfTI has the first axis fastest: all along it, so that the values lie side by side on disk.
        data[0, 4:8, 5, 5] = PATTERN
    io.write(Volume(data, Grid(CUBE, np.eye(4))), path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that trained a detector, with the canary in it, and one that scored the canary and another scan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("forget")
        scans = root / "scans"
        scans.mkdir()
        paths = [write_scan(scans / f"{CASE}.nii.gz", 1, planted=True), write_scan(scans / f"{OTHER}.nii.gz", 2)]
        trained_run(root / "runs" / "trained", paths)
        model = root / "runs" / "trained" / "model"
        scored = root / "runs" / "scored"
        done = scoring.score(
            paths, model=model, out=scored, device="cpu", dicom=["sr"], export=["bids", "slicer", "itksnap"]
        )
        assert done.exit_code == 0
    return root


def trained_run(out: Path, scans: list[Path]) -> None:
    digests = {path.name.partition(".")[0]: files.sha256_file(path) for path in scans}
    with tracking.start("anomaly", out, config={"a": 1}, seed=3) as run:
        files.write_text(out / "config.yaml", "a: 1\n")
        save_noise_detector(out / "model")
        model = TrainedModel.load(out / "model")
        model.meta["inputs"] = {name: {"image": digest} for name, digest in digests.items()}
        model.meta["order"] = [CASE, OTHER]
        model.save(out / "model")
        rows = [{"id": name, "image": f"{name}.nii.gz", "sha256_image": own} for name, own in digests.items()]
        files.write_csv(out / "manifest.csv", rows, ["id", "image", "sha256_image"])
        files.write_csv(out / "splits.csv", [{"case": name, "part": "train"} for name in digests], ["case", "part"])
        mixed = [{"fold": "1", "cases": f"{CASE};{OTHER}"}, {"fold": "2", "cases": OTHER}]
        files.write_csv(out / "folds.csv", mixed, ["fold", "cases"])
        files.write_json(out / "metrics.json", {"auc": 0.5, "cases": {CASE: 1, OTHER: 2}, "note": f"worst: {CASE}"})
        files.write_text(out / "report.html", f"<p>{CASE}</p>")
        files.write_bytes(out / "figures" / "all.png", b"\x89PNG of everybody")
        files.write_text(out / "heatmaps" / f"{CASE}-implant1-blur.nii.gz", "heat")
        files.write_text(out / "heatmaps" / f"{CASE}0.nii.gz", "another patient's")
        run.log_params({"worst": CASE})
        run.log_metrics({"auc": 0.5})
        for name in ("metrics.json", "folds.csv", "report.html"):
            run.log_file(out / name)
        run.log_file(out / "model")
    outputs.write_outputs_record(out)


def unpacked(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """A content, and what is within it: gzip, zlib streams, zip, and what pages hold as base64."""
    yield content
    if depth > 3:
        return
    inner: list[bytes] = []
    if content[:2] == b"\x1f\x8b" or content[:1] == b"\x78":
        with suppress(zlib.error):
            # gzip or zlib, also where what was taken for base64 ended too late or too early.
            inner.append(zlib.decompressobj(47).decompress(content))
    if content[:2] == b"PK":
        with zipfile.ZipFile(BytesIO(content)) as archive:
            inner += [archive.read(name) for name in archive.namelist()]
    for text in re.findall(rb"[A-Za-z0-9+/]{64,}={0,2}", content):
        plain = text.rstrip(b"=")
        plain = plain[:-1] if len(plain) % 4 == 1 else plain
        inner.append(base64.b64decode(plain + b"=" * (-len(plain) % 4)))
    for own in inner:
        yield from unpacked(own, depth + 1)


def holding(root: Path) -> dict[str, set[str]]:
    """What of the canary is in which file below a folder."""
    voxels = struct.pack("<4f", *PATTERN)
    found: dict[str, set[str]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, traces = path.relative_to(root).as_posix(), set()
        # One with a digit more is another patient.
        told = re.compile(rb"(sub-)?canary-?Zq7(?!0)")
        if told.search(name.encode()):
            traces.add("path")
        for content in unpacked(path.read_bytes()):
            if told.search(content):
                traces.add("name")
            if voxels in content:
                traces.add("voxels")
        if traces:
            found[name] = traces
    return found


@pytest.fixture
def runs(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the finished runs, and of the store beside them."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def test_no_byte_of_a_planted_case_stays_and_every_run_verifies(runs):
    before = holding(runs)
    assert {trace for traces in before.values() for trace in traces} == {"path", "name", "voxels"}
    assert {name.partition("/")[0] for name in before} == {"trained", "scored", "mlflow.db", "mlartifacts"}
    everything = {path for path in runs.rglob("*") if OTHER in path.name}
    assert everything
    done = forgetting.forget(CASE, [runs])
    assert {own.out.name for own in done} == {"trained", "scored"}
    assert holding(runs) == {}
    # Nothing of anybody else is gone.
    assert {path for path in runs.rglob("*") if OTHER in path.name} == everything
    assert (runs / "trained" / "heatmaps" / f"{CASE}0.nii.gz").read_text() == "another patient's"
    for run in ("trained", "scored"):
        found = verify_run(runs / run)
        assert found.problems == ()
        assert found.journal is not None
        assert found.journal.faults == ()
        assert found.apart_from.startswith(", except for 1 case(s) forgotten, the last on 20")
    assert found.journal.chained


def test_tables_and_records_lose_the_case_alone(runs):
    forgetting.forget(CASE, [runs])
    out = runs / "trained"
    with (out / "folds.csv").open(newline="") as file:
        assert [row["cases"] for row in csv.DictReader(file)] == [OTHER, OTHER]
    assert (out / "splits.csv").read_text() == f"case,part\n{OTHER},train\n"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["cases"] == {OTHER: 2}
    assert metrics["auc"] == 0.5
    assert "was removed" in (out / "report.html").read_text()
    record = files.read_json(out / outputs.RECORD)
    assert set(record["inputs"]) == {OTHER}
    assert not [name for name in record["files"] if not (out / name).is_file()]
    with (runs / "scored" / "scans.csv").open(newline="") as file:
        assert [row.get("case") or row.get("scan") for row in csv.DictReader(file)] == [OTHER]


def test_the_model_can_still_be_used_and_says_what_cannot_be_undone(runs):
    before = TrainedModel.load(runs / "trained" / "model")
    (own,) = [one for one in forgetting.forget(CASE, [runs]) if one.out.name == "trained"]
    assert f"weights that learnt from it: model, SHA-256 {before.sha256}" in own.remains
    after = TrainedModel.load(runs / "trained" / "model")
    (told,) = read_tombstones(runs / "trained")
    assert told["models"] == {"model": [before.sha256, after.sha256]}
    assert after.meta["order"] == [told["alias"], OTHER]
    for name, value in before.models[0].state_dict().items():
        assert bool((after.models[0].state_dict()[name] == value).all())


def test_the_tombstone_says_who_was_meant_to_whoever_knows_the_name(runs):
    digest = files.sha256_file(runs / "scored" / "heatmaps" / f"{CASE}.nii.gz")
    forgetting.forget(CASE, [runs])
    (told,) = read_tombstones(runs / "scored")
    assert hashed(told["salt"], CASE) in told["cases"]
    assert hashed(told["salt"], OTHER) not in told["cases"]
    assert digest in told["removed"]
    assert forgetting.forgotten_already(CASE, [runs])
    content = files.read_json(runs / "scored" / FILE)
    content["forgotten"][0]["when"] = "2020-01-01T00:00:00Z"
    files.write_json(runs / "scored" / FILE, content)
    with pytest.raises(AuditError, match="is not as medgen audit forget wrote it"):
        verify_run(runs / "scored")


def test_a_second_time_changes_nothing_and_an_unknown_case_is_refused(runs):
    forgetting.forget(CASE, [runs])
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert forgetting.forget(CASE, [runs]) == []
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    with pytest.raises(AuditError, match="no run calls a scan so"):
        forgetting.forget("nobody-known", [runs])


@pytest.mark.parametrize("step", ["forget_in_database", "forget_in_journal", "add_tombstone", "_write_record"])
def test_one_that_was_interrupted_can_be_run_again(runs, monkeypatch, step):
    """In the first run: the second is known by nothing but its name there, or the first's hash."""

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, step, die)
        with pytest.raises(KeyboardInterrupt):
            forgetting.forget(CASE, [runs])
    forgetting.forget(CASE, [runs])
    assert holding(runs) == {}
    assert [verify_run(runs / run).problems for run in ("trained", "scored")] == [(), ()]
    assert forgetting.left_off([runs]) == []
    (told,) = read_tombstones(runs / "trained")[-1:]
    assert told["models"]["model"][1] == TrainedModel.load(runs / "trained" / "model").sha256
    assert told["models"]["model"][0] != told["models"]["model"][1]


def test_a_run_that_is_in_use_is_not_touched(runs):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    with journal.locked(runs / "scored" / journal.LOCK), pytest.raises(AuditError, match="writing or sending"):
        forgetting.forget(CASE, [runs])
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after.get(path)} == set()


def test_what_was_sent_is_not_sent_again_and_numbers_of_the_store_stay(runs, finished):
    def numbers(root: Path) -> list[tuple]:
        with sqlite3.connect(root / "mlflow.db") as database:
            found = database.execute("select run_uuid, key, value, step from metrics order by 1, 2, 4").fetchall()
        database.close()
        return found

    assert numbers(finished / "runs")
    forgetting.forget(CASE, [runs])
    assert numbers(runs) == numbers(finished / "runs")
    cursor = files.read_json(runs / "trained" / journal.CURSOR)
    assert cursor["offset"] == (runs / "trained" / journal.NAME).stat().st_size


def test_a_run_that_has_not_ended_is_named(runs):
    files.write_text(runs / "open" / "config.yaml", "a: 1\n")
    files.write_csv(runs / "open" / "manifest.csv", [{"id": CASE}], ["id"])
    assert forgetting.unfinished(CASE, [runs]) == [runs / "open"]
    assert forgetting.unfinished(OTHER, [runs]) == []


def test_the_command_says_what_goes_and_what_is_left(runs, monkeypatch, capsys):
    def told(*words: str) -> tuple[int, dict]:
        monkeypatch.setattr(sys, "argv", ["medgen", "audit", "forget", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    code, answer = told(CASE, str(runs), "--dry-run")
    assert code == 0
    assert {Path(run["run"]).name for run in answer["runs"]} == {"trained", "scored"}
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    # The same patient, whose scan another run has read from another file under another name.
    files.write_text(runs / "third" / "notes.md", f"as in {CASE}")
    outputs.write_outputs_record(runs / "third")
    code, answer = told(CASE, str(runs))
    assert code == 1
    assert "notes.md: names the case" in json.dumps(answer)
    assert set(holding(runs)) == {"third/notes.md"}
    code, answer = told("nobody-known", str(runs))
    assert code == 2


def test_a_synthetic_scan_in_another_shape_goes_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "runs" / "augment"
    with tracking.start("augment", out, config={}, seed=1):
        for number, parent in enumerate((CASE, OTHER, CASE), 1):
            name = f"syn-{number:04d}"
            own = [f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"]
            for item in own:
                files.write_text(out / "synthetic" / item, f"{item} {number}")
            record = {"id": name, "generator_sha256": "ab" * 32, "parents": [{"case": parent}], "files": own}
            files.write_json(out / "synthetic" / "provenance" / f"{name}.json", files.sealed(record))
        files.write_json(out / "synthetic" / "dataset.json", {"numTraining": 3})
        rows = [{"id": own, "sha256_image": digest * 64} for own, digest in ((CASE, "c"), (OTHER, "d"))]
        files.write_csv(out / "manifest.csv", rows, ["id", "sha256_image"])
        files.write_csv(out / "fidelity.csv", [{"id": f"syn-000{n}", "fid": n} for n in (1, 2, 3)], ["id", "fid"])
    outputs.write_outputs_record(out)
    forgetting.forget(CASE, [tmp_path / "runs"])
    assert holding(tmp_path / "runs") == {}
    left = {path.relative_to(out / "synthetic").as_posix() for path in (out / "synthetic").rglob("*.*")}
    kept = {"imagesTr/syn-0002_0000.nii.gz", "labelsTr/syn-0002.nii.gz", "provenance/syn-0002.json"}
    assert left == {*kept, "dataset.json"}
    assert files.read_json(out / "synthetic" / "dataset.json")["numTraining"] == 1
    assert (out / "fidelity.csv").read_text() == "id,fid\nsyn-0002,2\n"
    assert verify_run(out).problems == ()


def test_a_prepared_cohort_forgets_and_an_imported_one_is_named(runs):
    for name in (CASE, OTHER):
        files.write_text(runs / "prepared" / "scans" / f"{name}.nii.gz", name)
        files.write_text(runs / "prepared" / "mosaics" / f"{name}.png", name)
        files.write_text(runs / "cohort" / "images" / f"{name}.nii.gz", name)
    rows = [{"id": name, "image": f"images/{name}.nii.gz"} for name in (CASE, OTHER)]
    files.write_csv(runs / "prepared" / "prepared.csv", rows, ["id", "image"])
    files.write_text(runs / "prepared" / "recipe.yaml", "shape: [8, 8, 8]\n")
    files.write_csv(runs / "cohort" / "manifest.csv", rows, ["id", "image"])
    assert cohorts.cohorts_with(naming.Names([CASE], ""), [runs]) == [runs / "cohort"]
    (own,) = [one for one in forgetting.forget(CASE, [runs]) if one.out.name == "prepared"]
    assert own.said == [
        f"{runs / 'prepared'}: 2 file(s) removed, 1 edited, 0 line(s) of the journal and 0 row(s) of the MLflow store"
    ]
    assert {name.partition("/")[0] for name in holding(runs)} == {"cohort"}
    assert len(list((runs / "prepared").rglob(f"{OTHER}.*"))) == 2
    assert (runs / "prepared" / "prepared.csv").read_text() == f"id,image\n{OTHER},images/{OTHER}.nii.gz\n"


@pytest.mark.parametrize("name", ["a", "--", "ab"])
def test_a_name_that_could_be_any_text_is_refused(name):
    with pytest.raises(ConfigError, match="too short"):
        naming.Names([name], "x")


def test_the_name_that_a_file_was_given_by_goes_with_the_id_that_was_made_of_it(tmp_path):
    """Blanks and umlauts are in no id, but in the configuration of a scoring."""
    run = tmp_path / "runs" / "scored"
    files.write_text(run / "config.yaml", "scans:\n- in/Anna Müller.nii.gz\n- in/other.nii.gz\n")
    files.write_text(run / "heatmaps" / "Anna-Muller.nii.gz", "heat")
    outputs.write_inputs(run, {"Anna-Muller": {"image": "ab" * 32}, "other": {"image": "cd" * 32}})
    outputs.write_outputs_record(run)
    forgetting.forget("Anna-Muller", [tmp_path / "runs"])
    assert "Anna" not in (run / "config.yaml").read_text()
    assert "other" in (run / "config.yaml").read_text()
    assert verify_run(run).problems == ()


def test_a_run_that_was_altered_is_not_sealed_anew(tmp_path):
    run = tmp_path / "runs" / "scored"
    files.write_text(run / "scans.csv", "case,p\ncase-one,0.1\n")
    files.write_text(run / "metrics.json", "{}")
    outputs.write_inputs(run, {"case-one": {"image": "ab" * 32}})
    outputs.write_outputs_record(run)
    files.write_text(run / "metrics.json", '{"auroc": 1}')
    with pytest.raises(AuditError, match=r"so that nothing is forgotten: metrics\.json: altered"):
        forgetting.forget("case-one", [tmp_path / "runs"])
    assert "case-one" in (run / "scans.csv").read_text()
