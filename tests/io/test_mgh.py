"""MGH and MGZ files: what nibabel writes is read in the same place, and nothing damaged is."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgen import io
from medgen.data.cases import sha256_of
from medgen.data.layouts.detect import load_cohort
from medgen.faults import FaultyDataError

SHAPE = (11, 9, 7)


def affine():
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", [12, -7, 30], degrees=True).as_matrix()
    matrix[:3, :3] = turn[:, [0, 2, 1]] * [-1, 1, -1] * [1.0, 0.8, 1.3]
    matrix[:3, 3] = [31, -22, 17]
    return matrix


def saved(path, dtype="int16", shape=SHAPE):
    data = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    nib.save(nib.MGHImage(data, affine()), path)
    return data


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_voxels_and_places_are_those_of_nibabel(tmp_path, dtype, suffix):
    path = tmp_path / f"scan{suffix}"
    data = saved(path, dtype)
    volume = io.read(path)
    assert volume.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.data[0], data)
    np.testing.assert_allclose(volume.grid.affine, affine(), atol=1e-4)
    assert io.is_image(path)
    assert io.stem(path) == "scan"


def test_frames_are_channels_only_where_declared(tmp_path):
    data = saved(tmp_path / "scan.mgz", shape=(*SHAPE, 3))
    with pytest.raises(FaultyDataError, match="4D image of 3 volumes"):
        io.read(tmp_path / "scan.mgz")
    volume = io.read(tmp_path / "scan.mgz", multichannel=True)
    np.testing.assert_array_equal(volume.data, np.moveaxis(data, 3, 0))


def test_a_scale_of_commands_behind_the_voxels_is_no_fault(tmp_path):
    path = tmp_path / "scan.mgz"
    data = saved(path)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + struct.pack(">5f", 1, 2, 3, 4, 5) + b"tags"))
    np.testing.assert_array_equal(io.read(path).data[0], data)


def put(place, kind, *values):
    return lambda content: content[:place] + struct.pack(kind, *values) + content[place + struct.calcsize(kind) :]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content[:200], "damaged MGH header|not an image"),
        (lambda content: content[:-300], "truncated"),
        (put(20, ">i", 7), "type 7"),
        (put(28, ">h", 0), "no orientation"),
        (put(30, ">3f", 1, 0, 1), "voxel sizes"),
        (put(30, ">3f", 1, float("nan"), 1), "voxel sizes"),
        (put(42, ">3f", 2, 0, 0), "directions of length"),
        (put(42, ">9f", 1, 0, 0, 0.1, 0.995, 0, 0, 0, 1), "sheared"),
        (put(78, ">3f", 1e6, 0, 0), "away from the origin"),
        (put(4, ">4i", 1, 9, 77, 1), "single slice"),
        (put(4, ">4i", 4000, 4000, 900, 1), "truncated"),
    ],
)
@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_damaged_files_are_refused(tmp_path, edit, words, suffix):
    saved(tmp_path / "scan.mgh")
    content = edit((tmp_path / "scan.mgh").read_bytes())
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".mgz" else content)
    with pytest.raises(FaultyDataError, match=words) as caught:
        io.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("place", [-5, -1, 0.5])
def test_a_changed_byte_of_a_packed_file_is_seen(tmp_path, place):
    path = tmp_path / "scan.mgz"
    saved(path)
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(FaultyDataError, match=r"damaged|ends too early|truncated|behind"):
        io.read(path)


def test_voxels_that_are_not_finite_are_refused_or_filled(tmp_path):
    data = np.ones(SHAPE, np.float32)
    data[0, 0, 0] = np.nan
    nib.save(nib.MGHImage(data, affine()), tmp_path / "scan.mgz")
    with pytest.raises(FaultyDataError, match="1 NaN voxels"):
        io.read(tmp_path / "scan.mgz")
    assert io.read(tmp_path / "scan.mgz", fill=5).data[0, 0, 0, 0] == 5


def test_a_cohort_of_mgz_images_and_masks_is_found(tmp_path):
    for number in range(3):
        saved(tmp_path / f"case{number}.mgz")
        mask = (np.indices(SHAPE).sum(axis=0) > 10 + number).astype(np.uint8)
        nib.save(nib.MGHImage(mask, affine()), tmp_path / f"case{number}_mask.mgz")
    manifest = load_cohort(tmp_path)
    assert len(manifest) == 3
    for case in manifest:
        image = case.read_image()
        mask = case.read_mask(image)
        assert mask is not None
        assert mask.grid.same_as(image.grid)
        assert len(sha256_of(case.images[0])) == 64
