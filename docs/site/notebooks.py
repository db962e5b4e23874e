"""Executed notebooks as pages: text and code as they are, printed text and pictures below the code."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pages


def write(notebook: Path, page: Path) -> None:
    """Write a notebook as a Markdown page, and its pictures as PNG files beside it.

    Raises:
        ValueError: If a cell of it was not executed, or ended in an error: a reader would see half of a tutorial.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    parts: list[str] = []
    for number, cell in enumerate(cells):
        if cell.cell_type != "code":
            parts.append(pages.for_site(cell.source))
            continue
        if cell.execution_count is None:
            raise ValueError(
                f"{notebook.name}: cell {number + 1} was not executed; run python docs/tutorials/execute.py"
            )
        parts.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            parts += _shown(output, page, f"{page.stem}-{number}-{place}.png", notebook.name)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _shown(output: Any, page: Path, picture: str, name: str) -> list[str]:
    if output.output_type == "error":
        raise ValueError(f"{name}: a cell ended with {output.ename}; run python docs/tutorials/execute.py")
    if output.output_type == "stream":
        return [f"```text\n{output.text.rstrip()}\n```"]
    if "image/png" in output.data:
        (page.parent / picture).write_bytes(base64.b64decode(output.data["image/png"]))
        return [f"![What the cell above shows]({picture})"]
    return [f"```text\n{output.data['text/plain'].rstrip()}\n```"]
