"""The benchmark of many cases counts what it says: cases, shards begun again, and a journal that verifies."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.errors import DataError
from medgen.pipelines.bench.speed.many_cases import make_scans, measured


def test_a_killed_worker_costs_one_shard_and_no_case(tmp_path: Path) -> None:
    make_scans(tmp_path / "scans", 24)
    found = measured(tmp_path / "scans", "local", 24, workers=1, kill=True)
    assert found.killed > 0
    assert (found.shards, found.begun) == (4, 5)
    assert (found.lost, found.doubled, found.faults) == (0, 0, 0)
    assert found.parent_cpu_s > 0
    assert found.shards_cpu_s > 0
    # 512 voxels of each case are kept for comparisons.
    assert found.shard_bytes > 24 * 512 * 8
    assert list(tmp_path.iterdir()) == [tmp_path / "scans"]


def test_a_scan_that_is_not_sound_ends_the_benchmark(tmp_path: Path) -> None:
    make_scans(tmp_path / "scans", 2)
    (tmp_path / "scans" / "1.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="checking 2 scans has failed"):
        measured(tmp_path / "scans", "local", 2, workers=1)
