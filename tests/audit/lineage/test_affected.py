"""All that was made from a scan is found: in the run that read it, and through weights in others."""

from __future__ import annotations

import pytest

from medgen.audit.lineage.affected import affected
from medgen.errors import AuditError
from medgen.runs import outputs
from medgen.system import files
from tests.builders.finished_runs import CASES, digest


def test_a_training_scan_affects_the_model_and_all_that_was_scored_with_it(root):
    found = {own.record.out.name: own for own in affected("a", [root])}
    assert set(found) == {"anomaly", "scored", "augment"}
    assert [model.sha256 for model in found["anomaly"].models] == [digest("the model")]
    assert "calibration.csv" in found["anomaly"].mentions
    assert found["anomaly"].own == ()
    assert found["scored"].cases == ()
    assert "a model that learnt from it" in found["scored"].by_model
    assert list(found["augment"].learnt) == ["syn-0001"]
    assert found["augment"].copies == {}


def test_a_test_scan_affects_its_own_files_and_no_model(root):
    found = {own.record.out.name: own for own in affected("b", [root])}
    assert set(found) == {"anomaly", "augment"}
    assert set(found["anomaly"].own) == {"heatmaps/b.nii.gz", "truth/b-implant1-blur.nii.gz"}
    assert found["anomaly"].models == ()
    assert "scans.csv" in found["anomaly"].mentions
    assert "calibration.csv" not in found["anomaly"].mentions
    own = ("synthetic/imagesTr/syn-0001_0000.nii.gz", "synthetic/labelsTr/syn-0001.nii.gz")
    assert found["augment"].copies == {"syn-0001": own}
    assert any("its scan in another shape" in line for line in found["augment"].lines)


def test_a_scan_is_known_by_its_file_whatever_it_is_called(root, tmp_path):
    scan = tmp_path / "other-name.nii.gz"
    scan.write_text("voxels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        files.write_text(tmp_path / "runs" / "x" / "config.yaml", "a: 1\n")
        outputs.write_inputs(tmp_path / "runs" / "x", {"case-7": {"image": files.sha256_file(scan)}})
        outputs.write_outputs_record(tmp_path / "runs" / "x")
    (found,) = affected(scan, [tmp_path / "runs"])
    assert found.cases == ("case-7",)
    assert affected(scan, [root]) == []


def test_what_nobody_has_read_is_said(root, tmp_path):
    with pytest.raises(AuditError, match="no such file, and no run calls a scan so"):
        affected("nobody", [root])
    with pytest.raises(AuditError, match="no finished run here or below"):
        affected("a", [tmp_path])


def test_a_model_that_started_from_such_a_model_is_affected(root, tmp_path):
    run = tmp_path / "runs" / "later"
    meta = {"inputs": {"other": {"image": digest("other image")}}, "init": {"vae": {"sha256": digest("the model")}}}
    artifact = {**files.sealed({"format": "medgen-artifact", "meta": meta}), "sha256": digest("a later model")}
    files.write_json(run / "model" / "artifact.json", artifact)
    outputs.write_outputs_record(run)
    found = {own.record.out.name: own for own in affected("a", [root, run.parent])}
    assert [model.sha256 for model in found["later"].models] == [digest("a later model")]
    assert "later" not in {own.record.out.name for own in affected("b", [root, run.parent])}
    assert CASES["a"]["image"] not in (run / "outputs.json").read_text()


def test_a_mask_that_many_share_makes_nobody_another(tmp_path):
    shared = digest("the brain mask of the template")
    run = tmp_path / "runs" / "x"
    files.write_text(run / "config.yaml", "a: 1\n")
    outputs.write_inputs(run, {name: {"image": digest(name), "mask": shared} for name in ("a", "b")})
    outputs.write_outputs_record(run)
    (found,) = affected("a", [tmp_path / "runs"])
    assert found.cases == ("a",)
