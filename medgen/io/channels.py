"""The channels of one scan, from files that may lie on different grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgen.errors import GeometryError
from medgen.faults import fail
from medgen.io.dicom.series import patient_key
from medgen.system.advice import apart
from medgen.volume import Grid, Volume


def difference(a: Grid, b: Grid) -> str:
    """How two grids differ, as the beginning of a sentence that ends with what the other one belongs to."""
    if a.shape != b.shape:
        return f"shape {'x'.join(map(str, a.shape))} differs from {'x'.join(map(str, b.shape))} of"
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape], indexing="ij")).reshape(3, -1).T
    distance = np.abs(a.to_world(corners) - b.to_world(corners)).max()
    why = ""
    if a.axcodes != b.axcodes:
        why = f" (array axes run {a.axcodes}, not {b.axcodes})"
    elif not np.allclose(a.spacing, b.spacing, rtol=1e-3):
        sizes = [" x ".join(f"{size:.4g}" for size in grid.spacing) for grid in (a, b)]
        why = f" (voxel sizes {sizes[0]} mm, not {sizes[1]} mm)"
    return f"positions differ by up to {distance:.3g} mm{why} from those of"


def near(grid: Grid, other: Grid) -> bool:
    """Whether two grids are one: no voxel is further from its counterpart than half a hundredth of a voxel, or 1e-3 mm.

    Programs write orientations in single precision and through rotations; what they change by that moves no label.
    """
    return grid.same_as(other, max(1e-3, 0.005 * min(*grid.spacing, *other.spacing)))


def stacked(channels: Sequence[tuple[Path, Volume]], name: str, *, move: bool) -> Volume:
    """Volumes of one scan as its channels, (c, i, j, k), on the grid of the first.

    Args:
        channels: Files and what is in them, in channel order.
        name: The case, for messages.
        move: Whether those on another grid are interpolated on the first one's, where the headers say they lie. Beyond
            their field of view they get their smallest value.

    Raises:
        DataError: If two DICOM series say that they are of different patients.
        GeometryError: If the grids differ and nothing may be moved.
    """
    (path, first), *others = channels
    _check_one_patient([file for file, _ in channels], name)
    data = [first.data]
    for other, volume in others:
        if near(first.grid, volume.grid):
            data.append(volume.data)
        elif move:
            low = float(volume.data.min())
            found = volume.resample(first.grid, fill=low).data
            if not (found > low).any():
                raise GeometryError(
                    f"{other}: shows nothing where {path} does; expected channels of case {name} that overlap; check "
                    "that both are of the same session"
                )
            data.append(found)
        else:
            raise GeometryError(
                f"{other}: {difference(volume.grid, first.grid)} {apart(other, path)[1]}; expected all channels of "
                f"case {name} on one grid; resample it to the first channel, or declare that it may be "
                "(cohort.resample_channels=true)"
            )
    return first if not others else first.with_data(np.concatenate(data))


def _check_one_patient(files: Sequence[Path], name: str) -> None:
    """Refuse series of different patients; files of other formats, and anonymous series, say nothing of it."""
    folders = [file for file in files if file.is_dir()]
    known = [(folder, patient) for folder in folders if len(folders) > 1 and (patient := patient_key(folder))]
    for folder, patient in known[1:]:
        if patient != known[0][1]:
            raise fail(
                folder,
                f"another PatientID than {known[0][0]}",
                f"the channels of case {name} to be of one patient",
                "give the series of one patient, or correct the headers",
            )
