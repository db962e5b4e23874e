"""Records of outputs: everything listed, every kind of change found, every file traced."""

from __future__ import annotations

import json

import pytest

from medgen.audit import verify as audit
from medgen.errors import AuditError
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
    assert audit.trace(out / "heatmaps" / "x.nii.gz")["state"] == "altered"
    assert audit.trace(out / "heatmaps" / "y.nii.gz")["state"] == "unlisted"


def test_a_link_is_no_file_of_the_run(out):
    path = out / "config.yaml"
    path.symlink_to(path.rename(out.parent / "elsewhere.yaml"))
    assert [(problem.file, problem.kind) for problem in audit.verify(out)] == [("config.yaml", "altered")]


def test_a_file_is_traced_to_what_made_it(out):
    found = audit.trace(out / "heatmaps" / "x.nii.gz")
    run = tracking.last_run(out)
    assert run is not None
    assert (found["run_id"], found["seed"], found["manifest_digest"]) == (run["medgen.run"], 7, "cd" * 32)
    assert found["config_sha256"] == run["medgen.config.sha256"] == tracking.config_digest({"a": 1})
    weights = files.sha256_file(out / "model" / "weights-0.safetensors")
    assert found["weights"] == {"model/weights-0.safetensors": weights}
    assert (found["file"], found["state"]) == ("heatmaps/x.nii.gz", "as recorded")
    assert "file" not in audit.trace(out)
    with pytest.raises(AuditError, match="no such file; expected a file of the run in"):
        audit.trace(out / "heatmaps" / "z.nii.gz")


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
        audit.trace(out)


def test_without_tracking_the_manifest_file_stands_for_the_cohort(tmp_path):
    files.write_text(tmp_path / "manifest.csv", "id\n")
    outputs.write_outputs_record(tmp_path)
    assert audit.trace(tmp_path)["manifest_digest"] == files.sha256_file(tmp_path / "manifest.csv")
    assert audit.trace(tmp_path)["run_id"] is None


def test_a_file_is_traced_to_its_scan_and_the_model_that_was_used(out):
    """Cases by name and hash, no path; the weights of a model that the run did not make are there too."""
    scan, volume = "ab" * 32, {"image": "ab" * 32}
    source = {"sha256": "12" * 32, "weights": {"model/weights-0.safetensors": "34" * 32}, "run_id": "r", "cases": ["c"]}
    files.write_text(out / "heatmaps" / "x-ray.nii.gz", "heat")
    outputs.write_inputs(out, {"x": volume, "x-ray": {"image": "cd" * 32}}, source)
    outputs.write_outputs_record(out)
    found = audit.trace(out / "heatmaps" / "x.nii.gz")
    assert found["scan"] == {"case": "x", "sha256": {"image": scan}}
    assert audit.trace(out / "heatmaps" / "x-ray.nii.gz")["scan"]["case"] == "x-ray"
    assert found["model"] == source
    assert found["weights"]["model/weights-0.safetensors"] == "34" * 32
    assert found["inputs"] == {"x": volume, "x-ray": {"image": "cd" * 32}}


def test_the_inputs_of_a_cohort_are_those_of_its_manifest(out):
    rows = "id,subject,image,sha256_image,mask,sha256_mask\nx,s,/home/ann/x.nii.gz,11,,\ny,s,y.nii.gz,22,z.nii.gz,33\n"
    files.write_text(out / "manifest.csv", rows)
    outputs.write_outputs_record(out)
    assert audit.trace(out)["inputs"] == {"x": {"image": "11"}, "y": {"image": "22", "mask": "33"}}
    assert "ann" not in (out / outputs.RECORD).read_text()


def test_a_folder_counts_by_its_files_whatever_they_are_called(tmp_path):
    for name in ("a/1", "b/patient"):
        files.write_text(tmp_path / name, "slice")
    assert outputs.sha256_of(tmp_path / "a") == outputs.sha256_of(tmp_path / "b")
    assert outputs.sha256_of(tmp_path / "a" / "1") == files.sha256_file(tmp_path / "a" / "1")
