"""What objects say: who made them of what, the patient as the series has him and nothing more, the numbers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medgen import io
from medgen.errors import DataError, GeometryError
from medgen.io.dicom.objects.scored import Place, ScoredScan
from medgen.io.dicom.objects.wanted import KINDS
from medgen.io.dicom.objects.write import write_objects

DATA = np.random.default_rng(0).integers(0, 200, (5, 80, 100)).astype(np.uint16)
PLACES = (
    Place(1, "Finding 1", "left anterior superior, cortex", 7.25, 0.5, 0.125, 0.03125),
    Place(2, "Finding 2", "", 5.5, 0.25, 0.5, 0.25),
)


def told(index: int, item: Dataset) -> None:
    """A header as of a hospital, with what objects repeat and what they must not."""
    item.SpecificCharacterSet = "ISO_IR 100"
    item.PatientName, item.PatientID, item.PatientSex, item.PatientBirthDate = "Müller^Änne", "P-17", "F", "19500102"
    item.StudyDate, item.StudyTime, item.StudyID, item.AccessionNumber = "20240301", "101112", "4", "ACC-9"
    item.ReferringPhysicianName, item.BodyPartExamined, item.SliceThickness = "Referrer^R", "BRAIN", "2.5"
    item.PatientComments = item.PatientAddress = item.InstitutionName = "LEAK"
    item.OperatorsName = item.StudyDescription = item.AdditionalPatientHistory = item.ProtocolName = "LEAK"
    item.OtherPatientIDs, item.PatientTelephoneNumbers, item.DeviceSerialNumber = "LEAK", "LEAK", "LEAK"
    item.private_block(0x0019, "ACME", create=True).add_new(1, "LO", "LEAK")


def scored_of(series: Path, places: tuple[Place, ...] = PLACES, doubt: str = "") -> ScoredScan:
    scan = io.read(series)
    heat = np.zeros(scan.data.shape, np.float32)
    heat[0, 20:30, 40:50, 2], heat[0, :10] = 6, np.nan
    regions = np.zeros(scan.data.shape, np.int32)
    regions[0, 20:30, 40:50, 2], regions[0, 60, 60, 3] = 1, 2
    heatmap, outlines = scan.with_data(heat), scan.with_data(regions if places else regions * 0)
    return ScoredScan(scan, (0, 200), heatmap, outlines, places, 4.5, doubt, "ab" * 32, "vae", "1.2.3")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, make_series: Callable[..., Path]) -> Path:
    return make_series(tmp_path_factory.mktemp("series"), DATA, edit=told, origin=(-10, 20, 30.125))


@pytest.fixture(scope="module")
def files(series: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("objects")
    return {path.relative_to(out).as_posix(): path for path in write_objects(out, series, scored_of(series), KINDS)}


def test_every_object_is_filed_with_its_study_and_tells_nothing_else_of_the_patient(
    files: dict[str, Path], series: Path
) -> None:
    source = dcmread(series / "000.dcm")
    seen: set[str] = set()
    for path in files.values():
        item = dcmread(path)
        for key in ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyInstanceUID", "StudyDate"):
            assert str(item.get(key)) == str(source.get(key)), key
        for key in ("StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "BodyPartExamined"):
            assert str(item.get(key)) == str(source.get(key)), key
        assert b"LEAK" not in path.read_bytes()
        assert not [element for element in item.iterall() if element.tag.is_private]
        assert item.SeriesInstanceUID != source.SeriesInstanceUID
        assert "research use only" in item.SeriesDescription
        assert (item.Manufacturer, item.SoftwareVersions, item.DeviceSerialNumber) == ("medgen", "1.2.3", "ab" * 32)
        seen.add(item.SOPInstanceUID)
    assert len(seen) == len(files) == 3 + len(DATA)
    numbers = {name.partition("/")[0]: int(dcmread(path).SeriesNumber) for name, path in files.items()}
    assert numbers == {"seg.dcm": 301, "pmap.dcm": 302, "sc": 303, "sr.dcm": 304}


def test_segments_are_findings_and_what_was_scored(files: dict[str, Path], series: Path) -> None:
    seg = highdicom.seg.segread(files["seg.dcm"])
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Finding 1", "Finding 2", "Scored"]
    assert seg.SegmentSequence[0].SegmentDescription == "left anterior superior, cortex"
    assert (seg.SegmentationType, seg.ContentDescription) == ("BINARY", "Research use only, not for clinical use")
    for item in seg.SegmentSequence:
        own = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (item.SegmentAlgorithmType, item.SegmentAlgorithmName) == ("AUTOMATIC", "medgen")
        assert (own.AlgorithmName, own.AlgorithmVersion) == ("medgen", "1.2.3")
        assert "model family=vae" in own.AlgorithmParameters
        assert "ab" * 32 in own.AlgorithmParameters
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == dcmread(series / "000.dcm").SeriesInstanceUID
    counts = [int(seg.get_volume(segment_numbers=[number]).array.sum()) for number in (1, 2, 3)]
    assert counts == [100, 1, 90 * 80 * 5]


def test_the_map_says_what_its_numbers_are(files: dict[str, Path]) -> None:
    item = dcmread(files["pmap.dcm"])
    mapping = item.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning.endswith("from healthy scans (z)")
    assert mapping.LUTExplanation.endswith("-1000: not scored")
    assert item.FloatPixelPaddingValue == -1000
    assert item.ContentDescription == "Research use only, not for clinical use"
    region = item.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].AnatomicRegionSequence[0]
    assert region.CodeMeaning == "Brain"


def test_captures_show_the_scan_and_the_heat_above_the_threshold(files: dict[str, Path], series: Path) -> None:
    for index in range(len(DATA)):
        item, source = dcmread(files[f"sc/{index + 1:04d}.dcm"]), dcmread(series / f"{index:03d}.dcm")
        assert [ref.ReferencedSOPInstanceUID for ref in item.SourceImageSequence] == [source.SOPInstanceUID]
        assert item.ImagePositionPatient == source.ImagePositionPatient
        assert (list(item.PatientOrientation), item.PhotometricInterpretation) == (["L", "P"], "RGB")
        upper = item.pixel_array[:60]
        coloured = np.ptp(upper.astype(int), axis=-1) > 0
        expected = np.zeros(DATA.shape[1:], bool)
        if index == 2:
            expected[40:50, 20:30] = True
        np.testing.assert_array_equal(coloured, expected[:60])
        grey = np.round(DATA[index, :60].astype(np.float32) / 200 * 255)
        np.testing.assert_allclose(upper[~coloured][:, 0], grey[~coloured], atol=0.5)
        # Black and white letters below on the left, where the scan is otherwise as it was.
        lower = np.round(DATA[index, 60:].astype(np.float32) / 200 * 255)
        changed = np.abs(item.pixel_array[60:, :, 0].astype(float) - lower) > 1
        rows, columns = np.nonzero(changed)
        assert changed.sum() > 200
        assert rows.min() >= 4
        assert columns.max() < len("RESEARCH USE ONLY") * 8


def numbers_of(report: Dataset) -> list[dict[str, float]]:
    """The numbers of each measurement group, by name."""
    groups = highdicom.sr.ContentSequence.from_sequence(report.ContentSequence, is_sr=True, is_root=False)
    found = next(item for item in groups if item.name.meaning == "Imaging Measurements")
    return [
        {
            item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
            for item in group.ContentSequence
            if item.ValueType == "NUM"
        }
        for group in found.ContentSequence
    ]


def test_the_report_has_the_numbers_of_every_finding_and_its_segment(files: dict[str, Path]) -> None:
    report, seg = dcmread(files["sr.dcm"]), dcmread(files["seg.dcm"])
    whole, *groups = numbers_of(report)
    assert whole == {"Number of findings": 2, "Threshold of findings (z)": 4.5}
    names = ("Volume", "Standard deviations from healthy scans (z)", "Expected false findings per healthy scan")
    for place, group in zip(PLACES, groups, strict=True):
        values = (place.volume_ml, place.peak, place.expected_false, place.p)
        assert group == dict(zip((*names, "Family-wise p-value of the peak"), values, strict=True))
    references = [
        (element.value[0].ReferencedSOPInstanceUID, element.value[0].ReferencedSegmentNumber)
        for element in report.iterall()
        if element.keyword == "ReferencedSOPSequence" and "ReferencedSegmentNumber" in element.value[0]
    ]
    assert references == [(seg.SOPInstanceUID, 1), (seg.SOPInstanceUID, 2)]
    assert (report.CompletionFlag, report.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    meanings = {element.value for element in report.iterall() if element.keyword == "CodeMeaning"}
    assert "Research use only, not for clinical use" in meanings


def test_of_a_doubtful_scan_nothing_is_claimed(series: Path, tmp_path: Path) -> None:
    hot = (Place(1, "Hot place 1", "", 7.0, 0.5, None, None),)
    write_objects(tmp_path, series, scored_of(series, hot, "looks like motion"), ["sr"])
    report = dcmread(tmp_path / "sr.dcm")
    whole, group = numbers_of(report)
    assert whole["Number of findings"] == 0
    assert set(group) == {"Volume", "Standard deviations from healthy scans (z)"}
    meanings = {element.value for element in report.iterall() if element.keyword == "CodeMeaning"}
    assert "Nothing: these are hot places of a doubtful scan" in meanings
    # The segments that it refers to come with it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seg.dcm", "sr.dcm"]


def test_a_scan_without_findings_has_its_scored_part(series: Path, tmp_path: Path) -> None:
    write_objects(tmp_path, series, scored_of(series, ()), KINDS)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Scored"]
    assert numbers_of(dcmread(tmp_path / "sr.dcm")) == [{"Number of findings": 0, "Threshold of findings (z)": 4.5}]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"FrameOfReferenceUID": None}, "no FrameOfReferenceUID"),
        ({"StudyInstanceUID": "not-a-uid"}, "a StudyInstanceUID that is no UID"),
    ],
)
def test_what_objects_cannot_refer_to_is_said(
    edit: dict[str, str | None], words: str, tmp_path: Path, make_series: Callable[..., Path]
) -> None:
    def without(index: int, item: Dataset) -> None:
        for key, value in edit.items():
            setattr(item, key, value)

    folder = make_series(tmp_path / "series", DATA[:, :20, :20], edit=without)
    scan = io.read(folder)
    empty = scan.with_data(np.zeros(scan.data.shape, np.float32))
    scored = ScoredScan(scan, (0, 200), empty, empty.with_data(empty.data.astype(int)), (), 4.5, "", "a", "vae", "1")
    with pytest.raises(DataError, match=words):
        write_objects(tmp_path / "out", folder, scored, ["seg"])
    assert not (tmp_path / "out").exists()


def test_a_header_that_highdicom_refuses_is_not_quoted(tmp_path: Path, make_multiframe: Callable[..., Path]) -> None:
    # Several frames in an object of a class that has one.
    path = make_multiframe(tmp_path / "a.dcm", DATA[:, :20, :20])
    scan = io.read(path)
    empty = scan.with_data(np.zeros(scan.data.shape, np.float32))
    scored = ScoredScan(scan, (0, 200), empty, empty.with_data(empty.data.astype(int)), (), 4.5, "", "a", "vae", "1")
    with pytest.raises(DataError, match=r"a header that highdicom cannot refer to \(\w+Error\)") as error:
        write_objects(tmp_path / "out", path, scored, ["seg"])
    assert "SECRET" not in str(error.value)


def test_odd_values_of_a_header_are_left_empty(tmp_path: Path, make_series: Callable[..., Path]) -> None:
    def odd(index: int, item: Dataset) -> None:
        item.PatientSex, item.PatientBirthDate, item.StudyTime, item.PatientName = (
            "x",
            "1950",
            "",
            "Yamada^Tarou=山田^太郎",
        )
        item.SpecificCharacterSet, item.SeriesNumber = ["", "ISO 2022 IR 87"], None
        item.PatientIdentityRemoved, item.DeidentificationMethod = "YES", "by hand"

    with pytest.warns(UserWarning, match="Invalid value for VR"):
        folder = make_series(tmp_path / "series", DATA, edit=odd)
    write_objects(tmp_path / "out", folder, scored_of(folder), KINDS)
    for path in (tmp_path / "out").rglob("*.dcm"):
        item = dcmread(path)
        assert (item.PatientSex, item.PatientBirthDate, item.StudyTime or "") == ("", "", "")
        assert str(item.PatientName) == "Yamada^Tarou=山田^太郎"
        assert (item.PatientIdentityRemoved, item.DeidentificationMethod) == ("YES", "by hand")


def test_volumes_and_places_must_fit(series: Path) -> None:
    scored = scored_of(series)
    with pytest.raises(GeometryError, match=r"numbered from 1, found \[2\]"):
        ScoredScan(**{**vars(scored), "places": PLACES[1:]})
    moved = io.read(series)
    moved = type(moved)(moved.data, moved.grid.moved(np.diag([-1.0, 1, 1, 1])))
    with pytest.raises(GeometryError, match="the heatmap on the grid of the scan"):
        ScoredScan(**{**vars(scored), "heatmap": moved})


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(files: dict[str, Path]) -> None:
    for name, path in files.items():
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert not [line for line in said.splitlines() if line.startswith("Error")], f"{name}: {said}"
