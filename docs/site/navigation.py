"""The order of pages on the site, and how it is written down for zensical."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Entry: TypeAlias = "str | dict[str, str | list[Entry]]"

# Folders stand for all their pages; a page that no entry leads to fails the build.
TABS: dict[str, tuple[str, ...]] = {
    "Start": ("README.md", "docs/quick-start.md", "docs/tutorials/", "docs/faq.md"),
    "How to": ("docs/guides/", "docs/scale.md"),
    "Understand": ("docs/explained/", "docs/glossary.md", "SECURITY.md"),
    "Reference": ("docs/reference/commands.md", "docs/reference/configuration/", "docs/reference/python.md"),
    "Measured": ("docs/benchmarks/", "data_cards/"),
    "Extend": ("docs/architecture.md", "docs/extend/", "docs/decisions/", "CONTRIBUTING.md", "CHANGELOG.md"),
}
# Of those that head a folder or whose title is too long for a column.
TITLES = {
    "README.md": "What medgen is",
    "docs/tutorials/": "Tutorials",
    "docs/reference/configuration/": "Configuration",
    "docs/decisions/": "Decisions",
    "docs/extend/": "Add a ...",
    "docs/benchmarks/": "Benchmarks",
    "data_cards/": "Data cards",
    "docs/guides/anomaly.md": "Anomaly detection",
    "docs/reference/configuration/README.md": "How settings are given",
    "docs/reference/configuration/shared.md": "Shared groups",
    "docs/tutorials/anomaly.md": "Anomaly detection",
    "docs/tutorials/augment.md": "Labelled synthesis",
    "docs/decisions/README.md": "All decisions",
}
# What a tab opens with: its folder is not put below a heading of its own.
_FLAT = {"docs/guides/", "docs/explained/"}


def navigation(pages: Path) -> list[Entry]:
    """The tabs of the site with all pages of a folder, each under its title.

    Raises:
        ValueError: If a page is missing, or no tab leads to one that is there.
    """
    there = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    seen: set[str] = set()
    tabs: list[Entry] = []
    for tab, names in TABS.items():
        entries: list[Entry] = []
        for name in names:
            found = _below(name, there) if name.endswith("/") else [name]
            if not found or not {*found} <= there:
                raise ValueError(f"{name}: the navigation leads there, and there is no such page")
            seen |= {*found}
            own: list[Entry] = [{_title(pages, page): page} for page in found]
            entries += own if name in _FLAT or not name.endswith("/") else [{TITLES[name]: own}]
        tabs.append({tab: entries})
    if lost := sorted(there - seen):
        raise ValueError(f"{lost[0]}: no entry of the navigation leads to this page; add it to docs/site/navigation.py")
    return tabs


def written(entries: Iterable[Entry]) -> str:
    """The navigation in TOML."""
    return f"[{', '.join(map(_written, entries))}]"


def _written(entry: Entry) -> str:
    if isinstance(entry, str):
        return json.dumps(entry)
    pairs = (
        f"{json.dumps(title)} = {json.dumps(to) if isinstance(to, str) else written(to)}" for title, to in entry.items()
    )
    return f"{{ {', '.join(pairs)} }}"


def _below(folder: str, there: set[str]) -> list[str]:
    found = sorted(name for name in there if name.startswith(folder))
    # The page of the folder itself first.
    return sorted(found, key=lambda name: not name.endswith("/README.md"))


def _title(pages: Path, page: str) -> str:
    if page in TITLES:
        return TITLES[page]
    lines = (pages / page).read_text(encoding="utf-8").splitlines()
    heading = next((line for line in lines if line.startswith("# ")), "")
    if not heading:
        raise ValueError(f"{page}: has no heading; begin it with '# title'")
    return heading.removeprefix("# ").replace("`", "")
