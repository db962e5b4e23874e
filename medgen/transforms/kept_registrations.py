"""Registrations that are kept: a run that was interrupted does not repeat those that it has made."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import medgen
from medgen.errors import DataError
from medgen.system.files import read_json, sha256_json, write_json
from medgen.transforms.affine_registration import AffineResult, register_affine
from medgen.volume import Volume


class Register(Protocol):
    """What registers a scan to a template: :func:`register_affine`, or one that remembers."""

    def __call__(
        self,
        moving: Volume,
        fixed: Volume,
        fixed_mask: Volume | None = None,
        *,
        start: NDArray[np.float64] | None = None,
    ) -> AffineResult:
        """The transform from the template's world to the scan's, with its quality."""
        ...


@dataclasses.dataclass(frozen=True)
class KeptRegistrations:
    """Registers like :func:`register_affine` and keeps every result as a small file.

    A result is used again for the same voxels, grids and start by the same version of medgen, to the last bit. A file
    that is damaged is made anew. Threads may share one.

    Attributes:
        folder: Made with the first result.
    """

    folder: Path

    def __call__(
        self,
        moving: Volume,
        fixed: Volume,
        fixed_mask: Volume | None = None,
        *,
        start: NDArray[np.float64] | None = None,
    ) -> AffineResult:
        """See :func:`medgen.transforms.affine_registration.register_affine`."""
        volumes = [None if item is None else _digest(item) for item in (moving, fixed, fixed_mask)]
        key = sha256_json([medgen.__version__, volumes, None if start is None else start.tolist()])
        path = self.folder / f"{key[:32]}.json"
        found = _read(path, key)
        if found is None:
            found = register_affine(moving, fixed, fixed_mask, start=start)
            self.folder.mkdir(parents=True, exist_ok=True)
            values = {**dataclasses.asdict(found), "world": found.world.tolist()}
            write_json(path, {"key": key, "result": values, "sha256": sha256_json(values)})
        return found


def _read(path: Path, key: str) -> AffineResult | None:
    if not path.is_file():
        return None
    try:
        data = read_json(path)
        values = data["result"]
        if data["key"] != key or data["sha256"] != sha256_json(values):
            return None
        return AffineResult(**{**values, "world": np.array(values["world"], np.float64)})
    except (DataError, KeyError, TypeError):
        return None


def _digest(volume: Volume) -> str:
    data = np.ascontiguousarray(volume.data)
    digest = hashlib.sha256(f"{data.dtype}{data.shape}{volume.grid.affine.tolist()}".encode())
    digest.update(data.data)
    return digest.hexdigest()
