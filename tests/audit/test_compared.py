"""Comparing a file that was made again: what is the same, what differs, and by how much."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from safetensors.numpy import save_file

from medgen import io
from medgen.audit.compared import compare, compare_runs
from medgen.system import files
from medgen.volume import Grid, Volume


@pytest.fixture
def two(tmp_path):
    """Two run folders."""
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    return tmp_path / "before", tmp_path / "after"


def compared(two, name, tolerance=None):
    before, after = two
    return compare(before, after, name, files.sha256_file(before / name), tolerance)


def written(two, name, first, second):
    for folder, text in zip(two, (first, second), strict=True):
        files.write_text(folder / name, text)


def test_equal_bytes_are_identical(two):
    written(two, "a.csv", "x\n1\n", "x\n1\n")
    assert compared(two, "a.csv").state == "identical"


def test_measured_times_and_places_do_not_count(two):
    written(two, "plan.json", '{"a": {"seconds": 1.0, "steps": 3}}', '{"a": {"seconds": 2.0, "steps": 3}}')
    written(two, "value.csv", "arm,dice,seconds\nreal,0.5,1\n", "arm,dice,seconds\nreal,0.5,2\n")
    written(two, "manifest.csv", "id,image\na,../c/a.nii\n", "id,image\na,../../x/c/a.nii\n")
    written(two, "config.yaml", "out: runs/a\nseed: 1\n", "out: x/a\nseed: 1\n")
    for name in ("plan.json", "value.csv", "manifest.csv", "config.yaml"):
        assert compared(two, name).state == "same but for times"
    written(two, "plan.json", '{"a": {"seconds": 1.0, "steps": 3}}', '{"a": {"seconds": 1.0, "steps": 4}}')
    written(two, "manifest.csv", "id,image\na,../c/a.nii\n", "id,image\na,../c/b.nii\n")
    written(two, "config.yaml", "out: runs/a\nseed: 1\n", "out: x/a\nseed: 2\n")
    for name in ("plan.json", "manifest.csv", "config.yaml"):
        assert compared(two, name).state == "differs"


def test_numbers_are_compared_within_a_tolerance_where_one_is_given(two):
    written(two, "metrics.json", '{"auroc": [0.8, 0.9]}', '{"auroc": [0.8, 0.9001]}')
    assert compared(two, "metrics.json").state == "differs"
    within = compared(two, "metrics.json", 1e-3)
    assert (within.state, within.agrees) == ("within tolerance", True)
    assert "at /auroc/1" in within.detail
    assert compared(two, "metrics.json", 1e-5).state == "differs"
    written(two, "metrics.json", '{"verdict": "USE"}', '{"verdict": "HARMFUL"}')
    assert compared(two, "metrics.json", 1e9).detail == "at /verdict"
    written(two, "metrics.json", '{"a": [1, 2]}', '{"a": [1]}')
    assert compared(two, "metrics.json", 1e9).state == "differs"


def test_volumes_and_weights_are_compared_by_their_range(two):
    data = np.linspace(0, 10, 64, dtype=np.float32).reshape(4, 4, 4)
    other = data.copy()
    other[0, 0, 0] += 0.005
    for folder, array in zip(two, (data, other), strict=True):
        io.write(Volume(array[None], Grid((4, 4, 4), np.eye(4))), folder / "heat.nii.gz")
        save_file({"w": array}, folder / "w.safetensors")
    for name in ("heat.nii.gz", "w.safetensors"):
        assert compared(two, name).state == "differs"
        assert "by up to 0.0005 of the range" in compared(two, name).detail
        assert compared(two, name, 1e-3).state == "within tolerance"
        assert compared(two, name, 1e-4).state == "differs"


def test_a_volume_with_other_empty_voxels_differs_whatever_the_tolerance(two):
    data = np.zeros((1, 4, 4, 4), np.float32)
    other = data.copy()
    other[0, 0, 0, 0] = np.nan
    for folder, array in zip(two, (data, other), strict=True):
        io.write(Volume(array, Grid((4, 4, 4), np.eye(4))), folder / "heat.nii.gz")
    assert compared(two, "heat.nii.gz", 10.0).state == "differs"


def test_pages_are_not_compared_by_number(two):
    written(two, "report.html", "<p>0.5</p>", "<p>0.6</p>")
    assert compared(two, "report.html").state == "differs"
    assert compared(two, "report.html", 1e-3).state == "not compared"


def test_missing_and_new_files_are_named(two):
    before, after = two
    files.write_text(before / "a.csv", "x\n")
    files.write_text(after / "b.csv", "x\n")
    found = {item.file: item.state for item in compare_runs(before, after, {"a.csv": "0" * 64}, None)}
    assert found == {"a.csv": "missing", "b.csv": "new"}


def test_records_of_other_code_are_the_same_where_other_code_is_accepted(two):
    written(two, "syn-1.json", '{"commit": "a", "seed": 1}', '{"commit": "b", "seed": 1}')
    assert compared(two, "syn-1.json").state == "differs"
    assert compared(two, "syn-1.json", 1e-3).agrees


def test_a_volume_that_another_compressor_packed_is_identical(two):
    content = bytes(1000) + np.arange(500, dtype=np.int16).tobytes()
    for folder, level in zip(two, (1, 6), strict=True):
        (folder / "a.nii.gz").write_bytes(gzip.compress(content, level, mtime=0))
    found = compared(two, "a.nii.gz")
    assert found.agrees
    assert found.state == "identical"
    assert "another compressor" in found.detail
    (two[1] / "a.nii.gz").write_bytes(gzip.compress(content + b"\0", 6, mtime=0))
    assert not compared(two, "a.nii.gz").agrees
    (two[1] / "a.nii.gz").write_bytes(gzip.compress(content, 6, mtime=0)[:-1])
    assert not compared(two, "a.nii.gz").agrees
