"""The container file copies what there is, nothing that is left out of its context, and installs extras that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def copied() -> set[str]:
    """What is copied from the checkout into the image."""
    return {name for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE) for name in line.split()[:-1]}


def test_all_that_is_copied_is_there_and_in_the_context() -> None:
    kept = [line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")]
    assert copied() == set(kept)
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_every_package_of_the_wheel_is_copied() -> None:
    folders = {"medgen", *PROJECT["tool"]["setuptools"]["package-dir"].values()}
    assert {Path(folder).parts[0] for folder in folders} <= copied()
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied()


def test_extras_exist_and_the_python_of_the_base_will_do() -> None:
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', TEXT)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    # Debian 12 has Python 3.11.
    assert "bookworm" in TEXT
    assert PROJECT["project"]["requires-python"] == ">=3.11"


@pytest.mark.parametrize(("compute", "words"), [("cpu", "--index-url I"), ("cuda", "-c constraints.txt"), ("tpu", "")])
def test_the_build_argument_chooses_the_wheels_of_torch(compute: str, words: str) -> None:
    step = next(line for line in re.findall(r"^RUN ((?:.*\\\n)*.*)$", TEXT, re.MULTILINE) if "torch==" in line)
    ended = subprocess.run(
        ["sh", "-ec", f'pip() {{ echo pip "$@"; }}\n{step}'],
        env={"PATH": "/usr/bin:/bin", "COMPUTE": compute, "TORCH_CPU_INDEX": "I"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == (0 if words else 2), ended.stderr
    assert words in ended.stdout
    assert bool(re.search(r"torch==\d+\.\d+\.\d+$", ended.stdout.strip())) == bool(words)
    assert words or "expected cpu or cuda" in ended.stderr


def test_the_image_runs_as_nobody_special() -> None:
    last = TEXT.rpartition("\nFROM ")[2]
    assert re.search(r"^USER medgen$", last, re.MULTILINE)
    assert not fnmatch(last, "*USER root*")
    assert 'ENTRYPOINT ["medgen"]' in last
