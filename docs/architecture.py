"""Write the parts of ``docs/architecture.md`` that follow from the code: ``python docs/architecture.py``."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def folders(root: Path) -> str:
    """A table of all folders: the sentence of each ``__init__.py``, and its modules."""
    rows = ["| folder | what belongs there | modules |", "|---|---|---|"]
    for door in sorted(path for top in ("medgen", "pipelines") for path in (root / top).rglob("__init__.py")):
        said = (ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) or "").splitlines()[0]
        said = re.sub(r"``([^`]*)``", r"`\1`", said)
        modules = ", ".join(f"`{path.stem}`" for path in sorted(door.parent.glob("*.py")) if path.stem != "__init__")
        rows.append(f"| `{door.parent.relative_to(root).as_posix()}/` | {said} | {modules} |")
    return "\n".join(rows)


def layers(root: Path) -> str:
    """The layers that ``make check`` holds, from top to bottom."""
    parser = configparser.ConfigParser()
    parser.read(root / ".importlinter", encoding="utf-8")
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    return "\n".join(["```", "pipelines", *(line.strip() for line in lines if line.strip()), "```"])


def main() -> None:
    """Replace what stands between the marks of the page."""
    page = ROOT / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    for name, content in (("layers", layers(ROOT)), ("folders", folders(ROOT))):
        text = re.sub(
            rf"<!-- {name} -->\n.*?<!-- end of {name} -->",
            lambda _, name=name, content=content: f"<!-- {name} -->\n{content}\n<!-- end of {name} -->",  # type: ignore[misc]
            text,
            flags=re.S,
        )
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
