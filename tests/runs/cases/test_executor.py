"""What an executor refuses before anything is read: a name that none has, a package or a SLURM that is not there."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from medgen.errors import ConfigError
from medgen.runs.cases import executor as base
from medgen.runs.cases.executors import check_executor, executor, names
from medgen.runs.cases.map_cases import Spread, check_place
from medgen.runs.cases.resources import Resources, read_resources


def test_a_name_that_none_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"--executor: found 'slrum'; expected dask, local or slurm.*'slurm'"):
        check_executor("slrum")
    assert executor("local", 0).workers == 1


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("dask", "dask")])
def test_a_missing_extra_is_said_in_one_line(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(wanted: str) -> str:
        raise PackageNotFoundError(wanted)

    monkeypatch.setattr(base, "version", missing)
    with pytest.raises(ConfigError, match=rf"{package} is not installed; .*pip install 'medgen\[cluster\]'") as refused:
        executor(name, 2)
    assert "\n" not in str(refused.value)
    assert executor("local", 2).name == "local"


def test_slurm_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="there is no sbatch here"):
        executor("slurm", 2)
    assert executor("slurm", 2, Resources(submit_to="local")).name == "slurm"


def test_other_machines_need_a_folder_that_they_reach() -> None:
    with pytest.raises(ConfigError, match="--shards-in"):
        check_place(None, Spread("dask"))
    check_place(None, Spread("local"))
    check_place(Path("shared"), Spread("dask"))


def test_a_plan_says_shards_and_resources() -> None:
    own = Resources(minutes=30, memory_gb=4, cpus=2, partition="long", submit_to="local")
    lines = Spread("slurm", 2, 6, own).words(2500)
    assert lines == [
        "2500 case(s) in 6 shard(s)",
        "1 SLURM array(s) of 6 job(s) on partition long, as 2 process(es) of this machine",
        "each job: 2 core(s), 4 GB, 30 min; at most 6.0 core hours in all",
    ]
    assert "157 shard(s)" in Spread(workers=2).words(10_000)[0]
    assert [len(Spread(name, 2, None, Resources(submit_to="local")).words(10)) for name in names()] == [2, 2, 3]


def test_resources_are_read_from_yaml_and_a_wrong_key_is_named(tmp_path: Path) -> None:
    assert read_resources(None) == Resources()
    (tmp_path / "r.yaml").write_text("minutes: 5\npartition: gpu\nsetup: [module load python]\n")
    assert read_resources(tmp_path / "r.yaml") == Resources(minutes=5, partition="gpu", setup=("module load python",))
    (tmp_path / "r.yaml").write_text("minuts: 5\n")
    with pytest.raises(ConfigError, match="minuts"):
        read_resources(tmp_path / "r.yaml")


def test_a_dask_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medgen.runs.cases.executors import dask

    monkeypatch.setattr(dask, "_SECONDS", 1)
    spread = executor("dask", 1, Resources(scheduler="tcp://127.0.0.1:9"))
    with (
        pytest.raises(ConfigError, match=r"no scheduler answers at tcp://127.0.0.1:9"),
        spread.pool(print, str(tmp_path)),
    ):
        pass
