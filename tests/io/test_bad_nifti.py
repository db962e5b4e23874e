"""Every way of being wrong is refused with the file's name and a reason; every unusual but sound one is read right."""

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from medgen import io
from medgen.data.integrity import check
from medgen.errors import DataError
from tests.builders import nifti_files, odd_nifti_files
from tests.builders.nifti_files import DATA, NAN, file, nifti
from tests.builders.refusals import assert_refused

BAD, ODD = nifti_files.bad(), odd_nifti_files.odd()


@pytest.mark.parametrize("name", BAD)
@pytest.mark.timeout(20)
def test_refused(tmp_path, name):
    path = BAD[name](tmp_path)
    assert_refused(path)


@pytest.mark.parametrize("name", ODD)
def test_accepted(tmp_path, name):
    make, values, affine = ODD[name]
    path = make(tmp_path)
    volume = io.read(path)
    np.testing.assert_allclose(volume.grid.affine, affine, rtol=1e-6, atol=1e-3)
    if values is not None:
        np.testing.assert_allclose(volume.data[0], values, rtol=1e-6)
        assert volume.grid.shape == values.shape
    assert check(path).ok
    if path.name.endswith((".nii", ".nii.gz")) and volume.data[0].ndim == 3:
        content = path.read_bytes()
        packed = content[:2] == b"\x1f\x8b"
        # nibabel takes the zeros behind an extension for another one.
        known = packed == path.name.endswith(".gz") and name != "extension-then-zeros"
        witness = nib.load(path) if known else None
        if witness is not None:
            np.testing.assert_allclose(witness.affine, volume.grid.affine, rtol=1e-6, atol=1e-3)
            np.testing.assert_allclose(np.squeeze(witness.get_fdata()), volume.data[0], rtol=1e-6)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    paths = {}
    for name, make in nifti_files.bombs().items():
        paths[name] = make(tmp_path_factory.mktemp("bomb"))
    return paths


def test_bombs_are_refused_at_once_and_without_memory(bombs):
    # In a process of its own, whose memory nothing else has raised.
    code = """
import resource, sys, time
from medgen import io
from medgen.errors import DataError
from medgen.data.integrity import check
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
for path in sys.argv[1:]:
    before, start = peak(), time.perf_counter()
    faults = check(path).faults
    named = len(faults) == 1 and faults[0].file == path
    print(named, peak() - before, time.perf_counter() - start, faults[0].found, sep=";")
"""
    words = {"gzip-goes-on": "more bytes", "gzip-as-promised": "compression bomb", "gzip-as-promised-nii": "bomb"}
    paths = [str(path) for path in bombs.values()]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    for name, line in zip(bombs, done.stdout.splitlines(), strict=True):
        named, mebibytes, seconds, found = line.split(";")
        assert named == "True", name
        assert words.get(name, "") in found
        assert int(mebibytes) < 100, (name, mebibytes)
        assert float(seconds) < 1, (name, seconds)


def test_out_of_memory_is_said(tmp_path):
    # 800 MiB of address space are free, the scan takes 2 GiB unpacked and is as large on disk as it says.
    path = tmp_path / "large.nii"
    with path.open("wb") as out:
        out.write(nifti(dim=[3, 1024, 1024, 1024, 1, 1, 1, 1], srow_x=[-2, 0, 0, 10])[:352])
        out.truncate(352 + 2 * 1024**3)
    code = """
import resource, sys
from medgen import io
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (800 << 20), used + (800 << 20)))
try:
    io.read(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert f"FaultyDataError {path}: an image that takes 2.0 GiB in memory" in done.stdout


def test_too_large_for_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("medgen.io.streams.available_memory", lambda: 0.05)
    path = file(nifti(np.zeros((512, 512, 300), np.uint8)))(tmp_path)
    with pytest.raises(DataError, match=r"takes 0\.1 GiB in memory; expected at most the 0\.1 GiB that are free"):
        io.read(path)


def test_unreadable_file(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = file(nifti())(tmp_path)
    path.chmod(0)
    assert "Permission denied" in check(path).faults[0].found


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    from medgen.io import streams

    path = file(nifti())(tmp_path)
    real = streams.Stream.finish

    def grown(self, expected):
        with path.open("ab") as out:
            out.write(b"more")
        real(self, expected)

    monkeypatch.setattr(streams.Stream, "finish", grown)
    with pytest.raises(DataError, match="more bytes than the header says"):
        io.read(path)


def test_filling_is_asked_for(tmp_path):
    values = DATA.astype(np.float32)
    values[0, :2, 0], values[3, 3, 3] = NAN, -np.inf
    path = file(nifti(values))(tmp_path)
    with pytest.raises(DataError, match="2 NaN voxels and 1 infinite voxels"):
        io.read(path)
    data = io.read(path, fill=-1).data[0]
    np.testing.assert_array_equal(data, np.where(np.isfinite(values), values, -1))
    values[:] = NAN
    with pytest.raises(DataError, match="which is all of them") as told:
        io.read(file(nifti(values))(tmp_path), fill=0)
    assert "replace them" not in str(told.value)


@pytest.mark.parametrize("slope", [1e300, -1e39, 1e-40])
def test_a_scale_that_single_precision_cannot_hold_is_refused(tmp_path, slope):
    with pytest.raises(
        DataError, match=r"a scale \(scl_slope\) of .*; expected a number that single precision can hold"
    ):
        io.read(file(nifti(version=2, scl_slope=slope, scl_inter=0))(tmp_path))


@pytest.mark.parametrize("slope", [0, NAN])
def test_a_lost_scale_can_be_declared(tmp_path, slope):
    path = file(nifti(scl_slope=slope, scl_inter=7))(tmp_path)
    with pytest.raises(DataError, match="scl_slope"):
        io.read(path)
    np.testing.assert_array_equal(io.read(path, unscaled=True).data[0], DATA)


def test_chunks_end_anywhere(tmp_path, monkeypatch):
    # The seams of reading in pieces lie inside headers, members, checksums and padding.
    from medgen.io import streams

    for size in (2, 3, 17):
        monkeypatch.setattr(streams, "_IN", size)
        monkeypatch.setattr(streams, "_OUT", size + 4)
        for name in ("gz-many-members", "gz-padded", "gz-with-names", "nifti2-gz"):
            make = ODD[name][0]
            np.testing.assert_array_equal(io.read(make(tmp_path)).data[0], DATA)
        for name in ("gz-junk-behind", "gz-zeros-then-junk", "gz-one-byte-missing", "gz-second-image"):
            assert not check(BAD[name](tmp_path)).ok
