import numpy as np
import pytest
import SimpleITK as sitk

from medgen import io
from medgen.errors import DataError
from medgen.faults import FaultyDataError
from medgen.volume import Grid, Volume

AFFINE = np.array([[0.0, -1.5, 0, 10], [1, 0, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(0).normal(size=(1, 20, 24, 28)).astype(np.float32), Grid((20, 24, 28), AFFINE))


def refusal(path) -> str:
    with pytest.raises(FaultyDataError) as caught:
        io.read(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path, volume, suffix, channels):
    data = np.repeat((volume.data * 100).astype(np.int16), channels, axis=0)
    data[-1] += channels
    io.write(volume.with_data(data), tmp_path / f"a{suffix}")
    back = io.read(tmp_path / f"a{suffix}")
    assert back.data.dtype == np.int16
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_allclose(back.grid.affine, AFFINE, atol=1e-9)


def test_same_world_as_nifti_through_itk(tmp_path, volume):
    """SimpleITK itself converts the NIfTI: an independent witness of LPS and RAS."""
    io.write(volume, tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "b.mhd"))
    back = io.read(tmp_path / "b.mhd")
    assert back.grid.same_as(volume.grid, 1e-4)
    np.testing.assert_array_equal(back.data, volume.data)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_truncated_and_damaged(tmp_path, volume, suffix, compressed):
    path = tmp_path / f"a{suffix}"
    io.write(volume, path)
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path), useCompression=compressed)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    refusal(path)
    if compressed:
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        assert "damaged" in refusal(path)


def test_refused(tmp_path, volume):
    io.write(volume, tmp_path / "a.nrrd")
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(content.replace(b"space: left-posterior-superior\n", b""))
    refusal(tmp_path / "b.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6), np.float32)), str(tmp_path / "flat.mha"))
    assert "3D image" in refusal(tmp_path / "flat.mha")
    data = volume.data.copy()
    data[0, 0, 0, 0] = np.nan
    io.write(volume.with_data(data), tmp_path / "nan.mha")
    assert "1 NaN voxels" in refusal(tmp_path / "nan.mha")
    assert np.isnan(io.read(tmp_path / "nan.mha", allow_nan=True).data).sum() == 1
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.4
    with pytest.raises(DataError, match="sheared"):
        io.write(Volume(volume.data, Grid(volume.grid.shape, sheared)), tmp_path / "c.nrrd")
