import time

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medgen import io
from medgen.data.integrity import check
from medgen.data.layouts.detect import load_cohort
from medgen.errors import DataError
from medgen.faults import FaultyDataError
from medgen.io.dicom.series import list_series

TILT = (1, 0, 0, 0, np.cos(np.radians(18.5)), -np.sin(np.radians(18.5)))


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(0, 1000, (5, 6, 8)).astype(np.uint16)


def refusal(path) -> FaultyDataError:
    with pytest.raises(FaultyDataError) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
    return caught.value


def test_axes_and_affine(tmp_path, data, make_series):
    volume = io.read(make_series(tmp_path, data))
    assert volume.data.dtype == np.uint16
    np.testing.assert_array_equal(volume.data[0], data.transpose(2, 1, 0))
    # LPS to RAS: columns 0.5 mm apart run to the left, rows 0.75 mm apart to the back.
    expected = [[-0.5, 0, 0, 10], [0, -0.75, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.grid.affine, expected)


def test_slices_are_ordered_along_the_normal_not_by_name(tmp_path, data, make_series):
    volume = io.read(make_series(tmp_path, data, step=(0, 0, -2.5)))
    np.testing.assert_array_equal(volume.data[0], data[::-1].transpose(2, 1, 0))
    assert volume.grid.affine[2, 3] == pytest.approx(30 - 4 * 2.5)


def test_affine_agrees_with_highdicom(tmp_path, data, make_series):
    import highdicom
    import pydicom

    angle = np.radians(20)
    row, column = (np.cos(angle), np.sin(angle), 0), (0, 0, -1)
    step = np.cross(row, column) * 1.2
    folder = make_series(tmp_path, data, orientation=(*row, *column), step=step)
    volume = io.read(folder)
    other = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))])
    # highdicom's array is (slice, row, column) in LPS, in its own slice order.
    corners = np.array(np.meshgrid([0, 4], [0, 5], [0, 7], indexing="ij")).reshape(3, -1).T
    world = corners @ other.affine[:3, :3].T + other.affine[:3, 3]
    voxels = volume.grid.to_voxel(world * (-1, -1, 1))
    np.testing.assert_allclose(voxels, np.round(voxels), atol=1e-4)
    for (k, j, i), voxel in zip(corners, np.round(voxels).astype(int), strict=True):
        assert other.array[k, j, i] == volume.data[(0, *voxel)]


def test_rescale_per_slice(tmp_path, data, make_series):
    def slope(index, dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1.0 + index, -3.5

    volume = io.read(make_series(tmp_path, data, edit=slope))
    expected = data.transpose(2, 1, 0) * (1.0 + np.arange(5)) - 3.5
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.data[0], expected, rtol=1e-6)


def test_whole_intercepts_stay_integers(tmp_path, data, make_series):
    def intercept(index, dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024

    volume = io.read(make_series(tmp_path, data, edit=intercept))
    assert volume.data.dtype == np.int16
    np.testing.assert_array_equal(volume.data[0], data.transpose(2, 1, 0).astype(int) - 1024)


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_monochrome1(tmp_path, data, modality, make_series):
    def invert(index, dataset):
        dataset.PhotometricInterpretation, dataset.Modality = "MONOCHROME1", modality

    volume = io.read(make_series(tmp_path, data, edit=invert))
    plain = data.transpose(2, 1, 0).astype(int)
    expected = plain if modality == "PT" else plain.max() + plain.min() - plain
    np.testing.assert_array_equal(volume.data[0], expected)


def test_multiframe(tmp_path, data, make_multiframe):
    volume = io.read(make_multiframe(tmp_path / "a.dcm", data))
    expected = data.astype(np.float32) * 0.5 + np.arange(5, dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(volume.data[0], expected[::-1].transpose(2, 1, 0))
    assert volume.grid.affine[2, 3] == pytest.approx(20.0)


def test_several_series_are_listed(tmp_path, data, make_series):
    make_series(tmp_path, data, number=3, names="a{}.dcm")
    make_series(tmp_path / "inner", data[:3] + 1, number=4)
    found = list_series(tmp_path)
    assert [(item.number, item.modality, item.files) for item in found] == [("3", "MR", 5), ("4", "MR", 3)]
    message = str(refusal(tmp_path))
    assert "2 series" in message
    assert "series 3 (MR, 5 files" in message
    assert "series 4 (MR, 3 files" in message


def test_one_file_names_its_series(tmp_path, data, make_series):
    make_series(tmp_path, data, number=3, names="a{}.dcm")
    make_series(tmp_path, data[:3] + 1, number=4, names="b{}.dcm")
    # The UID comes from the folder and the number, so the two series are apart though they share a folder.
    assert io.read(tmp_path / "a2.dcm").data.shape == (1, 8, 6, 5)
    assert io.read(tmp_path / "b0.dcm").data.shape == (1, 8, 6, 3)


def test_missing_slice(tmp_path, data, make_series):
    (make_series(tmp_path, data) / "002.dcm").unlink()
    message = str(refusal(tmp_path))
    assert "irregular spacing" in message
    assert "5.000 mm between 001.dcm and 003.dcm (1 missing?)" in message
    assert "expected 2.500 mm" in message


def test_tilt_and_gaps_are_both_reported(tmp_path, data, make_series):
    def gap(index, dataset):
        if index > 2:
            dataset.ImagePositionPatient[2] += 1.0

    error = refusal(make_series(tmp_path, data, orientation=TILT, edit=gap))
    assert len(error.faults) == 2
    assert "irregular spacing" in error.faults[0].found
    assert "gantry tilt of 18.5 degrees" in error.faults[1].found


def test_duplicates(tmp_path, data, make_series):
    message = str(refusal(make_series(tmp_path, data, step=(0, 0, 0))))
    assert "4 of 5 slices at a position that is already taken" in message


def test_mixed(tmp_path, data, make_series):
    def mix(index, dataset):
        if index == 4:
            dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            dataset.PixelSpacing = [1, 1]
            dataset.Rows, dataset.Columns = 8, 6

    found = " ".join(fault.found for fault in refusal(make_series(tmp_path, data, edit=mix)).faults)
    for words in ("slice sizes", "pixel spacings", "slice orientations"):
        assert words in found


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("no ImagePositionPatient", lambda _, d: d.__delattr__("ImagePositionPatient")),
        ("colour images", lambda _, d: setattr(d, "PhotometricInterpretation", "PALETTE COLOR")),
        ("mosaic", lambda _, d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"])),
        ("no pixels", lambda i, d: d.__delattr__("PixelData") if i == 2 else None),
        ("truncated", lambda i, d: setattr(d, "PixelData", d.PixelData[:10]) if i == 2 else None),
        ("photometric interpretations", lambda i, d: setattr(d, "PhotometricInterpretation", f"MONOCHROME{1 + i % 2}")),
        ("lookup table", lambda _, d: setattr(d, "ModalityLUTSequence", [])),
        ("not perpendicular", lambda _, d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0])),
    ],
)
def test_unusable(tmp_path, data, words, change, make_series):
    assert words in str(refusal(make_series(tmp_path, data, edit=change)))


def test_single_slice_and_no_dicom(tmp_path, data, make_series):
    assert "a single slice" in str(refusal(make_series(tmp_path / "one", data[:1])))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("hello")
    assert "no DICOM images" in str(refusal(tmp_path / "text"))
    with pytest.raises(DataError, match="no such folder"):
        list_series(tmp_path / "nowhere")


def test_every_damaged_file_is_named(tmp_path, data, make_series):
    folder = make_series(tmp_path, data)
    for name in ("001.dcm", "003.dcm"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:300])
    found = str(refusal(folder))
    assert "001.dcm" in found
    assert "003.dcm" in found


def test_truncated_pixels(tmp_path, data, make_series):
    path = make_series(tmp_path, data) / "001.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    assert "001.dcm" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    ("series", "reference"),
    [
        ("ge_anatomical/001", "ge_anatomical/001_ground_truth.nii.gz"),
        ("ge_anatomical/001_implicit", "ge_anatomical/001_implicit_ground_truth.nii.gz"),
        ("failing/slicecount/001", "failing/slicecount/001_ground_truth.nii.gz"),
        ("siemens_multiframe/anatomical/001", "siemens_multiframe/anatomical/001_ground_truth.nii.gz"),
    ],
)
def test_reference_conversions(shared_data, series, reference):
    volume, other = io.read(shared_data / "dicom" / series), io.read(shared_data / "dicom" / reference)
    images = [nib.as_closest_canonical(nib.Nifti1Image(v.data[0], v.grid.affine)) for v in (volume, other)]
    np.testing.assert_array_equal(np.asarray(images[0].dataobj), np.asarray(images[1].dataobj))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in images[0].shape])).reshape(3, -1).T
    world = [nib.affines.apply_affine(image.affine, corners) for image in images]
    assert np.abs(world[0] - world[1]).max() < 0.01


def test_real_long_series(shared_data):
    start = time.process_time()
    volume = io.read(shared_data / "dicom" / "t1_sagittal_384")
    assert volume.data.shape == (1, 274, 384, 384)
    np.testing.assert_allclose(volume.grid.spacing, (0.69999, 0.66667, 0.66667), atol=1e-4)
    assert time.process_time() - start < 20


def test_real_failing(shared_data):
    found = str(refusal(shared_data / "dicom" / "ct_head_tilted"))
    assert "gantry tilt of 18.5 degrees" in found
    assert "irregular spacing" in found
    for name, words in [
        ("gantrytilting/001", "gantry tilt of 14.0"),
        ("notavolume/001", "already taken"),
        ("sliceincrement/001", "irregular spacing"),
        ("sliceorientation/001", "slice orientations"),
    ]:
        assert words in str(refusal(shared_data / "dicom" / "failing" / name))


def test_cohort_of_series_groups_patients(tmp_path, data, make_series):
    def patient(name):
        return lambda _, dataset: setattr(dataset, "PatientID", name)

    for number, name in enumerate(("A", "B", "A")):
        own = np.random.default_rng(number).permutation(data.ravel()).reshape(data.shape)
        make_series(tmp_path / f"p{number}" / "t1", own, number=number, edit=patient(name))
    manifest = load_cohort(tmp_path)
    assert [(case.id, case.subject) for case in manifest] == [
        ("p0-t1", "p0-t1"),
        ("p1-t1", "p1-t1"),
        ("p2-t1", "p0-t1"),
    ]
    assert manifest.cases[0].read_image().data.shape == (1, 8, 6, 5)
    assert len(manifest.digest()) == 64
    assert check(tmp_path).ok
    (tmp_path / "p1" / "t1" / "002.dcm").unlink()
    (fault,) = check(tmp_path).faults
    assert "irregular spacing" in fault.found


def test_check_of_one_series(tmp_path, data, make_series):
    folder = make_series(tmp_path, data)
    assert check(folder).ok
    assert check(folder / "000.dcm").ok


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(132, 1400), st.integers(0, 255)), min_size=1, max_size=3))
@example(changes=[(162, 0)])  # Two classes of object where one belongs.
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_any_damage_gives_an_image_or_one_clear_error(tmp_path_factory, make_series, changes):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    make_series(folder, np.arange(3 * 5 * 6, dtype=np.uint16).reshape(3, 5, 6))
    content = bytearray((folder / "001.dcm").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (folder / "001.dcm").write_bytes(content)
    message = ""
    try:
        io.read(folder)
    except DataError as error:
        message = str(error)
    assert "SECRET" not in message


def padded_series(folder, make_series, modality, stored, pad, **more):
    """A series with a corner of padding; and where it is, (i, j, k)."""
    data = np.random.default_rng(0).integers(100, 1500, (5, 6, 8)).astype(stored)
    data[:, :2, :3] = pad

    def edit(index, item):
        item.Modality = modality
        if modality == "CT":
            item.RescaleSlope, item.RescaleIntercept = 1, -1024
        for name, (kind, value) in more.items():
            item.add_new(name, kind, value)

    where = np.zeros((8, 6, 5), dtype=bool)
    where[:3, :2] = True
    return make_series(folder, data, edit=edit), where


@pytest.mark.parametrize(
    ("stored", "pad", "kind", "value"),
    [("int16", -2000, "SS", -2000), ("int16", -2000, "US", 63536), ("uint16", 63536, "US", 63536)],
)
def test_padding_of_a_tomogram_is_air(tmp_path, make_series, stored, pad, kind, value):
    folder, where = padded_series(tmp_path, make_series, "CT", stored, pad, PixelPaddingValue=(kind, value))
    volume = io.read(folder)
    assert (volume.data[0][where] == -1000).all()
    assert volume.data[0][~where].min() >= 100 - 1024


def test_padding_of_other_images_is_their_darkest_value(tmp_path, make_series):
    folder, where = padded_series(tmp_path, make_series, "MR", "uint16", 60000, PixelPaddingValue=("US", 60000))
    values = io.read(folder).data[0]
    assert (values[where] == values[~where].min()).all()


def test_a_range_of_padding_is_padding(tmp_path, make_series):
    more = {"PixelPaddingValue": ("SS", -3024), "PixelPaddingRangeLimit": ("SS", -1900)}
    folder, where = padded_series(tmp_path, make_series, "CT", "int16", -2000, **more)
    assert (io.read(folder).data[0][where] == -1000).all()


def test_a_padding_value_among_measured_ones_changes_nothing(tmp_path, make_series):
    folder, where = padded_series(tmp_path, make_series, "MR", "uint16", 700, PixelPaddingValue=("US", 700))
    assert (io.read(folder).data[0][where] == 700).all()
