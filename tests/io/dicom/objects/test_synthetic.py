"""Synthetic scans as DICOM: of no patient and saying so, every voxel where its grid says, however turned."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medgen import io
from medgen.errors import GeometryError
from medgen.io.dicom.objects.synthetic import SyntheticScan
from medgen.io.dicom.objects.write import write_synthetic
from medgen.volume import Grid, Volume

SHAPE = (9, 7, 5)
STEPS = np.array([1.5, 1.25, 2.5])
_C, _S = np.cos(0.4), np.sin(0.4)
# Columns are the directions (RAS+) of the voxel axes; no handedness is favoured.
TURNS = {
    "straight": np.eye(3),
    "mirrored": np.diag([-1.0, 1.0, 1.0]),
    "as DICOM stores": np.diag([-1.0, -1.0, 1.0]),
    "upside down": np.diag([1.0, 1.0, -1.0]),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0.0]]),
    "coronal, mirrored": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0.0]]),
    "oblique": np.array([[_C, -_S * _C, _S * _S], [_S, _C * _C, -_C * _S], [0, _S, _C]]),
    "oblique, mirrored": np.array([[-_C, -_S * _C, _S * _S], [-_S, _C * _C, -_C * _S], [0, _S, _C]]),
}
# The validator that Debian has is older than this attribute of the SOP Common Module (PS3.3 C.12.1).
_YOUNGER = "not a recognized standard attribute - (0x0008,0x001c)"


def grid_of(turn: np.ndarray) -> Grid:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * STEPS, (10.125, -20.5, 5.0625)
    return Grid(SHAPE, affine)


def made_up(grid: Grid, modality: str = "MR", channels: tuple[str, ...] = ("",)) -> SyntheticScan:
    rng = np.random.default_rng(0)
    images = [Volume(rng.normal(size=(1, *SHAPE)).astype(np.float32), grid) for _ in channels]
    labels = rng.integers(0, 3, (1, *SHAPE)) * 2
    names = {2: "outer", 4: "inner", 7: "nowhere"}
    given = (images, channels, Volume(labels, grid), names)
    return SyntheticScan("syn-0001", *given, modality, "deform", "ab" * 32, "share", "1.2.3")


@pytest.mark.parametrize("turn", TURNS)
def test_every_voxel_is_read_back_where_the_grid_says(turn: str, tmp_path: Path) -> None:
    scan = made_up(grid_of(TURNS[turn]))
    files = write_synthetic(tmp_path, scan)
    truth, grid = scan.labels.data[0], scan.labels.grid
    # medgen's own reader, and the equation of PS3.3 C.7.6.2.1.1 on the raw headers.
    again = io.read(tmp_path / "image")
    index = np.argwhere(np.ones(again.grid.shape, bool))
    own = grid.to_voxel(again.grid.to_world(index))
    np.testing.assert_allclose(own, own.round(), atol=1e-4)
    expected = scan.images[0].data[0][tuple(own.round().astype(int).T)]
    level = np.ptp(scan.images[0].data) / 65535
    np.testing.assert_allclose(again.data[0].reshape(-1), expected, atol=0.51 * level)
    for k in (0, 3):
        item = dcmread(tmp_path / "image" / f"{k + 1:04d}.dcm")
        across, down = (
            np.array(item.ImageOrientationPatient[:3], float),
            np.array(item.ImageOrientationPatient[3:], float),
        )
        spacing = [float(value) for value in item.PixelSpacing]
        place = np.array(item.ImagePositionPatient, float) + across * spacing[1] * 6 + down * spacing[0] * 2
        np.testing.assert_allclose(place * (-1, -1, 1), grid.to_world([6, 2, k]), atol=1e-6)
        value = float(item.pixel_array[2, 6]) * float(item.RescaleSlope) + float(item.RescaleIntercept)
        assert value == pytest.approx(scan.images[0].data[0, 6, 2, k], abs=0.51 * float(level))
    # Segments by highdicom, as volumes in its own order of axes, and pixel by pixel by pydicom.
    segments = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert files[-1] == tmp_path / "seg.dcm"
    for number, value in ((1, 2), (2, 4)):
        volume = segments.get_volume(segment_numbers=[number])
        index = np.argwhere(np.ones(volume.spatial_shape, bool))
        place = (index @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * (-1, -1, 1)
        own = truth[tuple(grid.to_voxel(place).round().astype(int).T)] == value
        np.testing.assert_array_equal(np.asarray(volume.array).reshape(-1) > 0, own)
    by_uid = {dcmread(path).SOPInstanceUID: k for k, path in enumerate(files[:-1])}
    raw, seen = dcmread(tmp_path / "seg.dcm"), np.zeros(SHAPE, int)
    for frame, group in enumerate(raw.PerFrameFunctionalGroupsSequence):
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        value = {1: 2, 2: 4}[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        seen[:, :, by_uid[source]] += value * raw.pixel_array[frame].T
    np.testing.assert_array_equal(seen, truth)


def test_it_is_of_no_patient_and_says_so(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "a", made_up(grid_of(np.eye(3))))
    write_synthetic(tmp_path / "b", made_up(grid_of(np.eye(3))))
    uids: list[str] = []
    for path in sorted(tmp_path.rglob("*.dcm")):
        item = dcmread(path)
        assert item.PatientName == "SYNTHETIC^syn-0001"
        assert item.PatientID == "SYNTHETIC-syn-0001"
        assert item.SyntheticData == "YES"
        assert "SYNTHETIC" in item.SeriesDescription
        assert "research use only" in item.SeriesDescription
        assert "not for clinical use" in item.PatientComments
        assert (item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions) == ("medgen", "deform", "1.2.3")
        assert item.DeviceSerialNumber == "ab" * 32
        if path.name != "seg.dcm":
            assert list(item.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        uids.append(item.SOPInstanceUID)
    assert len(set(uids)) == len(uids) == 12
    labels = dcmread(tmp_path / "a" / "seg.dcm")
    image = dcmread(tmp_path / "a" / "image" / "0001.dcm")
    assert [(s.SegmentNumber, s.SegmentLabel) for s in labels.SegmentSequence] == [
        (1, "outer"),
        (2, "inner"),
        (3, "nowhere"),
    ]
    assert labels.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue == "LABEL_4"
    for key in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDescription"):
        assert labels.get(key) == image.get(key), key
    assert labels.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID


def test_whole_numbers_are_kept_and_channels_share_a_study(tmp_path: Path) -> None:
    scan = made_up(grid_of(np.eye(3)), channels=("T1", "FLAIR"))
    whole = scan.images[0].with_data((np.arange(scan.labels.data.size).reshape(1, *SHAPE) - 100).astype(np.float32))
    given = {**vars(scan), "images": [whole, scan.images[1]]}
    write_synthetic(tmp_path, SyntheticScan(**given))
    again = io.read(tmp_path / "image").resample(whole.grid, order=0)
    np.testing.assert_array_equal(again.data, whole.data)
    first, second = (dcmread(tmp_path / name / "0001.dcm") for name in ("image", "image-2"))
    assert (first.SeriesDescription.split(",")[0], second.SeriesNumber) == ("SYNTHETIC medgen T1", 2)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_a_sheared_grid_is_refused() -> None:
    sheared = np.eye(3)
    sheared[0, 2] = 0.1
    with pytest.raises(GeometryError, match="syn-0001: expected axes at right angles"):
        made_up(grid_of(sheared))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["MR", "CT", "OT"])
def test_dciodvfy_finds_no_error(modality: str, tmp_path: Path) -> None:
    files = write_synthetic(tmp_path, made_up(grid_of(TURNS["oblique"]), modality))
    for path in (files[0], files[-1]):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert said
        wrong = [line for line in said.splitlines() if line.startswith("Error")]
        assert [line for line in wrong if _YOUNGER not in line] == []
        # Nothing else is wrong with it where the validator does not know that attribute.
        item: Dataset = dcmread(path)
        del item.SyntheticData
        item.save_as(tmp_path / "without.dcm")
        said = subprocess.run(
            ["dciodvfy", str(tmp_path / "without.dcm")], capture_output=True, text=True, check=False
        ).stderr
        assert "Error" not in said
