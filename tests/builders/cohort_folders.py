"""Small cohorts as people have them: scans of noise, label maps, copies without skull."""

import zlib
from pathlib import Path

import numpy as np

from medgen import io
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.volume import Grid, Volume

SHAPE = (12, 14, 10)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))


def scan(path: Path, seed: int = 0, grid: Grid = GRID) -> np.ndarray:
    """Write noise around 100 and return it."""
    data = np.random.default_rng(seed + zlib.crc32(str(path).encode())).normal(100, 20, grid.shape).astype(np.float32)
    io.write(Volume(data[None], grid), path)
    return data


def labels(path: Path, grid: Grid = GRID) -> None:
    """Write a label map of 0, 1 and 2."""
    data = np.zeros((1, *grid.shape), np.uint8)
    data[0, 2:6, 3:9, 2:7], data[0, 6:9, 3:9, 2:7] = 1, 2
    io.write(Volume(data, grid), path)


def brain(path: Path, whole: np.ndarray) -> None:
    """Write a copy with zeros around."""
    data = np.zeros_like(whole)
    data[3:-3, 3:-3, 2:-2] = whole[3:-3, 3:-3, 2:-2]
    io.write(Volume(data[None], GRID), path)


def taken(path: Path, **config: object) -> dict[str, tuple[str, list[str], str]]:
    """Case id → subject, images and mask, below the cohort."""
    manifest = load_cohort(path, CohortConfig(**config))  # type: ignore[arg-type]
    return {
        case.id: (
            case.subject,
            [manifest.key(file) for file in case.images],
            "" if case.mask is None else manifest.key(case.mask),
        )
        for case in manifest
    }
