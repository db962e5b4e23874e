"""Every page of ``docs/extend`` followed literally: its files are written into a copy, and the suites have to pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "extend").glob("*.md"))
# A file's name in a line of its own, then the file.
_FILE = re.compile(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)```$", re.MULTILINE | re.DOTALL)
CHOSEN = "projection or gradient or mine or mirror or flat or brightness or rim or zipper or volumes or anomaly-"


def files(page: Path) -> dict[str, str]:
    """Name and content of every file that a page shows."""
    return dict(_FILE.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_whole_files(page: Path) -> None:
    found = files(page)
    assert found
    for name, content in found.items():
        compile(content, name, "exec")
        assert content.startswith('"""')


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pages_followed_literally_pass_the_suites(tmp_path: Path) -> None:
    for name in ("medgen", "tests", "docs", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    # As installed: pipelines and configurations are packages below medgen.
    for name in ("pipelines", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "medgen" / name)
    written = [file for page in PAGES for file in files(page).items()]
    for name, content in written:
        path = tmp_path / (f"medgen/{name}" if name.startswith("pipelines/") else name)
        assert not path.exists(), name
        path.write_text(content, encoding="utf-8")
    stages = tmp_path / "medgen" / "pipelines" / "anomaly" / "stages" / "__init__.py"
    text = stages.read_text(encoding="utf-8")
    text = text.replace("            Groups(),\n", "            Groups(),\n            MeasureVolumes(),\n")
    stages.write_text(f"{text}\n".replace("from .train", "from .volumes import MeasureVolumes\nfrom .train"))
    suites = [
        "tests/conformance",
        "tests/segmentation/ordinary/test_arms.py",
        "tests/synthesis/planning/test_router.py",
        "tests/synthesis/test_pair.py",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *suites, "-k"]
    ended = subprocess.run(
        [*command, f"({CHOSEN}) or arms or router"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed
    assert int(passed[1]) > 90
