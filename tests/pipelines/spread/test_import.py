"""An import in shards writes the files of an import in turn, and one that was interrupted goes on."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError
from medgen.pipelines import import_cohort as importing
from medgen.runs.cases.map_cases import Spread


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five subjects, of whom one scan is damaged."""
    folder = tmp_path_factory.mktemp("source") / "cohort"
    manifest = simulate(folder, n=5, seed=0, spacing=8)
    image = manifest.cases[1].images[0]
    image.write_bytes(image.read_bytes()[:300])
    return folder


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_file_is_that_of_an_import_in_turn(source: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    alone = importing.run(source, tmp_path / "a" / "imported", CohortConfig(), workers=1, key=key)
    told: dict[str, Any] = {"workers": 1, "key": key}
    spread = importing.run(source, tmp_path / "b" / "imported", CohortConfig(), **told, spread=Spread("local", 2, 3))
    assert (alone.exit_code, spread.exit_code) == (1, 1)
    first, second = content(tmp_path / "a" / "imported"), content(tmp_path / "b" / "imported")
    assert len(first) > 8
    assert first == second
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["imported"]
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "b").rglob("*")}
    assert modes == {0}


def test_an_import_that_was_interrupted_converts_only_what_is_missing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, place = tmp_path / "imported", tmp_path / "shards"
    told: dict[str, Any] = {"workers": 1, "spread": Spread("local", 1, 5), "shards_in": place}
    with monkeypatch.context() as patch:
        patch.setattr(importing, "collect", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            importing.run(source, out, CohortConfig(), **told)
    assert not out.exists()
    before = {path.name: path.stat().st_mtime_ns for path in place.glob("shard-*")}
    assert len(before) == 5
    with pytest.raises(ConfigError, match=r"shards of other settings \(cohort\)"):
        importing.run(source, out, CohortConfig(fill=0.0), **told)
    kept: dict[str, int] = {}
    real = importing.collect

    def noted(folder: Path, target: Path) -> None:
        kept.update({path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")})
        real(folder, target)

    monkeypatch.setattr(importing, "collect", noted)
    importing.run(source, out, CohortConfig(), **told)
    # The key was kept before anything was converted, so that the ids are the same.
    assert kept == before
    assert not list(place.iterdir())
    other = importing.run(source, tmp_path / "c" / "imported", CohortConfig(), workers=1, key=importing.key_file(out))
    assert other.exit_code == 1
    assert content(out) == content(tmp_path / "c" / "imported")


def test_a_folder_with_something_else_is_not_taken_for_shards(source: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "notes.txt").write_text("mine")
    with pytest.raises((ConfigError, DataError), match="something else than shards"):
        importing.run(
            source,
            tmp_path / "x",
            CohortConfig(),
            workers=1,
            spread=Spread("local", 1, 2),
            shards_in=tmp_path / "shards",
        )
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["notes.txt"]
