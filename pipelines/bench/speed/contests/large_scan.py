"""A scan of 256³ voxels scored on a CPU: memory, time, and what computing layers in slabs changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from medgen.models.base import HasVoxelLikelihood
from medgen.models.catalogue import build, parse_settings
from medgen.system.memory import peak_bytes, working_memory

from ..clock import now
from ..commands import apart
from ..contest import Entry, Figure, Settings, Table

# Widths of the shipped configuration for whole brains; the principal components are 1.6 GB at this size.
_MODEL = {"family": "vae", "widths": (16, 32, 64), "latent": 24, "codes": ((4, 16),)}
_SIDE, _FEW = 256, 48
_SLABS, _WHOLE = "in slabs", "each layer at once"
_MEGABYTES, _DIFFERENCE = 6000.0, 0.005
# Of every layer's results at once: more than any scan needs; and, for a small scan, few enough for slabs.
_MUCH, _LITTLE = 1 << 60, 1 << 18


def entries(settings: Settings) -> Iterator[Entry]:
    """The map of voxel likelihoods, twice, each in a process of its own."""
    side = _FEW if settings.quick else _SIDE
    rows: dict[str, dict[str, float | str]] = {}
    maps = []
    for way in (_SLABS, _WHOLE):
        kept = settings.scratch / f"{way}.npy"
        rows[way] = apart("a large scan could not be scored", __name__, way, side, kept)
        maps.append(np.load(kept).astype(np.float64))
    size = f"{side}³ voxels"
    yield Figure(
        f"{size} by a VAE: peak memory",
        float(rows[_SLABS]["peak, MB"]),
        "MB",
        _MEGABYTES,
        notes=("Of the whole process, weights and principal components included.",),
    )
    yield Figure(
        f"{size} by a VAE: difference that slabs make",
        float(np.linalg.norm(maps[0] - maps[1]) / np.linalg.norm(maps[1])),
        "",
        _DIFFERENCE,
        notes=("Norm over all voxels, in units of the norm of the map.",),
    )
    yield Table(
        f"{size} by a VAE",
        rows,
        ("Map of voxel likelihoods (nll), float32, weights as training finds them at its start, moved at random.",),
    )


def _score(way: str, side: int, kept: Path) -> dict[str, float]:
    """Score a scan of noise and keep the map; seconds of processor time and megabytes."""
    torch.set_num_threads(1)
    model = build(parse_settings({"shape": (side,) * 3, "in_channels": 1, **_MODEL}), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    # Blocks begin as the identity, which sees no neighbours: a trained network does.
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    scan = torch.rand((1, 1, side, side, side), generator=generator)
    before = peak_bytes()
    assert isinstance(model, HasVoxelLikelihood)
    if way == _WHOLE:
        room: AbstractContextManager[None] = working_memory(_MUCH)
    else:
        # A small scan fits in the usual room.
        room = nullcontext() if side == _SIDE else working_memory(_LITTLE)
    device = torch.device("cpu")
    start = now(device)
    with room, torch.inference_mode():
        found = model.voxel_nll(scan)
    seconds = now(device) - start
    np.save(kept, found.numpy())
    return {"seconds": seconds, "peak, MB": peak_bytes() / 1e6, "before scoring, MB": before / 1e6}


if __name__ == "__main__":
    given, voxels, path = sys.argv[1:]
    print(json.dumps(_score(given, int(voxels), Path(path))))
