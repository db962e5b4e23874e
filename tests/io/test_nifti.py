import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgen import io
from medgen.errors import DataError
from medgen.faults import FaultyDataError
from medgen.volume import Grid, Volume
from tests.builders.nifti_files import rotated

OBLIQUE = rotated(10, -20, 30, zooms=(0.9, 1.1, 2.9), origin=(-40.5, 17.25, 3.125)).astype(np.float32).astype(float)


@pytest.fixture
def volume():
    data = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    return Volume(data, Grid((5, 6, 7), OBLIQUE))


def refusal(path, **options) -> str:
    with pytest.raises(FaultyDataError) as caught:
        io.read(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def edited(path, volume, **fields):
    """A valid file whose header fields are then overwritten."""
    io.write(volume, path)
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip_is_exact(tmp_path, dtype, suffix):
    data = np.random.default_rng(1).integers(0, 100, (1, 3, 4, 5)).astype(dtype)
    io.write(Volume(data, Grid((3, 4, 5), OBLIQUE)), tmp_path / f"a{suffix}", description="medgen test")
    back = io.read(tmp_path / f"a{suffix}")
    assert back.data.dtype == data.dtype
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_array_equal(back.grid.affine, OBLIQUE)


def test_nibabel_reads_the_same(tmp_path, volume):
    io.write(volume, tmp_path / "a.nii.gz", description="medgen heatmap")
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), volume.data[0])
    np.testing.assert_array_equal(image.affine, OBLIQUE)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert bytes(image.header["descrip"].item()).startswith(b"medgen heatmap")
    np.testing.assert_allclose(image.header.get_zooms(), volume.grid.spacing, rtol=1e-6)


def test_writing_is_deterministic_and_atomic(tmp_path, volume):
    io.write(volume, tmp_path / "a.nii.gz")
    io.write(volume, tmp_path / "other" / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "other" / "b.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "other"]
    with pytest.raises(DataError, match="unknown suffix"):
        io.write(volume, tmp_path / "a.jpg")


def test_booleans_and_long_integers(tmp_path, volume):
    io.write(volume.with_data(volume.data > 0), tmp_path / "a.nii")
    assert io.read(tmp_path / "a.nii").data.dtype == np.uint8
    io.write(volume.with_data(np.full((1, 5, 6, 7), 70000)), tmp_path / "a.nii")
    assert io.read(tmp_path / "a.nii").data.dtype == np.int32


def test_nan_is_kept_and_must_be_asked_for(tmp_path, volume):
    data = volume.data.copy()
    data[0, 1, 2, 3] = np.nan
    io.write(volume.with_data(data), tmp_path / "a.nii.gz")
    assert "1 NaN voxels" in refusal(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii.gz", allow_nan=True).data, data)
    data[0, 0, 0, 0] = np.inf
    io.write(volume.with_data(data), tmp_path / "a.nii.gz")
    assert "1 NaN voxels and 1 infinite voxels" in refusal(tmp_path / "a.nii.gz")


def test_several_channels(tmp_path, volume):
    data = np.concatenate([volume.data, volume.data * 2, -volume.data])
    io.write(volume.with_data(data), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii.gz").data, data)
    nib.Nifti1Image(np.moveaxis(data, 0, 3), OBLIQUE).to_filename(tmp_path / "time.nii")
    assert "a 4D image of 3 volumes" in refusal(tmp_path / "time.nii")
    np.testing.assert_array_equal(io.read(tmp_path / "time.nii", multichannel=True).data, data)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_sform_and_qform_agree_for_any_rotation(tmp_path_factory, seed, flip):
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn = (
        Rotation.random(random_state=rng) if seed % 3 else Rotation.from_euler("xyz", [np.pi, 0, rng.normal() * 1e-3])
    )
    affine[:3, :3] = turn.as_matrix() * rng.uniform(0.3, 4, 3) * (1, 1, -1 if flip else 1)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    path = tmp_path_factory.mktemp("any") / "a.nii"
    shape = tuple(rng.integers(2, 40, 3).tolist())
    io.write(Volume(np.zeros((1, *shape), np.uint8), Grid(shape, affine)), path)
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    np.testing.assert_array_equal(io.read(path).grid.affine, affine.astype(np.float32))


def test_sheared_grids_are_not_written(tmp_path, volume):
    affine = OBLIQUE.copy()
    affine[:3, 1] += 0.1 * affine[:3, 0]
    with pytest.raises(FaultyDataError, match="sheared"):
        io.write(Volume(volume.data, Grid(volume.grid.shape, affine)), tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())


def test_nifti2_big_endian_and_scaled(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.Nifti2Image(data, np.eye(4)).to_filename(tmp_path / "two.nii")
    np.testing.assert_array_equal(io.read(tmp_path / "two.nii").data[0], data)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape(data.shape)
    header.set_sform(np.eye(4), code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = 2.0, 1.5
    content = header.binaryblock + bytes(4) + data.astype(">i2").tobytes(order="F")
    (tmp_path / "big.nii").write_bytes(content)
    back = io.read(tmp_path / "big.nii")
    assert back.data.dtype == np.float32
    np.testing.assert_array_equal(back.data[0], data * 2.0 + 1.5)


def test_content_decides_not_the_suffix(tmp_path, volume):
    io.write(volume, tmp_path / "a.nii.gz")
    renamed = (tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    np.testing.assert_array_equal(io.read(renamed).data, volume.data)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated(tmp_path, volume, share, suffix):
    path = tmp_path / f"a{suffix}"
    io.write(volume, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path)


def test_bit_flips_in_gzip_are_found(tmp_path, volume):
    path = tmp_path / "a.nii.gz"
    io.write(volume, path)
    content = path.read_bytes()
    for place in (len(content) // 2, len(content) - 6):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert any(word in refusal(path) for word in ("damaged", "more bytes", "truncated"))


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("voxel sizes [0.0", {"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}),
        ("voxel sizes [-1.0", {"pixdim": [1, -1, 1, 1, 1, 1, 1, 1]}),
        ("voxel sizes [nan", {"pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]}),
        ("singular", {"srow_x": [0, 0, 0, 0]}),
        ("an sform of [[nan", {"srow_x": [np.nan, 0, 0, 0]}),
        ("left and right are unknown", {"sform_code": 0, "qform_code": 0}),
        ("sform and qform disagree", {"qform_code": 1, "quatern_b": 0.5}),
        ("invalid qform quaternion", {"qform_code": 1, "quatern_b": 1.5}),
        ("micrometre", {"xyzt_units": 3}),
        ("colours", {"datatype": 128, "bitpix": 24}),
        ("complex64 data", {"datatype": 32, "bitpix": 64}),
        ("unknown data type", {"datatype": 77}),
        ("a single slice", {"dim": [3, 5, 42, 1, 1, 1, 1, 1]}),
        ("a single slice", {"dim": [2, 5, 42, 1, 1, 1, 1, 1]}),
        ("invalid dimensions", {"dim": [3, 5, -6, 7, 1, 1, 1, 1]}),
        ("invalid dimensions", {"dim": [0, 5, 6, 7, 1, 1, 1, 1]}),
        ("5D image", {"dim": [5, 5, 3, 7, 1, 2, 1, 1]}),
        ("truncated", {"dim": [3, 5, 6, 700, 1, 1, 1, 1]}),
        ("said to start at byte 0", {"vox_offset": 0}),
        ("scale inf", {"scl_slope": np.inf}),
        ("ANALYZE", {"magic": b""}),
        ("header and image pair", {"magic": b"ni1"}),
    ],
)
def test_faulty_headers(tmp_path, volume, words, fields):
    assert words in refusal(edited(tmp_path / "a.nii", volume, **fields))


def test_not_an_image(tmp_path):
    for name, content in (("a.nii", b"hello world" * 100), ("b.nii.gz", gzip.compress(b"hello")), ("c.nii", b"")):
        (tmp_path / name).write_bytes(content)
        refusal(tmp_path / name)
    assert "no such file" in refusal(tmp_path / "absent.nii.gz")


def test_names(tmp_path, volume):
    io.write(volume, tmp_path / "a.nii.gz")
    (tmp_path / ".hidden.nii.gz").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    assert [io.is_image(tmp_path / name) for name in ("a.nii.gz", ".hidden.nii.gz", "notes.txt", "absent.nii")] == [
        True,
        False,
        False,
        False,
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_any_header_gives_an_image_or_one_clear_error(tmp_path_factory, changes, second):
    path = tmp_path_factory.getbasetemp() / "fuzz.nii"
    cls = nib.Nifti2Image if second else nib.Nifti1Image
    content = bytearray(cls(np.zeros((3, 4, 5), np.int16), np.eye(4)).to_bytes())
    for place, value in changes:
        content[place] = value
    path.write_bytes(content)
    try:
        volume = io.read(path)
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert np.isfinite(volume.data).all()
    assert "\n" not in message


@pytest.mark.parametrize("degrees", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("qform", [0, 1])
def test_a_shear_that_is_rounding_is_read_with_a_qform_and_without(tmp_path, degrees, qform):
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[0, 1] = 1.5 * np.sin(np.radians(degrees))
    image = nib.Nifti1Image(np.arange(20 * 22 * 18, dtype=np.int16).reshape(20, 22, 18), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, qform, strip_shears=True)
    image.header["scl_slope"], image.header["scl_inter"] = 1, 0
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(io.read(tmp_path / "scan.nii").grid.affine, affine, atol=1e-5)


def test_a_qform_that_shear_does_not_explain_is_still_refused(tmp_path):
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[0, 1] = 1.5 * np.sin(np.radians(0.02))
    other = affine.copy()
    other[:3, :3] = np.array([[1, -0.01, 0], [0.01, 1, 0], [0, 0, 1]]) * 1.5
    image = nib.Nifti1Image(np.ones((20, 22, 18), dtype=np.int16), affine)
    image.set_sform(affine, 1)
    image.set_qform(other, 1, strip_shears=True)
    image.header["scl_slope"], image.header["scl_inter"] = 1, 0
    nib.save(image, tmp_path / "scan.nii")
    with pytest.raises(DataError, match="sform and qform disagree"):
        io.read(tmp_path / "scan.nii")
