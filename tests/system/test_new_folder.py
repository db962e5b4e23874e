"""A folder is the earlier one or the new one, and never half of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.errors import DataError
from medgen.system.new_folder import new_folder


def fail(out: Path, error: Exception, replaces: str = "") -> None:
    """Begin a folder, and stop half way."""
    with new_folder(out, replaces) as temporary:
        (temporary / "mark").write_text("half")
        error.args = (f"{temporary / 'b'}: is odd",)
        raise error


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="out/b: is odd") as caught:
        fail(out, DataError())
    assert ".tmp-" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError):
        fail(tmp_path / "made" / "for" / "it", DataError())
    assert list(tmp_path.iterdir()) == []
    with new_folder(out) as temporary:
        (temporary / "a").touch()
        assert not out.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


def test_only_a_folder_of_the_same_kind_is_replaced_and_it_survives_a_failure(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mark").write_text("earlier")
    with pytest.raises(DataError, match="is not empty"), new_folder(out):
        pass
    with pytest.raises(DataError, match="is not empty"), new_folder(out, replaces="other"):
        pass
    with pytest.raises(KeyError):
        fail(out, KeyError(), replaces="mark")
    assert (out / "mark").read_text() == "earlier"
    with new_folder(out, replaces="mark") as temporary:
        (temporary / "mark").write_text("new")
    assert (out / "mark").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
