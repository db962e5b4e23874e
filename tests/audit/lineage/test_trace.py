"""Every kind of file is traced to the scans, weights, training scans, settings, code and machine that made it."""

from __future__ import annotations

import shutil
from xml.etree import ElementTree

import pytest

from medgen.audit.lineage.graph import svg
from medgen.audit.lineage.text import lines
from medgen.audit.lineage.trace import case_of, trace
from medgen.errors import AuditError
from medgen.system import files
from tests.builders.finished_runs import CASES, digest


def told(found, *kinds):
    """Label → hash of the nodes of some kinds."""
    return {node.label: node.sha256 for node in found.of_kind(*kinds)}


LEARNT = {f"{name} {part}": own for name in ("a", "a-b") for part, own in CASES[name].items()}


@pytest.mark.parametrize("name", ["heatmaps/b.nii.gz", "truth/b-implant1-blur.nii.gz"])
def test_a_file_of_one_scan_is_of_that_scan_and_the_model_of_its_run(root, name):
    found = trace(root / "anomaly" / name)
    assert told(found, "scan") == {f"b {part}": own for part, own in CASES["b"].items()}
    assert told(found, "model") == {"model": digest("the model")}
    assert told(found, "training scan") == LEARNT
    assert told(found, "calibration") == {"calibration.csv": files.sha256_file(root / "anomaly" / "calibration.csv")}
    (output,) = found.of_kind("output")
    assert (output.sha256, output.facts["state"]) == (files.sha256_file(root / "anomaly" / name), "as recorded")
    (settings,), (code,), (run,) = found.of_kind("settings"), found.of_kind("code"), found.of_kind("run")
    assert settings.sha256 == files.sha256_file(root / "anomaly" / "config.yaml")
    assert code.facts["commit"]
    assert run.facts["seed"] == 3


@pytest.mark.parametrize(
    "name",
    [
        "heatmaps/new.nii.gz",
        "dicom/new/sr.dcm",
        "bids/sub-new/anat/sub-new_heat.nii.gz",
        "findings.csv",
        "metrics.json",
    ],
)
def test_what_was_scored_is_traced_through_the_weights_to_the_run_that_trained_them(root, name):
    found = trace(root / "scored" / name)
    assert told(found, "scan") == {"new image": digest("new image")}
    assert told(found, "model") == {"model": digest("the model")}
    weights = root / "anomaly" / "model" / "weights-0.safetensors"
    assert told(found, "weights") == {"model/weights-0.safetensors": files.sha256_file(weights)}
    assert told(found, "training scan") == LEARNT
    assert {node.facts["pipeline"] for node in found.of_kind("run")} == {"anomaly-score", "anomaly"}
    model = found.of_kind("model")[0].id
    made = {(source, target) for source, target in found.edges}
    assert all((node.id, model) in made for node in found.of_kind("training scan", "weights"))
    assert (model, found.target) in made


def test_a_row_of_a_table_is_of_its_scan(root):
    found = trace(root / "anomaly" / "scans.csv", row=2)
    assert found.of_kind("output")[0].facts["row"] == {"case": "b-implant1-blur", "p": "0.02"}
    assert told(found, "scan") == {f"b {part}": own for part, own in CASES["b"].items()}
    assert trace(root / "scored" / "metrics.json", case="new").of_kind("output")[0].facts["case"] == "new"
    assert len(told(trace(root / "anomaly" / "scans.csv"), "scan")) == 6
    with pytest.raises(AuditError, match="has no row 9; expected 1 to 2"):
        trace(root / "anomaly" / "scans.csv", row=9)
    with pytest.raises(AuditError, match="says nothing of the case 'nobody'"):
        trace(root / "anomaly" / "scans.csv", case="nobody")
    with pytest.raises(AuditError, match="is no CSV table"):
        trace(root / "anomaly" / "metrics.json", row=1)


@pytest.mark.parametrize(
    "name", ["imagesTr/syn-0001_0000.nii.gz", "labelsTr/syn-0001.nii.gz", "provenance/syn-0001.json"]
)
def test_a_synthetic_scan_is_traced_to_its_parent_and_its_generator(root, name):
    found = trace(root / "augment" / "synthetic" / name)
    assert told(found, "parent scan") == {f"b {part}": own for part, own in CASES["b"].items()}
    assert told(found, "model") == {"model/deform": digest("the generator")}
    # Its parent was learnt from, too.
    assert set(told(found, "training scan", "parent scan")) == {
        f"{name} {part}" for name in CASES for part in CASES[name]
    }
    assert found.of_kind("record")[0].facts["seed"] == 11


def test_weights_are_traced_to_what_they_learnt_from(root):
    found = trace(root / "anomaly" / "model" / "weights-0.safetensors")
    assert told(found, "training scan") == LEARNT
    assert found.of_kind("scan", "model") == []


def test_a_copy_elsewhere_is_known_by_its_hash(root, tmp_path):
    copy = tmp_path / "sent-by-mail.nii.gz"
    shutil.copy(root / "scored" / "heatmaps" / "new.nii.gz", copy)
    assert told(trace(copy, runs=[root]), "scan") == {"new image": digest("new image")}
    with pytest.raises(AuditError, match=r"no run below .* has written a file with its SHA-256"):
        trace(copy)
    copy.write_text("something else")
    with pytest.raises(AuditError, match="no run below"):
        trace(copy, runs=[root])
    with pytest.raises(AuditError, match=r"no such file; expected a file of the run in"):
        trace(root / "anomaly" / "absent.csv")


def test_the_lines_name_every_hash(root):
    found = trace(root / "scored" / "heatmaps" / "new.nii.gz")
    text = "\n".join(lines(found))
    assert [node.sha256 for node in found.nodes if node.sha256 not in text] == []
    assert text.startswith("heatmaps/new.nii.gz: as recorded\n")
    assert "learnt from 2 scan(s)" in text
    assert "of anomaly-score scored" in text
    assert "of anomaly anomaly" in text
    # A parent that the generator has learnt from is listed as both.
    both = lines(trace(root / "augment" / "synthetic" / "labelsTr" / "syn-0001.nii.gz"))
    assert sum(CASES["b"]["image"] in line for line in both) == 2


def test_the_graph_shows_every_box_left_of_what_was_made_from_it(root):
    found = trace(root / "scored" / "heatmaps" / "new.nii.gz")
    page = ElementTree.fromstring(svg(found))
    titles = [title.text or "" for title in page.iter("{http://www.w3.org/2000/svg}title")]
    assert any("new image" in title for title in titles)
    boxes = _places(page)
    (output,) = [x for title, x in boxes.items() if title.startswith("output:")]
    assert all(x < output for title, x in boxes.items() if not title.startswith("output:"))
    many = svg(trace(root / "augment" / "synthetic" / "imagesTr" / "syn-0001_0000.nii.gz"))
    assert "x training scan" in many or many.count("training scan:") <= 8


def _places(page):
    space = "{http://www.w3.org/2000/svg}"
    return {
        group.find(f"{space}title").text: int(group.find(f"{space}rect").get("x")) for group in page.iter(f"{space}g")
    }


def test_the_longest_name_that_fits_is_the_case():
    assert case_of("heatmaps/a-b.nii.gz", CASES) == "a-b"
    assert case_of("heatmaps/a.nii.gz", CASES) == "a"
    assert case_of("sub-ab/anat/sub-ab_T1w.nii.gz", CASES) == "a-b"
    assert case_of("metrics.json", CASES) == ""
