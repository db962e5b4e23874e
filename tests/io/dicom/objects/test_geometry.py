"""Objects lie where their series lies, voxel by voxel, however it is turned, mirrored, ordered or named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from medgen import io
from medgen.errors import DataError
from medgen.io.dicom.objects.scored import Place, ScoredScan
from medgen.io.dicom.objects.source import SourceSeries
from medgen.io.dicom.objects.wanted import KINDS
from medgen.io.dicom.objects.write import write_objects

# Slices, rows and columns that differ, and no number of pixels that fills bytes.
SHAPE = (6, 7, 9)
SPACING = (0.75, 0.5)
STEP = 2.5
_C, _S = np.cos(0.3), np.sin(0.3)
TURNS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "mirrored rows": (-1, 0, 0, 0, 1, 0),
    "mirrored columns": (1, 0, 0, 0, -1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (_C, _S, 0, -_S * _C, _C * _C, _S),
}
# One voxel of every place, (file, row, column): no two coordinates agree, none is in the middle.
VOXELS = ((1, 5, 2), (4, 0, 7))


def world(dataset: Dataset, row: int, column: int, frame: int | None = None) -> NDArray[np.float64]:
    """Where a pixel lies (LPS+ mm) by the equation of PS3.3 C.7.6.2.1.1, from the raw header."""
    if frame is None:
        position, orientation, spacing = (
            dataset.ImagePositionPatient,
            dataset.ImageOrientationPatient,
            dataset.PixelSpacing,
        )
    else:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        position = dataset.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0].ImagePositionPatient
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    return np.array(position, float) + across * float(spacing[1]) * column + down * float(spacing[0]) * row


def written(series: Path, points: list[NDArray[np.float64]], out: Path) -> tuple[ScoredScan, dict[str, Path]]:
    """Objects of a scan with one voxel for each point (LPS+ mm), whose heat tells every voxel from all others."""
    scan = io.read(series)
    regions = np.zeros(scan.data.shape, np.int16)
    for number, point in enumerate(points, start=1):
        voxel = scan.grid.to_voxel(point * (-1, -1, 1))
        assert np.abs(voxel - voxel.round()).max() < 1e-4
        regions[0, *voxel.round().astype(int)] = number
    heat = np.arange(regions.size, dtype=np.float32).reshape(regions.shape) / 50 - 1
    heat[0, 0], heat[0, -1, -1, -1] = np.nan, np.nan
    places = [Place(n, f"Finding {n}", "left, deep", 5.0 + n, 0.25 * n, 0.1 * n, 0.02 * n) for n in (1, 2)]
    scored = ScoredScan(
        scan, (0, 200), scan.with_data(heat), scan.with_data(regions), places, 4.5, "", "ab" * 32, "vae", "1"
    )
    files = write_objects(out, series, scored, KINDS)
    return scored, {path.relative_to(out).as_posix(): path for path in files}


def check(series: Path, points: list[NDArray[np.float64]], sources: list[str], out: Path) -> None:
    scored, files = written(series, points, out)
    seg, pmap = dcmread(files["seg.dcm"]), dcmread(files["pmap.dcm"])
    # One voxel of every place, where it was and on the frame it was taken from.
    for number, (point, uid) in enumerate(zip(points, sources, strict=True), start=1):
        hot = [
            (frame, *pixel)
            for frame, group in enumerate(seg.PerFrameFunctionalGroupsSequence)
            if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
            for pixel in np.argwhere(seg.pixel_array[frame])
        ]
        assert len(hot) == 1
        frame, row, column = hot[0]
        np.testing.assert_allclose(world(seg, row, column, frame), point, atol=1e-6)
        derived = seg.PerFrameFunctionalGroupsSequence[frame].DerivationImageSequence[0].SourceImageSequence
        assert [item.ReferencedSOPInstanceUID for item in derived] == [uid]
    # Every heat at its place: the value at each pixel's world position, looked up in the heatmap.
    values = np.frombuffer(pmap.FloatPixelData, "<f4").reshape(-1, pmap.Rows, pmap.Columns)
    assert len(values) == scored.heatmap.grid.shape[2]
    corners = [world(pmap, row, column, frame) for frame, row, column in np.ndindex(values.shape)]
    voxels = scored.heatmap.grid.to_voxel(np.array(corners) * (-1, -1, 1))
    np.testing.assert_allclose(voxels, voxels.round(), atol=1e-4)
    expected = scored.heatmap.data[0][tuple(voxels.round().astype(int).T)]
    stored = values.ravel()
    np.testing.assert_array_equal(stored[~np.isnan(expected)], expected[~np.isnan(expected)])
    assert set(stored[np.isnan(expected)]) == {pmap.FloatPixelPaddingValue}
    assert pmap.FloatPixelPaddingValue < np.nanmin(expected)
    # Frames ascend along the normal.
    orientation = pmap.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(orientation[:3], orientation[3:])
    heights = [world(pmap, 0, 0, frame) @ normal for frame in range(len(values))]
    assert np.diff(heights) == pytest.approx(STEP, abs=1e-4)
    # highdicom's own reading of both, as volumes in its own order of axes.
    heat = highdicom.pm.ParametricMap.from_file(files["pmap.dcm"]).get_volume()
    scored_segment = highdicom.seg.segread(files["seg.dcm"]).get_volume(segment_numbers=[3])
    for volume, truth in ((heat, scored.heatmap.data[0]), (scored_segment, ~np.isnan(scored.heatmap.data[0]))):
        index = np.argwhere(np.ones(volume.spatial_shape, bool))
        place = (index @ volume.affine[:3, :3].T + volume.affine[:3, 3]) * (-1, -1, 1)
        own = truth[tuple(scored.heatmap.grid.to_voxel(place).round().astype(int).T)]
        read = np.asarray(volume.array).reshape(-1)
        np.testing.assert_array_equal(read[~np.isnan(own)], own[~np.isnan(own)])
    # Captures: the slice of the frame that each refers to, at its place.
    captures = [dcmread(path) for name, path in files.items() if name.startswith("sc/")]
    assert [item.InstanceNumber for item in captures] == list(range(1, len(values) + 1))
    assert np.diff([item.ImagePositionPatient @ normal for item in captures]) == pytest.approx(STEP, abs=1e-4)


@pytest.mark.parametrize("direction", [1, -1], ids=["along", "against"])
@pytest.mark.parametrize("turn", TURNS)
def test_objects_lie_on_their_series_to_the_voxel(
    turn: str, direction: int, tmp_path: Path, make_series: Callable[..., Path]
) -> None:
    orientation = TURNS[turn]
    step = direction * STEP * np.cross(orientation[:3], orientation[3:])
    data = np.random.default_rng(1).integers(0, 200, SHAPE).astype(np.uint16)
    # Names against the order of instances where the stack runs along the normal, and with it where it does not.
    series = make_series(tmp_path / "series", data, orientation=orientation, step=step, spacing=SPACING)
    if direction > 0:
        for index, path in enumerate(sorted(series.iterdir(), reverse=True)):
            path.rename(path.with_name(f"renamed-{index}.dcm"))
    files = sorted((dcmread(path) for path in series.iterdir()), key=lambda item: item.InstanceNumber)
    points = [world(files[index], row, column) for index, row, column in VOXELS]
    check(series, points, [files[index].SOPInstanceUID for index, _, _ in VOXELS], tmp_path / "out")


@pytest.mark.parametrize("everywhere", [False, True], ids=["shared", "in every frame"])
def test_objects_lie_on_the_frames_of_a_multi_frame_file(
    everywhere: bool, tmp_path: Path, make_multiframe: Callable[..., Path]
) -> None:
    data = np.random.default_rng(1).integers(0, 200, SHAPE).astype(np.uint16)
    path = make_multiframe(tmp_path / "series" / "a.dcm", data)
    source = dcmread(path)
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    points = [world(source, row, column, frame) for frame, row, column in VOXELS]
    if everywhere:
        for group in source.PerFrameFunctionalGroupsSequence:
            group.update(source.SharedFunctionalGroupsSequence[0])
        source.SharedFunctionalGroupsSequence = [Dataset()]
    source.save_as(path)
    check(path.parent, points, [source.SOPInstanceUID] * 2, tmp_path / "out")
    seg = dcmread(tmp_path / "out" / "seg.dcm")
    first = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert first.ReferencedFrameNumber == VOXELS[0][0] + 1


def test_another_series_is_refused(tmp_path: Path, make_series: Callable[..., Path]) -> None:
    data = np.zeros(SHAPE, np.uint16)
    data[0, 0, 0] = 1
    scan = io.read(make_series(tmp_path / "a", data))
    for name, changed in {
        "moved": {"origin": (-10.0, 20.5, 30.0)},
        "finer": {"spacing": (0.5, 0.5)},
        "mirrored": {"orientation": (-1, 0, 0, 0, -1, 0), "origin": (-6, 24.5, 30)},
    }.items():
        other = make_series(tmp_path / name, data, **changed)
        with pytest.raises(DataError, match="elsewhere than the scan's voxels"):
            SourceSeries.read(other, scan.grid)
    with pytest.raises(DataError, match="5 frames at 5 slices; expected one for each of 6"):
        SourceSeries.read(make_series(tmp_path / "fewer", data[:5]), scan.grid)
