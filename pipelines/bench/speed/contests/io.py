"""Reading and writing packed NIfTI against nibabel, on a head at 1 mm, in the two types that scans come in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medgen import io
from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.io.deflate import isal
from medgen.volume import Volume

from ..contest import Contender, Contest, Demand, Entry, Rows, Settings

_SEED = 0
_READ, _WRITE = 3.0, 3.5
# What a scanner's noise is, as a share of the brightest tissue.
_NOISE = 0.02
# The fastest unpacker that is installed, with the file in memory, and nothing done with the result.
_ALONE = "ISA-L, unpacking alone"
_HEADER = 1024


def entries(settings: Settings) -> Iterator[Entry]:
    """Both types, read and written."""
    brain = SubjectDrawer(cohort_grid(8.0 if settings.quick else 1.0)).draw(_SEED, 0).image
    noise = np.random.default_rng(_SEED).normal(0, _NOISE * float(brain.data.max()), brain.data.shape)
    floats = brain.data.astype(np.float32)
    scans = {
        "int16": brain,
        "float32": brain.with_data(floats * np.float32(0.0031)),
        "noisy int16": brain.with_data((brain.data + np.abs(noise)).astype(np.int16)),
        "noisy float32": brain.with_data((floats + noise).astype(np.float32)),
    }
    notes = (
        "nibabel writes with its default, zlib at level 1. Files that are read are nibabel's. medgen also checks every "
        "voxel for being finite, and syncs what it writes to disk.",
        "medgen packs with ISA-L" if isal() is not None else "isal is not installed: medgen packs with zlib, too",
    )
    for name, scan in scans.items():
        own, other = settings.scratch / f"own {name}.nii.gz", settings.scratch / f"other {name}.nii.gz"
        image = nib.Nifti1Image(np.ascontiguousarray(scan.data[0]), scan.grid.affine)
        nib.save(image, other)
        voxels = image.dataobj.nbytes
        yield Contest(
            f"read .nii.gz, {name}",
            (
                Contender("medgen", partial(io.read, other)),
                Contender("nibabel", partial(_read, other), _READ),
                Contender("nibabel get_fdata", partial(_as_double, other)),
                *([] if isal() is None else [Contender(_ALONE, partial(_unpacked, other.read_bytes(), voxels))]),
            ),
            demand=Demand(0, voxels + other.stat().st_size, "the file once, the voxels once"),
            equal=partial(_same_voxels, other, scan),
            notes=notes,
        )
        yield Contest(
            f"write .nii.gz, {name}",
            (
                Contender("medgen", partial(io.write, Volume(np.ascontiguousarray(scan.data), scan.grid), own)),
                Contender("nibabel", partial(nib.save, image, other), _WRITE),
            ),
            demand=Demand(0, voxels + other.stat().st_size, "the voxels once, the file once"),
            equal=partial(_same_files, own, other),
            notes=notes,
        )


def _read(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


def _unpacked(packed: bytes, size: int) -> bytes:
    module = isal()
    assert module is not None
    # With room for the header as well, in one piece: a buffer that has to grow is copied.
    found: bytes = module.decompress(packed, zlib.MAX_WBITS | 16, size + _HEADER)
    return found


def _as_double(path: Path) -> Any:
    return nib.load(path).get_fdata()


def _same_voxels(path: Path, scan: Volume) -> Rows:
    own, other = io.read(path).data[0], _read(path)
    return {
        "voxels": {"medgen": own.size, "nibabel": other.size},
        "voxels that differ from the scan": {
            "medgen": int((own != scan.data[0]).sum()),
            "nibabel": int((other != scan.data[0]).sum()),
        },
    }


def _same_files(own: Path, other: Path) -> Rows:
    sizes = own.stat().st_size, other.stat().st_size
    return {
        "bytes": {"medgen": sizes[0], "nibabel": sizes[1]},
        "size beside nibabel's": {"medgen": sizes[0] / sizes[1], "nibabel": 1.0},
        "voxels that nibabel reads differently": {"medgen": int((_read(own) != _read(other)).sum()), "nibabel": 0},
    }
