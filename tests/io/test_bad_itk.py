"""NRRD and MetaImage: what is wrong is refused with name and reason, what is unusual but sound is read right."""

import subprocess
import sys

import numpy as np
import pytest

from medgen import io
from medgen.data.integrity import check
from tests.builders import itk_files
from tests.builders.nifti_files import DATA
from tests.builders.refusals import assert_refused

BAD, ODD = itk_files.bad(), itk_files.odd()


@pytest.mark.parametrize("name", BAD)
@pytest.mark.timeout(20)
def test_refused(tmp_path, name):
    path = BAD[name](tmp_path)
    assert_refused(path)


@pytest.mark.parametrize("name", ODD)
def test_accepted(tmp_path, name):
    make, affine = ODD[name]
    path = make(tmp_path)
    volume = io.read(path)
    np.testing.assert_array_equal(volume.data[0], DATA)
    np.testing.assert_allclose(volume.grid.affine, affine)
    assert check(path).ok


def test_channels_lie_side_by_side(tmp_path):
    both = np.stack([DATA, DATA + 1])
    raw = both.astype("<i2").tobytes(order="F")
    directions = "none (1.5,0,0) (0,2,0) (0,0,3)"
    kinds = "vector domain domain domain"
    content = itk_files.nrrd(raw, dimension="4", sizes="2 6 7 8", space_directions=directions, kinds=kinds)
    (tmp_path / "a.nrrd").write_bytes(content)
    (tmp_path / "a.mha").write_bytes(itk_files.meta(raw, ElementNumberOfChannels="2"))
    for name in ("a.nrrd", "a.mha"):
        volume = io.read(tmp_path / name)
        np.testing.assert_array_equal(volume.data, both)
        np.testing.assert_allclose(volume.grid.affine, itk_files.AFFINE)


def test_bombs_are_refused_at_once_and_without_memory(tmp_path):
    paths = {}
    for name, make in itk_files.bombs().items():
        (tmp_path / name).mkdir()
        paths[name] = str(make(tmp_path / name))
    code = """
import resource, sys, time
import SimpleITK
from medgen.data.integrity import check
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
for path in sys.argv[1:]:
    before, start = peak(), time.perf_counter()
    faults = check(path).faults
    print(len(faults) == 1 and faults[0].file == path, peak() - before, time.perf_counter() - start, sep=";")
"""
    done = subprocess.run([sys.executable, "-c", code, *paths.values()], capture_output=True, text=True, check=True)
    for name, line in zip(paths, done.stdout.splitlines(), strict=True):
        named, mebibytes, seconds = line.split(";")
        assert named == "True", name
        assert int(mebibytes) < 100, (name, mebibytes)
        assert float(seconds) < 1, (name, seconds)
