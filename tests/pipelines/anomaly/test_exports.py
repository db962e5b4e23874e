"""Scored scans for other programs: BIDS that its validator accepts, scenes and workspaces whose parts lie in place."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
from jsonschema import Draft202012Validator

from medgen import io
from medgen.anomaly.findings.record import SCHEMA, schema_text, shipped_schema
from medgen.errors import DataError
from medgen.pipelines.anomaly import score as scoring
from medgen.pipelines.cli.app import main
from medgen.volume import Grid, Volume
from tests.builders.bids_validator import bids_errors
from tests.builders.dicom_folders import series
from tests.builders.run_outputs import undeclared

CUBE = (12, 12, 12)
RAW = {"Name": "raw", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
_C, _S = np.cos(0.3), np.sin(0.3)
# Left-handed and oblique: what mixes up sides and frames shows here.
OBLIQUE = np.array([[-_C, -_S, 0, 40], [-_S, _C, 0, -30.5], [0, 0, 1, 12.25], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, model: Path, runs: Path) -> Path:
    """Noise with a bright cube off the middle: in a BIDS data set, as a plain file, and as a DICOM series."""
    folder = tmp_path_factory.mktemp("given")
    data = np.random.default_rng(3).random((1, *CUBE)).astype(np.float32)
    data[0, 1:5, 6:10, 2:5] += 2.2
    raw = folder / "raw"
    image = raw / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_run-1_T1w.nii.gz"
    io.write(Volume(data, Grid(CUBE, OBLIQUE)), image)
    (raw / "dataset_description.json").write_text(json.dumps(RAW))
    io.write(Volume(data, Grid(CUBE, np.eye(4))), folder / "plain_1.nii.gz")
    stored = (data[0] * 1000).astype(np.uint16).transpose(2, 1, 0)
    dicom = series(folder / "dicom", data=stored, spacing=(1, 1), step=(0, 0, 1))
    out = runs / "exports"
    given = [image, folder / "plain_1.nii.gz", dicom]
    kinds = ("bids", "slicer", "itksnap")
    summary = scoring.score(
        given, model=model, out=out, device="cpu", viewers="none", dicom=("seg", "pmap", "sc", "sr"), export=kinds
    )
    assert summary.exit_code == 0
    assert [line for line in summary.lines if line.startswith(kinds)] == [
        f"bids:     {out / 'bids'}",
        f"slicer:   {out / 'slicer'}",
        f"itksnap:  {out / 'itksnap'}",
    ]
    return out


CASES = {"sub-01_ses-2_run-1_T1w": "sub-01_ses-2_run-1", "plain_1": "sub-plain1", "dicom": "sub-dicom"}


def findings_of(out: Path, case: str) -> list[dict[str, object]]:
    found = json.loads((out / "findings.json").read_text())["scans"][case]
    assert found
    return found


@pytest.mark.slow
def test_everything_is_declared_and_findings_follow_the_shipped_schema(scored: Path) -> None:
    assert undeclared(scored, scoring.PIPELINE) == []
    schema = shipped_schema()
    Draft202012Validator.check_schema(schema)
    content = json.loads((scored / "findings.json").read_text())
    Draft202012Validator(schema).validate(content)
    assert (content["format"], content["version"], set(content["scans"])) == ("medgen-findings", 1, set(CASES))
    # A schema that lets everything through would be none.
    for wrong in ({**content, "version": 2}, {**content, "scans": {"a": [{"id": 1}]}}, {"scans": {}}):
        assert not Draft202012Validator(schema).is_valid(wrong)


def test_the_shipped_schema_is_what_the_code_makes() -> None:
    import medgen.anomaly.findings.record as module

    shipped = Path(str(module.__file__)).with_name(SCHEMA).read_text(encoding="utf-8")
    assert shipped == schema_text(), "run python -m medgen.anomaly.findings.record"


@pytest.mark.slow
def test_the_bids_derivative_is_valid_and_holds_the_same_heat(scored: Path) -> None:
    bids = scored / "bids"
    assert bids_errors(bids) == []
    about = json.loads((bids / "dataset_description.json").read_text())
    assert (about["DatasetType"], about["GeneratedBy"][0]["Name"]) == ("derivative", "medgen")
    for case, base in CASES.items():
        suffix = "T1w" if case.startswith("sub") else "anat"
        folder = next(bids.rglob(f"{base}_desc-heat_{suffix}.nii.gz")).parent
        assert folder.name == "anat"
        heat = io.read(scored / "heatmaps" / f"{case}.nii.gz", allow_nan=True)
        again = io.read(folder / f"{base}_desc-heat_{suffix}.nii.gz", allow_nan=True)
        np.testing.assert_array_equal(again.data, heat.data)
        assert again.grid.same_as(heat.grid)
        judged = io.read(folder / f"{base}_desc-scored_mask.nii.gz")
        np.testing.assert_array_equal(judged.data != 0, ~np.isnan(heat.data))
        number = io.read(folder / f"{base}_desc-findings_dseg.nii.gz")
        mask = io.read(folder / f"{base}_desc-findings_mask.nii.gz")
        np.testing.assert_array_equal(mask.data != 0, number.data != 0)
        found = findings_of(scored, case)
        said = json.loads((folder / f"{base}_desc-heat_{suffix}.json").read_text())
        assert [item["peak_voxel"] for item in said["Findings"]] == [item["peak_voxel"] for item in found]
        assert said["SkullStripped"] is False
        assert said["Threshold"] == json.loads((scored / "metrics.json").read_text())["findings"]["threshold"]
        for item in found:
            assert number.data[0][tuple(item["peak_voxel"])] == item["id"]
        lines = (folder / f"{base}_desc-findings_dseg.tsv").read_text().splitlines()
        assert len(lines) == 2 + len(found)
    # A scan from BIDS says where it is from, in a way that leads there.
    said = json.loads(next(bids.rglob("sub-01_*heat_T1w.json")).read_text())
    kind, link, path = said["Sources"][0].split(":")
    assert (kind, path) == ("bids", "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz")
    assert (bids / about["DatasetLinks"][link] / path).resolve().is_file()
    assert "Sources" not in json.loads(next(bids.rglob("sub-plain1_*heat_anat.json")).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_slicer_scene_shows_findings_where_they_are(scored: Path, case: str) -> None:
    folder = scored / "slicer" / case
    root = ElementTree.parse(folder / f"{case}.mrml").getroot()
    nodes = {node.attrib["id"]: node for node in root}
    assert root.tag == "MRML"
    assert len(nodes) == len(list(root))
    for node in root:
        # Every file is beside the scene, and every node that another names is there, or Slicer's own.
        if "fileName" in node.attrib:
            assert (folder / node.attrib["fileName"]).is_file()
        for reference in node.attrib.get("references", "").split(";"):
            target = reference.partition(":")[2]
            assert target in nodes or target in ("", "vtkMRMLColorTableNodeGrey"), reference
    # Each kind of node has the id that Slicer gives to its class, from which it finds storage and display.
    classes = {
        "Volume": "ScalarVolume",
        "VolumeDisplay": "ScalarVolumeDisplay",
        "SliceComposite": "SliceComposite",
    }
    for node in root:
        assert node.attrib["id"].startswith(f"vtkMRML{classes.get(node.tag, node.tag)}Node")
    heat = next(node for node in root if node.tag == "VolumeDisplay" and node.attrib["applyThreshold"] == "1")
    threshold = json.loads((scored / "metrics.json").read_text())["findings"]["threshold"]
    assert float(heat.attrib["lowerThreshold"]) == pytest.approx(threshold)
    low = float(heat.attrib["level"]) - float(heat.attrib["window"]) / 2
    assert low == pytest.approx(threshold)
    red = nodes["vtkMRMLSliceCompositeNodeRed"].attrib
    assert nodes[red["foregroundVolumeID"]].attrib["name"].endswith("heat (z), research use only, not for clinical use")
    # ITK reads all volumes, as Slicer does, in LPS: same place, and each point at its finding's peak.
    scan, shown, segments, judged = (
        sitk.ReadImage(str(folder / name))
        for name in ("scan.nii.gz", "heat.nii.gz", "findings.seg.nrrd", "scored.seg.nrrd")
    )
    for image in (shown, segments, judged):
        assert image.GetSize() == scan.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), scan.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(image.GetDirection(), scan.GetDirection(), atol=1e-6)
    markups = json.loads((folder / "peaks.mrk.json").read_text())["markups"][0]
    assert (markups["type"], markups["coordinateSystem"]) == ("Fiducial", "LPS")
    found = findings_of(scored, case)
    for number, (point, item) in enumerate(zip(markups["controlPoints"], found, strict=True)):
        index = scan.TransformPhysicalPointToIndex(point["position"])
        assert list(index) == item["peak_voxel"]
        assert shown[index] == pytest.approx(item["peak"], rel=1e-6)
        assert segments[index] == item["id"]
        assert point["label"] == segments.GetMetaData(f"Segment{number}_Name") == f"Finding {item['id']}"
        assert segments.GetMetaData(f"Segment{number}_LabelValue") == str(item["id"])
    original = io.read(scored / "heatmaps" / f"{case}.nii.gz", allow_nan=True).data[0].transpose(2, 1, 0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(judged) != 0, ~np.isnan(original))
    colours = (folder / "heat.ctbl").read_text().splitlines()
    assert len(colours) == int(nodes["vtkMRMLColorTableNode1"].attrib["numcolors"])
    assert colours[0] == "0 heat0 213 94 0 255"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_itksnap_workspace_finds_its_files_wherever_it_lies(scored: Path, case: str) -> None:
    folder = scored / "itksnap" / case
    text = (folder / f"{case}.itksnap").read_text()
    assert str(scored.parent) not in text
    root = ElementTree.fromstring(text)

    def entry(node: ElementTree.Element, *keys: str) -> str:
        for key in keys[:-1]:
            node = next(item for item in node.findall("folder") if item.attrib["key"] == key)
        return next(item.attrib["value"] for item in node.findall("entry") if item.attrib["key"] == keys[-1])

    saved, roles = entry(root, "SaveLocation"), []
    assert entry(root, "Version")
    for number in range(3):
        layer = ("Layers", f"Layer[{number:03d}]")
        path = entry(root, *layer, "AbsolutePath")
        # As ITK-SNAP does where a workspace has moved: what follows its old place, from its new one.
        assert path.startswith(saved)
        assert (folder / path[len(saved) :].lstrip("/")).is_file()
        roles.append(entry(root, *layer, "Role"))
    assert roles == ["MainRole", "OverlayRole", "SegmentationRole"]
    found = findings_of(scored, case)
    table = ("Layers", "Layer[000]", "ProjectMetaData", "IRIS", "LabelTable")
    assert entry(root, *table, "NumberOfElements") == str(len(found))
    assert entry(root, *table, "Element[0]", "Label") == "Finding 1"
    labels, heat = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{n}.nii.gz"))) for n in ("findings", "heat"))
    for item in found:
        assert labels[tuple(item["peak_voxel"][::-1])] == item["id"]
    # Colours begin at the threshold, as a share of the image's range, and nothing below it is seen.
    mapping = ("Layers", "Layer[001]", "LayerMetaData", "DisplayMapping")
    begin = float(entry(root, *mapping, "Curve", "ControlPoint[0]", "tValue"))
    threshold = json.loads((scored / "metrics.json").read_text())["findings"]["threshold"]
    assert heat.min() + begin * np.ptp(heat) == pytest.approx(threshold, rel=1e-4)
    assert entry(root, *mapping, "ColorMap", "ControlPoint[0000]", "Left", "A") == "0"
    assert entry(root, *mapping, "ColorMap", "ControlPoint[0000]", "Right", "A") == "255"


@pytest.mark.slow
def test_pages_lead_to_the_dicom_objects_that_were_written(scored: Path) -> None:
    index = (scored / "report.html").read_text()
    assert 'href="dicom/dicom/"' in index
    assert 'href="dicom/plain_1/"' not in index
    page = (scored / "cases" / "dicom.html").read_text()
    for name in ("seg.dcm", "pmap.dcm", "sr.dcm", "sc/0001.dcm"):
        assert f'href="../dicom/dicom/{name}"' in page
        assert (scored / "dicom" / "dicom" / name).is_file()
    assert "sc/0002.dcm" not in page
    assert ".dcm" not in (scored / "cases" / "plain_1.html").read_text()


def test_a_slip_is_said_before_anything_is_scored(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "a.nii.gz"
    scan.touch()
    command = ["medgen", "anomaly", "score", str(scan), "--model", str(model), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*command, "--export", "bids,sclicer"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert (
        "--export: found 'sclicer'; expected bids, slicer, itksnap or all; did you mean 'slicer'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_cannot_be_written_for_a_program_is_said_and_the_scan_is_scored(
    model: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[Path]:
        raise DataError("a sheared grid")

    monkeypatch.setattr("medgen.pipelines.anomaly.scored.exports.write_slicer", refuse)
    scan = Volume(np.random.default_rng(3).random((1, *CUBE)).astype(np.float32), Grid(CUBE, np.eye(4)))
    io.write(scan, tmp_path / "a.nii.gz")
    done = scoring.score(
        [tmp_path / "a.nii.gz"],
        model=model,
        out=runs / "refused",
        device="cpu",
        viewers="none",
        export=("slicer", "itksnap"),
    )
    assert any(line.startswith("a: ") and line.endswith("; nothing for slicer: a sheared grid") for line in done.lines)
    assert (runs / "refused" / "itksnap" / "a" / "a.itksnap").is_file()
    assert (runs / "refused" / "heatmaps" / "a.nii.gz").is_file()
