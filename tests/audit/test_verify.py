"""Records of outputs: everything listed, every kind of change found, every file traced."""

from __future__ import annotations

import json

import pytest

from medgen.audit import verify as audit
from medgen.audit.lineage.trace import trace
from medgen.audit.record import find_record
from medgen.data import cases
from medgen.errors import AuditError, DataError
from medgen.runs import outputs, tracking
from medgen.system import files


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    folder = tmp_path / "runs" / "a"
    with tracking.start("anomaly", folder, config={"a": 1}, seed=7, manifest_digest="cd" * 32):
        files.write_text(folder / "config.yaml", "a: 1\n")
        files.write_text(folder / "heatmaps" / "x.nii.gz", "heat")
        files.write_text(folder / "model" / "weights-0.safetensors", "weights")
    outputs.write_outputs_record(folder)
    return folder


def test_an_untouched_run_has_no_problems(out):
    assert audit.verify(out) == []
    assert audit.verify(out / "heatmaps") == []
    assert audit.verify(out / "config.yaml") == []
    listed = files.read_json(out / outputs.RECORD)["files"]
    assert set(listed) == {"config.yaml", "heatmaps/x.nii.gz", "model/weights-0.safetensors"}


def test_every_change_is_found(out):
    (out / "config.yaml").unlink()
    (out / "heatmaps" / "x.nii.gz").write_text("Heat")
    (out / "heatmaps" / "y.nii.gz").write_text("new")
    found = {(problem.file, problem.kind) for problem in audit.verify(out)}
    assert found == {("config.yaml", "missing"), ("heatmaps/x.nii.gz", "altered"), ("heatmaps/y.nii.gz", "unlisted")}
    assert [problem.kind for problem in audit.verify(out / "heatmaps")] == ["altered", "unlisted"]
    assert "the run wrote" in str(audit.verify(out / "heatmaps" / "x.nii.gz")[0])
    assert trace(out / "heatmaps" / "x.nii.gz").of_kind("output")[0].facts["state"] == "altered"
    assert trace(out / "heatmaps" / "y.nii.gz").of_kind("output")[0].facts["state"] == "unlisted"


def test_a_link_is_no_file_of_the_run(out):
    path = out / "config.yaml"
    path.symlink_to(path.rename(out.parent / "elsewhere.yaml"))
    assert [(problem.file, problem.kind) for problem in audit.verify(out)] == [("config.yaml", "altered")]


def test_altered_and_absent_records_are_refused(out, tmp_path):
    with pytest.raises(AuditError, match=r"no outputs\.json"):
        audit.verify(tmp_path)
    with pytest.raises(AuditError, match="not among"):
        audit.verify(out / "absent")
    record = json.loads((out / outputs.RECORD).read_text())
    record["files"]["config.yaml"] = "0" * 64
    (out / outputs.RECORD).write_text(json.dumps(record))
    with pytest.raises(AuditError, match="record itself was altered"):
        audit.verify(out)
    (out / outputs.RECORD).write_text("[]")
    with pytest.raises(AuditError, match="not an outputs record"):
        trace(out)


def test_a_folder_counts_by_its_files_whatever_they_are_called(tmp_path):
    for name in ("a/1", "b/patient"):
        files.write_text(tmp_path / name, "slice")
    assert outputs.sha256_of(tmp_path / "a") == outputs.sha256_of(tmp_path / "b")
    assert outputs.sha256_of(tmp_path / "a" / "1") == files.sha256_file(tmp_path / "a" / "1")


def test_without_tracking_the_manifest_file_stands_for_the_cohort(tmp_path):
    files.write_text(tmp_path / "manifest.csv", "id\n")
    outputs.write_outputs_record(tmp_path)
    record, _ = find_record(tmp_path)
    assert record.content["manifest_digest"] == files.sha256_file(tmp_path / "manifest.csv")
    assert (record.run_id, record.content["journal"], record.content["started"]) == ("", None, None)


def test_the_inputs_of_a_cohort_are_those_of_its_manifest(out):
    rows = "id,subject,image,sha256_image,mask,sha256_mask\nx,s,/home/ann/x.nii.gz,11,,\ny,s,y.nii.gz,22,z.nii.gz,33\n"
    files.write_text(out / "manifest.csv", rows)
    outputs.write_outputs_record(out)
    assert find_record(out)[0].inputs == {"x": {"image": "11"}, "y": {"image": "22", "mask": "33"}}
    assert "ann" not in (out / outputs.RECORD).read_text()


def test_the_journal_is_verified_with_the_run(out):
    record, _ = find_record(out)
    journal = out / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert record.content["journal"]["lines"] == len(lines)
    whole = audit.verify_run(out)
    assert whole.problems == ()
    assert any("its chain is whole" in line for line in whole.lines)
    for changed, kind in (
        ([lines[0].replace(b"anomaly", b"anomalx"), *lines[1:]], "altered"),
        ([*lines[:1], *lines[2:]], "missing"),
        (lines[:-1], "missing"),
        ([lines[0], lines[2], lines[1], *lines[3:]], "moved"),
        ([*lines, lines[-1]], "unlisted"),
    ):
        journal.write_bytes(b"".join(changed))
        problems = audit.verify_run(out).problems
        assert [(problem.file, problem.kind) for problem in problems] == [("journal.jsonl", kind)], problems
    journal.unlink()
    assert [(problem.file, problem.kind) for problem in audit.verify_run(out).problems] == [
        ("journal.jsonl", "missing")
    ]
    # Of a part of a run, the files alone are compared.
    assert audit.verify_run(out / "config.yaml").problems == ()


@pytest.fixture
def scans(out):
    """The run with two scans as inputs, which lie beside it."""
    folder = out.parent / "scans"
    for name in ("x", "y"):
        files.write_text(folder / f"{name}.nii.gz", f"voxels of {name}")
    digests = {name: files.sha256_file(folder / f"{name}.nii.gz") for name in ("x", "y")}
    rows = "".join(f"{name},{name},../scans/{name}.nii.gz,{digest}\n" for name, digest in digests.items())
    files.write_text(out / "manifest.csv", f"id,subject,image,sha256_image\n{rows}")
    outputs.write_outputs_record(out)
    return folder


def test_inputs_are_compared_where_they_are(out, scans, tmp_path):
    assert (audit.verify_run(out).inputs, audit.verify_run(out).problems) == (2, ())
    (scans / "y.nii.gz").write_text("other voxels")
    for data in ([], [scans]):
        (problem,) = audit.verify_run(out, data=data).problems
        assert (problem.file, problem.kind) == ("y image", "altered")
        assert "y.nii.gz is not what the run read" in problem.detail
    scans.rename(tmp_path / "elsewhere")
    assert (audit.verify_run(out).inputs, audit.verify_run(out).unseen_inputs) == (0, 2)
    assert any("--data" in line for line in audit.verify_run(out).lines)
    (problem,) = audit.verify_run(out, data=[tmp_path / "elsewhere"]).problems
    assert problem.file == "y image"
    (tmp_path / "elsewhere" / "y.nii.gz").unlink()
    (problem,) = audit.verify_run(out, data=[tmp_path / "elsewhere"]).problems
    assert (problem.file, problem.kind) == ("input", "missing")
    with pytest.raises(DataError, match="no such file or folder"):
        audit.verify_run(out, data=[tmp_path / "nowhere"])


def test_a_series_is_known_by_either_of_its_hashes(out, tmp_path):
    series = tmp_path / "series"
    for number in range(3):
        files.write_text(series / f"{number}.dcm", f"slice {number}")
    for digest in (outputs.sha256_of(series), cases.sha256_of(series)):
        outputs.write_inputs(out, {"s": {"image": digest}})
        outputs.write_outputs_record(out)
        assert audit.verify_run(out, data=[tmp_path]).inputs == 1


def test_the_weights_that_a_run_used_are_compared(out, tmp_path, monkeypatch):
    """In the run beside it that trained them, or where they are said to be."""
    scored = out.parent / "scored"
    weights = {"model/weights-0.safetensors": files.sha256_file(out / "model" / "weights-0.safetensors")}
    files.write_text(out / "model" / "artifact.json", "{}")
    outputs.write_outputs_record(out)
    files.write_text(scored / "config.yaml", "a: 1\n")
    outputs.write_inputs(scored, {}, {"sha256": "12" * 32, "weights": weights, "run_id": find_record(out)[0].run_id})
    outputs.write_outputs_record(scored)
    assert (audit.verify_run(scored).weights, audit.verify_run(scored).problems) == (1, ())
    (out / "model" / "weights-0.safetensors").write_text("others")
    for model in (None, out / "model"):
        (problem,) = audit.verify_run(scored, model=model).problems
        assert problem.kind == "altered"
        assert problem.file.endswith("weights-0.safetensors")
    out.rename(tmp_path / "away")
    assert audit.verify_run(scored).unseen_weights == 1
    (problem,) = audit.verify_run(scored, model=tmp_path).problems
    assert (problem.file, problem.kind) == ("weights", "missing")


def test_of_a_run_that_has_not_ended_nothing_is_recorded(out):
    (out / outputs.RECORD).unlink()
    with pytest.raises(AuditError, match="has not ended"):
        audit.verify(out)


def test_a_record_of_an_earlier_medgen_is_read(out):
    content = files.read_json(out / outputs.RECORD)
    old = {key: value for key, value in content.items() if key not in ("journal", "pipeline", "started", "sha256")}
    files.write_json(out / outputs.RECORD, files.sealed({**old, "format": 1}))
    assert audit.verify_run(out).problems == ()
    files.write_json(out / outputs.RECORD, files.sealed({**old, "journal": 3}))
    with pytest.raises(AuditError, match="'journal' is of the wrong kind"):
        audit.verify_run(out)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inputs", {"x": {"image": 5}}),
        ("inputs", {"x": None}),
        ("model", {"inputs": [1]}),
        ("model", {"weights": ["a"]}),
        ("versions", "x"),
        ("run_id", {}),
        ("seed", "abc"),
        ("format", True),
        ("files", {"../../etc/passwd": "0" * 64}),
        ("files", {"": "0" * 64}),
    ],
)
def test_a_record_that_is_sealed_but_means_nothing_is_refused(out, key, value):
    content = files.read_json(out / outputs.RECORD)
    del content["sha256"]
    files.write_json(out / outputs.RECORD, files.sealed({**content, key: value}))
    for asked in (audit.verify_run, trace):
        with pytest.raises(AuditError):
            asked(out)


def test_weights_of_several_networks_are_found_in_each_folder_that_holds_them(out, tmp_path):
    """A generator's files have the same names in several folders."""
    used = {}
    for name in ("model/deform/arrays.safetensors", "model/deform/labels/arrays.safetensors"):
        files.write_text(out / name, name)
        used[name] = files.sha256_file(out / name)
    outputs.write_outputs_record(out)
    sampled = out.parent / "sampled"
    files.write_text(sampled / "config.yaml", "a: 1\n")
    outputs.write_inputs(sampled, {}, {"sha256": "12" * 32, "weights": used, "run_id": find_record(out)[0].run_id})
    outputs.write_outputs_record(sampled)
    for model in (None, out, out / "model", out / "model" / "deform"):
        found = audit.verify_run(sampled, model=model)
        assert (found.weights, found.problems) == (2, ()), model
