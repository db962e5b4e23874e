"""A folder of prepared scans: what a scan is known by, how much may lie there, what goes first."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medgen
from medgen.data.cases import Case, case_files, sha256_of
from medgen.errors import DataError
from medgen.preprocessing.cache.scan_file import SUFFIX
from medgen.preprocessing.prepared import Template
from medgen.preprocessing.recipe import Preprocess
from medgen.system.files import TEMPORARY, sha256_json

_GIB = 1 << 30
# What was used in so many seconds may be in use by another run, and is never removed to make room.
_IN_USE = 24 * 3600
# A temporary file that old was left by a process that was killed.
_LEFT = 24 * 3600
# Raised with every change of what is prepared that the version does not show; 2: another foreground of some scans.
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class CacheFolder:
    """Prepared scans in one folder, which several runs and processes may share.

    Attributes:
        folder: Made with the first scan.
        limit: Bytes that may lie there. The scans that were used longest ago go first, but none of the last day.
    """

    folder: Path
    limit: int = 50 * _GIB
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def path(self, key: str) -> Path:
        """Where the scan of a key is, or would be."""
        return self.folder / key[:2] / f"{key[:40]}{SUFFIX}"

    def use(self, path: Path) -> None:
        """Remember that a file was used now."""
        with suppress(OSError):
            os.utime(path)

    def make_room(self, size: int) -> None:
        """Remove what was used longest ago until ``size`` more bytes fit.

        Raises:
            DataError: If they do not fit beside what was used in the last day.
        """
        with self._lock:
            found = sorted(self._files())
            total = sum(bytes_ for _, bytes_, _ in found) + size
            now = time.time()
            for used, bytes_, path in found:
                if total <= self.limit or now - used < _IN_USE:
                    break
                with suppress(OSError):
                    path.unlink()
                    total -= bytes_
        if total > self.limit:
            raise DataError(
                f"{self.folder}: prepared scans take {total / _GIB:.3g} GiB of {self.limit / _GIB:.3g} allowed; "
                "raise cache.gib, or remove the folder if no other run uses it"
            )

    def clear(self) -> int:
        """Remove every prepared scan and what killed processes have left; the number of scans that were there."""
        found = list(self._files())
        for _, _, path in found:
            with suppress(FileNotFoundError):
                path.unlink()
        for path in self.folder.glob(f"*/{TEMPORARY}*{SUFFIX}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT:
                    path.unlink()
        return len(found)

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of the last use, bytes and place of every scan."""
        found = []
        for path in self.folder.glob(f"*/*{SUFFIX}"):
            # Another process may remove it at this moment.
            with suppress(OSError):
                status = path.stat()
                if not path.name.startswith(TEMPORARY):
                    found.append((status.st_mtime, status.st_size, path))
        return found


def recipe_key(recipe: Preprocess, template: Template | None) -> str:
    """What prepared scans depend on beside the scan: the recipe, the template, and this version of medgen."""
    arrays = {} if template is None else template.to_arrays()
    shaped = {name: [str(array.dtype), array.shape, _sha256(array)] for name, array in arrays.items()}
    return sha256_json([_FORMAT, medgen.__version__, recipe.model_dump(mode="json"), shaped])


def scan_key(case: Case, recipe: str) -> str:
    """What a case's prepared scan is known by: the bytes of its files, how they are read, and the recipe's key.

    Not where they lie and how they are named. Files are hashed anew: one that was changed under its name is noticed.

    Raises:
        DataError: If a file cannot be read.
    """
    how = [
        sorted(case.relabel.items()),
        case.fill,
        *(case.unscaled, case.resample_mask, case.empty_mask, case.resample_channels, case.mask is None),
        sorted(case.attributes.items()),
    ]
    return sha256_json([recipe, [sha256_of(path) for path in case_files(case)], how])


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
