"""The wheel holds every package, or an installed medgen would lack a part that a checkout has."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "medgen").rglob("__init__.py")}
    for folder in ("pipelines", "configs"):
        found |= {
            ".".join(("medgen", *path.parent.relative_to(ROOT).parts)) for path in (ROOT / folder).rglob("__init__.py")
        }
    assert found == listed
