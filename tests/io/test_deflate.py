import gzip
import random
import zlib

import nibabel as nib
import numpy as np
import pytest

from medgen import io
from medgen.faults import FaultyDataError
from medgen.io import deflate, streams
from medgen.volume import Grid, Volume

isal_zlib = pytest.importorskip("isal.isal_zlib")
VALUES = np.random.default_rng(0).normal(100, 30, (1, 30, 31, 32))


@pytest.fixture
def without(monkeypatch):
    """A machine on which isal is not installed."""
    monkeypatch.setattr(deflate, "isal", lambda: None)


def scan(dtype):
    return Volume(VALUES.astype(dtype), Grid(VALUES.shape[1:], np.diag([-1.0, 1.0, 2.0, 1.0])))


def outcome(path):
    """What reading gives: values, or the line that refuses them without the unpacker's own words."""
    try:
        return io.read(path).data.tobytes()
    except FaultyDataError as error:
        return str(error).partition(" (")[0]


def test_missing_package_is_none(monkeypatch):
    import sys

    deflate.isal.cache_clear()
    monkeypatch.setitem(sys.modules, "isal", None)
    try:
        assert deflate.isal() is None
        assert gzip.decompress(deflate.packed(b"content")) == b"content"
        assert deflate.damage() == (zlib.error,)
    finally:
        deflate.isal.cache_clear()


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_written_without_isal_as_before(tmp_path, without, dtype):
    io.write(scan(dtype), tmp_path / "a.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == gzip.compress(gzip.decompress(content), 1, mtime=0)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_others_read_the_same_however_it_was_packed(tmp_path, monkeypatch, dtype):
    io.write(scan(dtype), tmp_path / "fast.nii.gz")
    io.write(scan(dtype), tmp_path / "again.nii.gz")
    monkeypatch.setattr(deflate, "isal", lambda: None)
    io.write(scan(dtype), tmp_path / "plain.nii.gz")
    fast, again, plain = ((tmp_path / f"{name}.nii.gz").read_bytes() for name in ("fast", "again", "plain"))
    assert fast == again
    assert fast != plain
    assert fast[4:8] == bytes(4)  # no time
    assert not fast[3]  # no name
    assert gzip.decompress(fast) == gzip.decompress(plain)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "fast.nii.gz").dataobj), scan(dtype).data[0])


def test_size_is_that_of_nibabel(tmp_path):
    smooth = np.cumsum(np.random.default_rng(1).integers(-3, 4, (1, 64, 64, 64)), axis=3).astype(np.int16)
    volume = Volume(smooth, Grid(smooth.shape[1:], np.eye(4)))
    io.write(volume, tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(smooth[0], np.eye(4)), tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").stat().st_size <= 1.05 * (tmp_path / "b.nii.gz").stat().st_size


def test_memory_order_does_not_matter(tmp_path):
    one = scan("f4")
    other = one.with_data(np.asfortranarray(one.data))
    two = one.with_data(np.concatenate([one.data, one.data + 1]))
    io.write(one, tmp_path / "a.nii.gz")
    io.write(other, tmp_path / "b.nii.gz")
    io.write(two, tmp_path / "c.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    expected = np.moveaxis(two.data, 0, 3)[:, :, :, None]
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "c.nii.gz").dataobj), expected)


def damaged(content: bytes, draw: random.Random) -> bytes:
    bad = bytearray(content)
    kind = draw.choice(["flip", "header", "trailer", "cut", "insert", "junk", "zeros", "twice", "members", "named"])
    if kind in ("flip", "header", "trailer"):
        place = {"flip": draw.randrange(len(bad)), "header": draw.randrange(10), "trailer": -1 - draw.randrange(8)}[
            kind
        ]
        bad[place] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del bad[draw.randrange(2, len(bad)) :]
    elif kind == "insert":
        bad.insert(draw.randrange(len(bad)), draw.randrange(256))
    elif kind == "junk":
        bad += draw.randbytes(draw.randrange(1, 30))
    elif kind == "zeros":
        bad += bytes(draw.randrange(1, 30))
    elif kind == "twice":
        bad += content
    elif kind == "members":
        raw, cut = gzip.decompress(content), draw.randrange(1, 3000)
        bad = bytearray(gzip.compress(raw[:cut], mtime=0) + gzip.compress(raw[cut:], mtime=0))
    else:
        bad[3:4] = b"\x08"
        bad[10:10] = b"scan.nii\0"
    return bytes(bad)


@pytest.mark.parametrize("piece", [1 << 16, 61])
def test_damage_is_refused_as_without_isal(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(streams, "_IN", piece)
    io.write(scan("i2"), tmp_path / "good.nii.gz")
    content, path, draw = (tmp_path / "good.nii.gz").read_bytes(), tmp_path / "a.nii.gz", random.Random(piece)
    fast = deflate.isal
    found = set()
    for _ in range(150):
        path.write_bytes(damaged(content, draw))
        monkeypatch.setattr(deflate, "isal", fast)
        one = outcome(path)
        monkeypatch.setattr(deflate, "isal", lambda: None)
        assert one == outcome(path)
        assert isinstance(one, bytes) or "\n" not in one
        found.add(type(one))
    assert found == {bytes, str}


def test_large_files_are_unpacked_in_pieces(tmp_path, monkeypatch):
    io.write(scan("f4"), tmp_path / "a.nii.gz")
    monkeypatch.setattr(streams, "_WHOLE", 100)
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii.gz").data, scan("f4").data)


def test_values_whose_sum_overflows_are_finite(tmp_path):
    large = np.full((1, 4, 4, 4), 3e38, np.float32)
    io.write(Volume(large, Grid((4, 4, 4), np.eye(4))), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii.gz").data, large)
