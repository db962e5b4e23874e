"""Objects without a scan's pixels never stop the scan beside them: whole or damaged, with a file header or without."""

import numpy as np
import pytest
from pydicom import dcmread, uid

from medgen import io
from medgen.data.integrity import check
from medgen.faults import FaultyDataError
from medgen.io.dicom.series import dicom_notes
from tests.builders.dicom_folders import STEP, other, series, voxels

OBJECTS = {
    "RTSTRUCT": (uid.RTStructureSetStorage, "RTSTRUCT"),
    "RTPLAN": (uid.RTPlanStorage, "RTPLAN"),
    "SR": (uid.BasicTextSRStorage, "SR"),
    "PR": (uid.GrayscaleSoftcopyPresentationStateStorage, "PR"),
    "KO": (uid.KeyObjectSelectionDocumentStorage, "KO"),
    "REG": (uid.SpatialRegistrationStorage, "REG"),
    "RAW": (uid.RawDataStorage, "MR"),
}


def headless(path):
    """The data set alone, as some planning systems write it."""
    content = path.read_bytes()
    path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("state", ["whole", "without file header", "cut off", "without series"])
def test_the_scan_is_read(tmp_path, kind, state):
    folder = series(tmp_path / "scan")
    name = "100.dcm"  # named as the slices are
    other(folder, name, *OBJECTS[kind])
    path = folder / name
    if state == "without file header":
        headless(path)
        assert path.read_bytes()[128:132] != b"DICM"
    elif state == "cut off":
        path.write_bytes(path.read_bytes()[:420])
    elif state == "without series":
        item = dcmread(path)
        del item.SeriesInstanceUID
        item.save_as(path)
    volume = io.read(folder)
    np.testing.assert_array_equal(volume.data[0], voxels().transpose(2, 1, 0))
    assert check(folder).faults == []
    assert any(note.startswith("left out 1 ") and note.endswith("which are no scan") for note in dicom_notes(folder))


def test_a_slice_without_file_header_still_stops_the_series(tmp_path):
    folder = series(tmp_path / "scan")
    headless(folder / "003.dcm")
    with pytest.raises(FaultyDataError, match="without its file header"):
        io.read(folder)


@pytest.mark.parametrize("decimals", [1, 2])
@pytest.mark.parametrize("step", [1.25, 0.625, 2.3437, 3.3, 4.95])
@pytest.mark.parametrize("turn", [0.0, 17.3])
def test_rounded_positions_are_regular(tmp_path, decimals, step, turn):
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    orientation = (1, 0, 0, 0, cosine, sine)
    normal = np.array([0, -sine, cosine]) * step
    data = voxels(slices=24)

    def edit(index, item):
        item.ImagePositionPatient = [round(float(value), decimals) for value in item.ImagePositionPatient]

    volume = io.read(series(tmp_path / "scan", edit, data=data, orientation=orientation, step=normal))
    np.testing.assert_array_equal(volume.data[0], data.transpose(2, 1, 0))
    assert volume.grid.spacing[2] == pytest.approx(step, abs=2 * 10.0**-decimals / 23)
    # What can be read can be written: rounding has not sheared the grid.
    io.write(volume, tmp_path / "copy.nii.gz")


def test_gaps_that_rounding_does_not_explain_are_refused_with_advice(tmp_path):
    def uneven(index, item):
        # Written to 0.1 mm, too, but a slice is 0.4 mm too low.
        item.ImagePositionPatient = [0, 0, round(2.5 * index + (0.4 if index == 3 else 0), 1)]

    with pytest.raises(FaultyDataError, match=r"irregular spacing.*export it with even spacing, or resample"):
        io.read(series(tmp_path / "uneven", uneven))
    with pytest.raises(FaultyDataError, match=r"1 missing\?.*add the missing slices$"):
        io.read(series(tmp_path / "hole", lambda index, item: index != 3))


def test_drifting_steps_are_not_rounding(tmp_path):
    def growing(index, item):
        item.ImagePositionPatient = [0, 0, round(STEP * index + 0.05 * index**2, 1)]

    with pytest.raises(FaultyDataError, match="irregular spacing"):
        io.read(series(tmp_path / "scan", growing, data=voxels(slices=12)))
