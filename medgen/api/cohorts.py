"""Whether data can be used, and data to practise on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from markupsafe import Markup

from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.data.integrity import check as look_at
from medgen.data.simulation import simulate as make
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
    """
    result = look_at(Path(path), workers=workers)
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
        DataError: If ``out`` is not empty, or a number is out of range.
    """
    return make(Path(out), n=n, seed=seed, spacing=spacing)
