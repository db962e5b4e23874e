"""A cohort that is larger than memory: what a training from prepared scans on disk holds, and what a step waits for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medgen.preprocessing.cache.cached_dataset import CachedDataset
from medgen.preprocessing.cache.scan_file import SUFFIX, open_scan, write_scan
from medgen.preprocessing.prepared import PreparedScan
from medgen.volume import Grid

from ..commands import apart
from ..contest import Entry, Figure, Settings

_SIDE, _SCANS, _STEPS = 160, 1000, 6
_SMALL, _FEW = 32, 16
# A network as small as they come: what is measured is the way of the data.
_MODEL = {"family": "dae", "widths": (16,)}
_LIMIT_MB = 4096.0


def entries(settings: Settings) -> Iterator[Entry]:
    """Memory and time of a training of few steps, in a process of its own."""
    side, count = (_SMALL, _FEW) if settings.quick else (_SIDE, _SCANS)
    folder = settings.scratch / "scans"
    try:
        written = _write(folder, side, count)
        found = apart(str(folder), "medgen.pipelines.bench.speed.contests.data_path", folder, side)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    what = f"{count} scans of {side}³ on disk"
    notes = (
        f"Prepared scans of {written / 1e9:.1f} GB in float16 and bytes, twice as much as float32; most of every file "
        "is a hole, so that they fit on a small disk: it is read as zeros, at the speed of memory.",
        "Opening them checks every byte against its digest.",
    )
    yield Figure(f"peak anonymous memory, {what}", found["anonymous_mb"], "MB", _LIMIT_MB, notes=notes)
    yield Figure(f"peak resident pages of all kinds, {what}", found["resident_mb"], "MB", notes=notes)
    yield Figure(f"wait for data per step, read ahead, {what}", 1000 * found["wait_s"], "ms", notes=notes)
    yield Figure(f"reading a batch of 2, {what}", 1000 * found["read_s"], "ms", notes=notes)
    yield Figure(f"opening, {what}", found["open_s"], "s", notes=notes)


def _write(folder: Path, side: int, count: int) -> int:
    """Prepared scans that differ in a block of voxels and are zero elsewhere, stored without the zeros."""
    grid, total = Grid((side,) * 3, np.eye(4)), 0
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        image = np.zeros((1, side, side, side), np.float32)
        image[0, : side // 4] = rng.random((side // 4, side, side), np.float32)
        scan = PreparedScan(image, image[0] > 0, grid, grid, ((0.0, 1.0),))
        path = folder / f"{number}{SUFFIX}"
        write_scan(path, scan, None, str(number))
        total += path.stat().st_size
        subprocess.run(["fallocate", "--dig-holes", str(path)], check=False, capture_output=True)
    return total


def _train(folder: Path, side: int) -> dict[str, float]:
    """Open the scans, train a few steps from them, and look at this process's memory."""
    import threading

    import torch

    from medgen.models.catalogue import build, parse_settings
    from medgen.training.trainer import TrainingConfig, fit

    torch.set_num_threads(1)
    most, ended = {"anonymous": 0, "resident": 0}, threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for name, line in (("anonymous", "RssAnon:"), ("resident", "VmRSS:")):
                most[name] = max(most[name], _memory(line))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.perf_counter()
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    files = tuple(found for path in paths if (found := open_scan(path, path.name.removesuffix(SUFFIX))) is not None)
    names = tuple(file.path.name for file in files)
    data = CachedDataset(names, names, files)
    opened = time.perf_counter() - begun
    waits: list[float] = []
    drawn = CachedDataset.batch

    def timed(self: CachedDataset, *given: object, **named: object) -> object:
        start = time.perf_counter()
        batch = drawn(self, *given, **named)  # type: ignore[arg-type]
        waits.append(time.perf_counter() - start)
        return batch

    CachedDataset.batch = timed  # type: ignore[method-assign, assignment]
    model = build(parse_settings({**_MODEL, "shape": (side,) * 3}), seed=0)
    fit(model, data, TrainingConfig(steps=_STEPS, batch_size=2, precision="32"), seed=0, device="cpu")
    CachedDataset.batch = drawn  # type: ignore[method-assign]
    begun = time.perf_counter()
    for row in range(0, 8, 2):
        data.batch([row, row + 1])
    read = (time.perf_counter() - begun) / 4
    ended.set()
    watcher.join()
    return {
        "anonymous_mb": most["anonymous"] / 1000,
        "resident_mb": most["resident"] / 1000,
        "open_s": opened,
        # The first step's batch has not been expected by anybody.
        "wait_s": float(np.median(waits[1:_STEPS])),
        "read_s": read,
    }


def _memory(line: str) -> int:
    """Thousands of bytes that the kernel says of this process."""
    text = next(own for own in Path("/proc/self/status").read_text().splitlines() if own.startswith(line))
    return round(int(text.split()[1]) * 1.024)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print(json.dumps(_train(Path(sys.argv[1]), int(sys.argv[2]))))
