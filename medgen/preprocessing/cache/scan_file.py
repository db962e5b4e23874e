"""One prepared scan as one file of arrays: float16 image, masks as bytes, and in words where its voxels lie."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from medgen.errors import DataError, GeometryError
from medgen.preprocessing.prepared import PreparedScan
from medgen.system.files import atomic_path, plain
from medgen.volume import Grid

SUFFIX = ".scan.safetensors"
_IMAGE, _FOREGROUND, _LABELS = "image", "foreground", "labels"
_TYPES = {_IMAGE: np.dtype(np.float16), _FOREGROUND: np.dtype(np.uint8), _LABELS: np.dtype(np.uint8)}
_ABOUT, _DIGEST = "about", "sha256"


@dataclass(frozen=True, eq=False)
class ScanFile:
    """A file that was found whole when it was opened; voxels are read from it when they are needed.

    Attributes:
        path: Where it is.
        sha256: Digest of what it holds.
        shape: Channels and voxels, (c, i, j, k).
        labelled: Whether it has a label map.
        highest: The highest label number in it; 0 without one.
        about: What the file says in words: grids, intensity scale, how well the scan fits.
    """

    path: Path
    sha256: str
    shape: tuple[int, int, int, int]
    labelled: bool
    highest: int
    about: dict[str, Any]

    def arrays(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image (c, i, j, k) float16, foreground (i, j, k) and labels (i, j, k) uint8, mapped into memory.

        Raises:
            DataError: If the file is gone.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                labels = file.get_tensor(_LABELS) if self.labelled else None
                return file.get_tensor(_IMAGE), file.get_tensor(_FOREGROUND), labels
        except (OSError, SafetensorError):
            raise DataError(
                f"{self.path}: this prepared scan was there when the run began and cannot be read now; "
                "run again, and it is made anew"
            ) from None

    def prepared(self, image: NDArray[np.float32], foreground: NDArray[np.bool_]) -> PreparedScan:
        """The record that leads back to the scan, with given arrays."""
        about = self.about
        grids = [Grid(tuple(about[name]["shape"]), np.array(about[name]["affine"])) for name in ("grid", "native")]
        return PreparedScan(
            image=image,
            foreground=foreground,
            grid=grids[0],
            native=grids[1],
            scale=tuple((low, gain) for low, gain in about["scale"]),
            world=np.array(about["world"]),
            quality=about["quality"],
            may_show_face=about["may_show_face"],
            steps=tuple(about["steps"]),
            attributes=about["attributes"],
        )


def write_scan(path: Path, prepared: PreparedScan, labels: NDArray[np.uint8] | None, key: str) -> None:
    """Write a prepared scan, atomically; intensities are rounded to float16.

    Args:
        path: Ends in :data:`SUFFIX`.
        prepared: What to write; the cleaned scan is left out.
        labels: Label numbers (i, j, k), or None.
        key: What the content depends on, which :func:`open_scan` asks for.

    Raises:
        DataError: If the file cannot be written, or an intensity is beyond what float16 holds (65504).
    """
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(prepared.image, dtype=np.float16)
    if not np.isfinite(image).all():
        raise DataError(f"{path}: model intensities beyond 65504 cannot be cached; lower preprocess.clip")
    arrays: dict[str, NDArray[Any]] = {
        _IMAGE: image,
        _FOREGROUND: np.ascontiguousarray(prepared.foreground).astype(np.uint8),
    }
    if labels is not None:
        arrays[_LABELS] = np.ascontiguousarray(labels, dtype=np.uint8)
    grids = {"grid": prepared.grid, "native": prepared.native}
    about = {
        "key": key,
        **{name: {"shape": list(grid.shape), "affine": grid.affine.tolist()} for name, grid in grids.items()},
        "scale": [list(pair) for pair in prepared.scale],
        "world": prepared.world.tolist(),
        "quality": dict(prepared.quality),
        "highest": 0 if labels is None else int(labels.max(initial=0)),
        "may_show_face": bool(prepared.may_show_face),
        "steps": list(prepared.steps),
        "attributes": dict(prepared.attributes),
    }
    text = json.dumps(plain(about), allow_nan=False)
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={_ABOUT: text, _DIGEST: _digest(text, arrays)})


def open_scan(path: Path, key: str) -> ScanFile | None:
    """The file if it is whole and made for ``key``, every byte checked against its digest; else None."""
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata[_ABOUT]
        about = json.loads(text)
        if about["key"] != key or metadata[_DIGEST] != _digest(text, arrays):
            return None
        image, foreground, labels = arrays[_IMAGE], arrays[_FOREGROUND], arrays.get(_LABELS)
        if any(array.dtype != _TYPES[name] for name, array in arrays.items()) or image.ndim != 4:
            return None
        if any(array.shape != image.shape[1:] for array in (foreground, labels) if array is not None):
            return None
        c, i, j, k = image.shape
        found = ScanFile(path, metadata[_DIGEST], (c, i, j, k), labels is not None, int(about["highest"]), about)
        # Whatever is wrong with the words shows here, not in the middle of a training.
        found.prepared(np.zeros(0, np.float32), np.zeros(0, bool))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, GeometryError):
        return None
    return found


def stacked(files: list[ScanFile]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images (n, c, i, j, k) float16, foregrounds and labels (n, 1, i, j, k) uint8, read into memory."""
    images, foregrounds, labels = zip(*(file.arrays() for file in files), strict=True)
    maps = [item for item in labels if item is not None]
    return (
        torch.stack(images),
        torch.stack(foregrounds)[:, None],
        torch.stack(maps)[:, None] if len(maps) == len(files) else None,
    )


def _digest(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
