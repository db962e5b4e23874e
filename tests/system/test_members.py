"""Members of a folder: listed without being imported, found by file, wherever the package's path leads."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from medgen.system import members


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A folder of members, of which two cannot be imported."""
    folder = tmp_path / "folder_of_members"
    (folder / "larch").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "_helper": "raise AssertionError('a helper was imported')",
        "broken": "raise AssertionError('a listing imported it')",
        "fir": "oak, fir = 'oak', 'fir'",
        "larch/__init__": "larch = 'larch'",
    }.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "notes.txt").write_text("no member")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("folder_of_members")
    for name in [name for name in sys.modules if name.split(".")[0] == "folder_of_members"]:
        del sys.modules[name]


def test_files_and_folders_are_listed_without_being_imported(package: ModuleType) -> None:
    assert members.names(package) == ["broken", "fir", "larch"]
    assert not [name for name in sys.modules if name.startswith("folder_of_members.")]


def test_only_the_file_that_is_asked_for_is_imported(package: ModuleType) -> None:
    for name in ("fir", "larch"):
        assert members.member(package, name, lambda item, name=name: item == name) == name
        assert members.module(package, name).__name__ == f"folder_of_members.{name}"
    assert members.member(package, "fir", lambda item: item == "elm") is None
    assert "folder_of_members.broken" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        members.module(package, "elm")


def test_a_member_may_lie_in_a_folder_of_ones_own(package: ModuleType, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "yew.py").write_text("yew = 'yew'")
    (own / "fir.py").write_text("fir = 'another fir'")
    package.__path__.append(str(own))
    # Each name once, and the first folder wins, as everywhere in Python.
    assert members.names(package) == ["broken", "fir", "larch", "yew"]
    assert members.member(package, "yew", lambda item: item == "yew") == "yew"
    assert members.member(package, "fir", lambda item: item == "fir") == "fir"


def test_families_arms_and_backends_are_listed_without_their_modules() -> None:
    code = """
import sys
from medgen.models.families import available
assert "vae" in available()
assert "torch" not in sys.modules
from medgen.models.catalogue import available, family_class
def loaded(folder):
    return [name for name in sys.modules if name.startswith(f"medgen.{folder}.")]
assert "dae" in available() and not loaded("models.families")
from medgen.segmentation.ordinary import available as arms
from medgen.synthesis.backends import available as backends
assert "real" in arms() and "deform" in backends()
# Segmenters of studies are models of the family `segmenter`.
assert loaded("models.families") == ["medgen.models.families.segmenter"]
assert not loaded("segmentation.ordinary.arms") + loaded("synthesis.backends")
assert not loaded("synthesis.label_sources") + loaded("synthesis.painters")
family_class("dae")
assert "medgen.models.families.vaegan" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
