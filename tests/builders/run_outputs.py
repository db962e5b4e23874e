"""The files of a finished run beside what its stages say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgen.pipelines.stages import Pipeline
from medgen.runs.outputs import output_files


def undeclared(out: Path, stages: Pipeline[Any]) -> list[str]:
    """Files below the folder of a run that no stage of its list names."""
    names = [output.name for output in stages.outputs()]
    folders = tuple(name for name in names if name.endswith("/"))
    return [file for file in output_files(out) if file not in names and not file.startswith(folders)]
