"""A check in shards says what a check in threads says, to the last word, and looks at changed files again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medgen import io
from medgen.data.integrity import check, look
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.detect import load_cohort
from medgen.data.looked import Looked
from medgen.data.simulation import simulate
from medgen.errors import ConfigError
from medgen.pipelines.cli.app import app
from medgen.pipelines.spread.check import run
from medgen.runs.cases.map_cases import Spread
from medgen.runs.cases.resources import Resources


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects; one scan is damaged, one is constant, one is there under two subjects, one mask is empty."""
    folder = tmp_path_factory.mktemp("checked") / "cohort"
    manifest = simulate(folder, n=6, seed=0, spacing=8)
    images = [case.images[0] for case in manifest]
    images[0].write_bytes(images[0].read_bytes()[:500])
    volume = io.read(images[1])
    io.write(volume.with_data(np.full_like(volume.data, 7)), images[1])
    io.write(io.read(images[2]), images[3])
    assert manifest.cases[4].mask is not None
    mask = io.read(manifest.cases[4].mask)
    io.write(mask.with_data(np.zeros_like(mask.data)), manifest.cases[4].mask)
    return folder


def test_what_was_looked_at_elsewhere_is_the_same_to_the_last_bit(cohort: Path) -> None:
    manifest = load_cohort(cohort, CohortConfig())
    for case in manifest:
        here = look(case, manifest.root, manifest.labels)
        there = Looked.from_plain(case, json.loads(json.dumps(here.to_plain())))
        assert (there.case, there.faults, there.content) == (here.case, here.faults, here.content)
        assert (there.channels, there.notes, there.values) == (here.channels, here.notes, here.values)
        assert (there.traits is None) == (here.traits is None)
        if here.traits is not None and there.traits is not None:
            assert there.traits.sample.tobytes() == here.traits.sample.tobytes()
            assert there.traits.grid.same_as(here.traits.grid)
            assert np.array_equal(there.traits.grid.affine, here.traits.grid.affine)
            assert (there.traits.labels, there.traits.shape) == (here.traits.labels, here.traits.shape)


@pytest.mark.parametrize(
    "spread",
    [
        Spread("local", 2, 3),
        Spread("local", 1, 6),
        Spread("slurm", 2, 2, Resources(submit_to="local", minutes=3)),
        Spread("dask", 2, 2),
    ],
    ids=["two", "each", "slurm", "dask"],
)
def test_every_fault_is_found_in_the_same_order(cohort: Path, spread: Spread, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = run(cohort, CohortConfig(), spread, tmp_path / "shards", lambda *done: told.append(done))
    alone = check(cohort)
    assert len(alone.faults) >= 4
    assert found.to_plain(cohort) == alone.to_plain(cohort)
    assert told == [(number, 6) for number in range(1, 7)]


def test_only_the_shards_of_changed_files_are_looked_at_again(tmp_path: Path) -> None:
    manifest = simulate(tmp_path / "cohort", n=4, seed=0, spacing=8)
    spread, place = Spread("local", 1, 4), tmp_path / "shards"
    before = run(tmp_path / "cohort", CohortConfig(), spread, place)
    assert before.ok
    made = {path.name: path.stat().st_mtime_ns for path in place.glob("shard-*")}
    image = manifest.cases[2].images[0]
    volume = io.read(image)
    io.write(volume.with_data(np.full_like(volume.data, 7)), image)
    after = run(tmp_path / "cohort", CohortConfig(), spread, place)
    assert after.to_plain(tmp_path) == check(tmp_path / "cohort").to_plain(tmp_path)
    assert not after.ok
    changed = [path.name for path in place.glob("shard-*") if path.stat().st_mtime_ns != made[path.name]]
    assert changed == ["shard-00002"]
    with pytest.raises(ConfigError, match=r"shards of other settings \(cohort\)"):
        run(tmp_path / "cohort", CohortConfig(fill=0.0), spread, place)


def test_the_command_says_the_same_and_plans_before_it_works(cohort: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    alone = runner.invoke(app, ["data", "check", str(cohort)])
    spread = runner.invoke(app, ["data", "check", str(cohort), "--executor", "local", "--shards", "3"])
    assert (spread.exit_code, spread.output) == (alone.exit_code, alone.output)
    (tmp_path / "r.yaml").write_text("submit_to: local\nminutes: 30\npartition: long\n")
    cluster = ["--executor", "slurm", "--resources", str(tmp_path / "r.yaml")]
    planned = runner.invoke(
        app, ["data", "check", str(cohort), *cluster, "--shards-in", str(tmp_path / "s"), "--shards", "3", "--dry-run"]
    )
    assert planned.exit_code == 0
    assert "6 case(s) in 3 shard(s)" in planned.output
    assert "on partition long" in planned.output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--executor", "dsak"], "did you mean 'dask'"),
        (["--executor", "dask"], "--shards-in"),
        (["--shards-in", "x"], "expected --executor or --shards"),
        (["--executor", "local", "--resources", "x.yaml"], "expected --executor slurm or dask"),
        (["--executor", "dask", "--resources", "absent.yaml", "--shards-in", "x"], "absent.yaml"),
    ],
)
def test_options_that_do_nothing_are_refused(cohort: Path, options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["data", "check", str(cohort), *options])
    assert done.exit_code != 0
    assert words in f"{done.output} {done.exception}"
