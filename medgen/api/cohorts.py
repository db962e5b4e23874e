"""Whether data can be used, and data to practise on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np
from markupsafe import Markup

from medgen.api.arguments import path_of, whole_number
from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.data.integrity import check as look_at
from medgen.data.simulation import simulate as make
from medgen.errors import ConfigError
from medgen.faults import Fault


@dataclass(frozen=True, eq=False)
class Checked:
    """What is wrong with a cohort or a scan, and how it was understood; true if nothing is wrong.

    Attributes:
        path: What was checked.
        cases: Number of cases.
        faults: Each with file, what was found, what was expected and what to do.
        notes: What is not wrong but worth knowing.
        account: How the folder was understood, a line each.
    """

    path: Path
    cases: int
    faults: Sequence[Fault]
    notes: Sequence[str]
    account: Sequence[str]

    def __bool__(self) -> bool:
        return not self.faults

    def __repr__(self) -> str:
        count = f"{len(self.faults)} fault(s)" if self.faults else "no fault"
        lines = [f"<{self.path}: {self.cases} case(s), {count}>", *map(str, self.faults)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        count = f"{len(self.faults)} fault(s)" if self.faults else "no fault"
        parts = Markup("<p><b>{}</b>: {} case(s), {}</p>").format(self.path, self.cases, count)
        lines = Markup("").join(Markup("<li>{}</li>").format(line) for line in (*self.account, *self.notes))
        rows = Markup("").join(
            Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>").format(
                fault.file, fault.found, fault.expected, fault.action
            )
            for fault in self.faults
        )
        head = Markup("<tr><th>file</th><th>found</th><th>expected</th><th>what to do</th></tr>")
        table = Markup("<table>{}{}</table>").format(head, rows) if self.faults else Markup("")
        return str(parts + table + Markup("<ul>{}</ul>").format(lines))


def check(path: str | PathLike[str], workers: int = 2) -> Checked:
    """Look at every file of a cohort, one scan or one DICOM folder, and collect all faults; nothing is raised for them.

    Args:
        path: Cohort folder in any layout, manifest, scan file or DICOM folder.
        workers: Threads that read files.

    Raises:
        ConfigError: If an argument is of another kind than it should be.
    """
    result = look_at(path_of("path", path), workers=whole_number("workers", workers, 0, 256))
    lines = result.scan if result.manifest is None else account(result.manifest)
    return Checked(Path(path), result.cases, tuple(result.faults), tuple(result.notes), tuple(lines or ()))


def simulate(
    n: int, out: str | PathLike[str] = "cohort", *, seed: int = 0, spacing: float | Sequence[float] = 2.0
) -> Manifest:
    """Write a cohort of ``n`` simulated brains with CSF, grey and white matter labels, to practise on.

    Args:
        n: Number of subjects, 1 to 9999.
        out: A folder that does not exist or is empty.
        seed: Equal seeds give equal files.
        spacing: Voxel size in mm, 0.5 to 16.

    Returns:
        The cases; their files are below ``out``.

    Raises:
        ConfigError: If an argument is of another kind than it should be, or a number is out of range.
        DataError: If ``out`` is not empty, or the spacing is out of range.
    """
    n, seed = whole_number("n", n, 1, 9999), whole_number("seed", seed, 0)
    if not _numbers(spacing):
        raise ConfigError(f"spacing: found {spacing!r:.60}, expected one or three numbers in mm, from 0.5 to 16")
    return make(path_of("out", out), n=n, seed=seed, spacing=spacing)


def _numbers(spacing: object) -> bool:
    given = spacing if isinstance(spacing, Sequence | np.ndarray) else (spacing,)
    return all(isinstance(item, Real) and not isinstance(item, bool) for item in given)
