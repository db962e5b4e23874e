"""Build the documentation site: ``python docs/site`` (``make docs``); every warning is an error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import configuration
import links
import navigation
import notebooks
import pages
import python_api

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "docs"
# Beside docs/: their links to one another are the same on the site as in the repository.
TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
_NO_PAGES = {"site"}


def assemble(root: Path, build: Path) -> None:
    """Put all pages, written and generated, and the configuration into ``build``, as they lie in the repository.

    Args:
        root: The repository.
        build: Folder that is made anew.
    """
    shutil.rmtree(build, ignore_errors=True)
    tree = build / "pages"
    written = [root / name for name in TOP]
    written += [path for folder in ("docs", "data_cards") for path in (root / folder).rglob("*") if path.is_file()]
    for path in written:
        name = path.relative_to(root)
        if _NO_PAGES & {*name.parts} or path.suffix not in {".md", ".png", ".ipynb"}:
            continue
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(pages.for_site(path.read_text(encoding="utf-8")), encoding="utf-8")
        elif path.suffix == ".ipynb":
            notebooks.write(path, target.with_suffix(".md"))
        else:
            shutil.copyfile(path, target)
    generated = {"commands.md": commands.page(), "python.md": python_api.page(), **configuration.pages()}
    for name, text in generated.items():
        target = tree / "docs" / "reference" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    (tree / "assets").mkdir()
    shutil.copyfile(root / "docs" / "site" / "iframe-worker.js", tree / "assets" / "iframe-worker.js")
    settings = (root / "docs" / "site" / "zensical.toml").read_text(encoding="utf-8")
    nav = f"nav = {navigation.written(navigation.navigation(tree))}"
    (build / "zensical.toml").write_text(settings.replace("nav = []", nav, 1), encoding="utf-8")


def build(folder: Path) -> list[str]:
    """Build the site of an assembled folder into ``folder / "site"``.

    Returns:
        What is wrong, a line each; the output of zensical if it refuses.
    """
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        # What is wrong, and then a traceback of zensical's own, which says no more than that it stopped.
        said, _, _ = done.stderr.partition("Traceback (most recent call last)")
        return [re.sub(r"\x1b\[[\d;]*m", "", said.strip() or done.stderr)]
    return links.problems(folder / "site")


def main() -> int:
    """Assemble and build; 1 if anything is wrong."""
    try:
        assemble(ROOT, BUILD)
        wrong = build(BUILD)
    except ValueError as error:
        wrong = [str(error)]
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"documentation: {(BUILD / 'site' / 'index.html').relative_to(ROOT)} (opens without a server)")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
