"""Files and folders are their owner's, whatever the process' umask, unless a setting says otherwise."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from medgen.errors import ConfigError
from medgen.runs import journal
from medgen.system import files, modes
from medgen.system.new_folder import new_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a library may meet: nothing is taken away."""
    monkeypatch.delenv("MEDGEN_UMASK", raising=False)
    before = os.umask(0)
    yield
    os.umask(before)


def write_all(root: Path) -> dict[str, int]:
    files.write_json(root / "a" / "b.json", {})
    files.write_csv(root / "a" / "b.csv", [], ["x"])
    with new_folder(root / "model") as folder:
        files.write_text(folder / "x.txt", "x")
    log = journal.Journal(root / "run")
    log.append("r", "start", tags={})
    log.close()
    with journal.locked(root / "run" / journal.LOCK):
        pass
    return {path.relative_to(root).as_posix(): mode(path) for path in root.rglob("*")}


@pytest.mark.parametrize(("told", "file", "folder"), [(None, 0o600, 0o700), ("027", 0o640, 0o750), ("7", 0o660, 0o770)])
def test_permissions(tmp_path, monkeypatch, told, file, folder):
    if told is not None:
        monkeypatch.setenv("MEDGEN_UMASK", told)
    found = write_all(tmp_path / "new")
    folders = {name for name in found if (tmp_path / "new" / name).is_dir()}
    assert folders == {"a", "model", "run"}
    assert len(found) == 8
    assert {found[name] for name in folders} == {folder}
    assert {found[name] for name in found.keys() - folders} == {file}
    assert mode(tmp_path / "new") == folder


def test_a_folder_that_was_there_keeps_its_permissions(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o775)
    modes.make_folder(tmp_path / "shared" / "own")
    assert mode(tmp_path / "shared") == 0o775
    assert mode(tmp_path / "shared" / "own") == 0o700


@pytest.mark.parametrize("told", ["8", "rwx", "0777", "-1", "0o77", "²"])
def test_a_setting_that_is_none_is_refused(monkeypatch, told):
    monkeypatch.setenv("MEDGEN_UMASK", told)
    with pytest.raises(ConfigError, match="MEDGEN_UMASK"):
        modes.umask()
