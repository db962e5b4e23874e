"""Run the tutorials and keep what they show: ``python docs/tutorials/execute.py`` (about half an hour of one core)."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
MOST_SECONDS = 3600
# IPython gives commands a terminal, so that they draw bars.
_TERMINAL = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
_BARS = re.compile(r"^.*[━╸╺].*\n?", re.MULTILINE)


def execute(notebook: Any, folder: Path, parameters: Mapping[str, object] | None = None) -> None:
    """Run every cell of a notebook in a folder; its outputs are replaced.

    Args:
        notebook: As read by nbformat.
        folder: Where its files go.
        parameters: What the cell with the tag ``parameters`` is to set instead.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    for cell in notebook.cells:
        if parameters is not None and "parameters" in cell.metadata.get("tags", ()):
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    # The notebooks call medgen as people do in an environment that is activated.
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": found, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    client = NotebookClient(notebook, timeout=MOST_SECONDS, kernel_name="python3")
    client.resources = {"metadata": {"path": str(folder)}}
    client.execute(env=environment)
    _check(notebook)


def tidy(notebook: Any, folder: Path) -> None:
    """Leave out of outputs what differs from machine to machine, folders and times, and progress bars."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        kept = [output for output in cell.outputs if output.output_type != "stream"]
        printed = _BARS.sub("", _TERMINAL.sub("", printed.replace("\r\n", "\n")))
        printed = printed.replace(f"sqlite:///{folder}/", "sqlite:///").replace(f"{folder}/", "").strip("\n")
        if printed:
            kept.insert(0, nbformat.v4.new_output("stream", name="stdout", text=f"{printed}\n"))
        cell.outputs = kept


def _check(notebook: Any) -> None:
    """Refuse a notebook in which a command failed: a shell's error does not end a cell.

    Raises:
        RuntimeError: With what the command printed.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("text", "")
            if "Error" in text or "\nerror:" in text or "command not found" in text:
                raise RuntimeError(f"{cell.source}\n{text}")


def main() -> None:
    """Run all tutorials, each in a folder of its own, and write them back."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder).resolve()
            execute(notebook, where)
            tidy(notebook, where)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
