"""Cases in shards: nothing lost, nothing doubled, whatever dies; other settings refused; one journal that verifies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from medgen.audit.chain import check_journal
from medgen.errors import ConfigError, DataError, TrainingError
from medgen.runs.cases.executors import names
from medgen.runs.cases.manifest import Item, stamp
from medgen.runs.cases.map_cases import Spread, map_cases
from medgen.runs.cases.resources import Resources
from medgen.runs.chain import head_of
from medgen.runs.journal import Journal, entries
from medgen.runs.run import Run

# In a file of its own, since workers import it.
MAPPED = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Square:
    calls: Path
    kill_at: int = -1
    times: int = 1
    fail_at: int = -1
    slow: float = 0.0

    def __call__(self, task, place):
        with self.calls.open("a") as file:
            file.write(f"{task}\\n")
        time.sleep(self.slow)
        if task == self.kill_at and self.calls.read_text().split().count(str(task)) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == self.fail_at:
            raise ValueError(f"case {task} is wrong")
        (place / "made").mkdir(exist_ok=True)
        (place / "made" / f"{task}.txt").write_text(str(task * task))
        return {"square": task * task, "nothing": float("nan"), "third": task / 3}
"""


@pytest.fixture
def square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mapped_cases.py").write_text(MAPPED)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    sys.modules.pop("mapped_cases", None)
    from mapped_cases import Square  # type: ignore[import-not-found]

    def made(**told):
        return Square(tmp_path / "calls", **told)

    return made


def items(count: int, version: str = "0") -> list[Item]:
    return [Item(f"case{number:03d}", number, {"image": f"{number}-{version}"}) for number in range(count)]


def mapped(function, out: Path, count: int = 10, spread: Spread | None = None, **told):
    spread = spread or Spread(shards=4)
    settings = told.pop("settings", {"level": 1})
    given = told.pop("given", items(count))
    return list(
        map_cases(
            function, given, count=count, folder=out / "shards", settings=settings, spread=spread, out=out, **told
        )
    )


def calls(tmp_path: Path) -> Counter[int]:
    return Counter(map(int, (tmp_path / "calls").read_text().split()))


def check(found, out: Path, count: int = 10) -> None:
    """Every case once, in order, with its numbers to the last bit and its file."""
    assert [name for name, _ in found] == [f"case{number:03d}" for number in range(count)]
    assert [result["square"] for _, result in found] == [number * number for number in range(count)]
    assert [result["third"] for _, result in found] == [number / 3 for number in range(count)]
    assert all(result["nothing"] != result["nothing"] for _, result in found)
    written = {path.name: path.read_text() for path in (out / "made").iterdir()}
    assert written == {f"{number}.txt": str(number * number) for number in range(count)}


SPREADS = {
    "one": Spread(workers=1, shards=1),
    "many": Spread(workers=3, shards=10),
    "slurm": Spread("slurm", 2, 3, Resources(submit_to="local", minutes=2)),
    "dask": Spread("dask", 2, 4),
}


@pytest.mark.parametrize("which", SPREADS)
def test_results_are_those_of_a_loop_however_they_are_spread(which: str, square, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = mapped(square(), tmp_path / "out", spread=SPREADS[which], progress=lambda *done: told.append(done))
    check(found, tmp_path / "out")
    assert set(calls(tmp_path).values()) == {1}
    assert told[-1] == (10, 10)
    # Nothing that only workers need is left, and no half of a shard.
    left = {path.name.rstrip("0123456789") for path in (tmp_path / "out" / "shards").iterdir()}
    assert left == {"plan.json", "shard-"}


@pytest.mark.parametrize("which", ["many", "slurm", "dask"])
def test_a_killed_worker_costs_one_shard_that_is_named_and_tried_again(
    which: str, square, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spread = Spread(SPREADS[which].executor, 2, 5, SPREADS[which].resources)
    found = mapped(square(kill_at=5), tmp_path / "out", spread=spread)
    check(found, tmp_path / "out")
    # The shard of the cases 4 and 5 was begun twice, all others once.
    assert {case: times for case, times in calls(tmp_path).items() if times > 1} == {4: 2, 5: 2}
    said = [record.getMessage() for record in caplog.records if "its worker has died" in record.getMessage()]
    assert len(said) == 1
    assert "shard 2 (case004 to case005), at case005" in said[0]


def test_a_case_that_ends_every_worker_is_given_up_and_the_rest_is_kept(square, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"case case005: its worker has died 2 times \(exit code -9\)"):
        mapped(square(kill_at=5, times=9), tmp_path / "out", spread=Spread(workers=1, shards=10), tries=2)
    before = calls(tmp_path)
    assert before[5] == 2
    assert set(before) == {0, 1, 2, 3, 4, 5}
    check(mapped(square(), tmp_path / "out", spread=Spread(workers=2)), tmp_path / "out")
    assert {case: calls(tmp_path)[case] for case in range(5)} == dict.fromkeys(range(5), 1)


def test_an_error_of_a_case_comes_through_and_is_not_tried_again(square, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="case 5 is wrong"):
        mapped(square(fail_at=5), tmp_path / "out")
    assert calls(tmp_path)[5] == 1
    assert not list((tmp_path / "out" / "shards").glob(".tmp-*"))


def test_what_is_finished_is_not_done_again_unless_it_has_changed(square, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mapped(square(), out)
    check(mapped(square(), out), out)
    assert set(calls(tmp_path).values()) == {1}
    # The file of a case is another one: its shard of three is done anew.
    given = items(10)
    given[4] = items(10, "new")[4]
    check(mapped(square(), out, given=given), out)
    assert {case for case, times in calls(tmp_path).items() if times == 2} == {3, 4, 5}
    # So is one of which a result or a file was changed, or whose journal was.
    with (out / "shards" / "shard-00000" / "results.jsonl").open("a") as file:
        file.write("{}\n")
    (out / "made" / "9.txt").unlink()
    with (out / "shards" / "shard-00002" / "journal.jsonl").open("a") as file:
        file.write("{}\n")
    check(mapped(square(), out, given=given), out)
    assert calls(tmp_path) == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2}


def test_shards_of_other_settings_and_another_division_are_refused(square, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mapped(square(), out)
    with pytest.raises(ConfigError, match=r"holds shards of other settings \(level\); use the same values") as refused:
        mapped(square(), out, settings={"level": 2})
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"divided into 4 shard\(s\), not 5; use --shards 4"):
        mapped(square(), out, spread=Spread(shards=5))
    assert set(calls(tmp_path).values()) == {1}
    # Other workers and no word on shards are no other settings.
    mapped(square(), out, spread=Spread(workers=5))
    assert set(calls(tmp_path).values()) == {1}


PARENT = """
import sys
from pathlib import Path
from mapped_cases import Square
from medgen.runs.cases.manifest import Item
from medgen.runs.cases.map_cases import Spread, map_cases
if __name__ == "__main__":
    out = Path(sys.argv[1])
    items = [Item(f"case{n:03d}", n, {"image": f"{n}-0"}) for n in range(10)]
    told = dict(count=10, folder=out / "shards", settings={"level": 1}, spread=Spread(shards=10), out=out)
    for name, _ in map_cases(Square(out.parent / "calls", slow=0.3), items, **told):
        print(name, flush=True)
"""


def test_a_killed_parent_takes_its_workers_along_and_the_next_goes_on(square, tmp_path: Path) -> None:
    out, script = tmp_path / "out", tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), str(out)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        for _ in range(3):
            parent.stdout.readline()
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    check(mapped(square(), out, spread=Spread(shards=10)), out)
    again = calls(tmp_path)
    assert set(again) == set(range(10))
    assert [again[case] for case in range(3)] == [1, 1, 1]
    # Only what was under way when the parent was killed was begun twice.
    assert sum(times - 1 for times in again.values()) <= 2


def test_two_commands_in_one_folder_do_not_sweep_away_each_others_work(square, tmp_path: Path) -> None:
    out, script = tmp_path / "out", tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), str(out)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(ConfigError, match="another medgen command is having these shards done"):
            mapped(square(), out, spread=Spread(shards=10))
        first.stdout.read()
        assert first.wait(60) == 0
    assert not list((out / "shards").glob(".*"))
    assert calls(tmp_path) == dict.fromkeys(range(10), 1)
    check(mapped(square(), out, spread=Spread(shards=10)), out)


def test_journals_become_one_whose_chain_holds(square, tmp_path: Path) -> None:
    out = tmp_path / "out"
    journal = Journal(out)
    run = Run("scoring", out, journal)
    with run.recorded({}):
        check(mapped(square(kill_at=5), out, spread=Spread(shards=5), run=run), out)
    journal.close()
    head = head_of(out / "journal.jsonl")
    checked = check_journal(out / "journal.jsonl", {"lines": head.lines, "chain": head.chain})
    assert (checked.chained, checked.faults) == (True, ())
    said = [entry for entry, _ in entries(out / "journal.jsonl")]
    assert {entry["run"] for entry in said} == {run.id}
    numbers = [entry for entry in said if entry["kind"] == "metrics" and "shard.cases" in entry["values"]]
    assert [(entry["step"], entry["values"]["shard.cases"]) for entry in numbers] == [(n, 2) for n in range(5)]
    begun = [entry["values"]["shard.begun"] for entry in said if "shard.begun" in entry.get("values", {})]
    assert begun == [1, 1, 2, 1, 1]
    tags = {key: value for entry in said if entry["kind"] == "tags" for key, value in entry["values"].items()}
    assert tags["medgen.shards"] == "5"
    # A merge that altered a line would not hold.
    text = (out / "journal.jsonl").read_text().replace('"shard.begun": 2', '"shard.begun": 1')
    (out / "journal.jsonl").write_text(text)
    assert check_journal(out / "journal.jsonl", {"lines": head.lines, "chain": head.chain}).faults


def test_cases_are_as_many_and_as_different_as_was_said(square, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 10 cases"):
        mapped(square(), tmp_path / "a", given=items(9))
    with pytest.raises(DataError, match="10 cases"):
        mapped(square(), tmp_path / "b", given=items(11))
    with pytest.raises(DataError, match="different names"):
        mapped(square(), tmp_path / "c", given=[*items(9), items(9)[8]], spread=Spread(shards=1))
    assert list(map_cases(square(), [], count=0, folder=tmp_path / "d", settings={}, spread=Spread())) == []


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(square, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written, a file is where a folder is expected") as refused:
        mapped(square(), tmp_path / "file")
    assert "\n" not in str(refused.value)
    if os.getuid() != 0:
        (tmp_path / "mine").mkdir(mode=0o500)
        with pytest.raises(DataError, match="cannot be written"):
            mapped(square(), tmp_path / "mine")


def test_nothing_is_held_for_each_case(square, tmp_path: Path) -> None:
    """The generator of cases is at most one shard ahead of what was written."""
    seen = []

    def stream():
        for item in items(40):
            seen.append(item.name)
            yield item

    running = map_cases(
        square(), stream(), count=40, folder=tmp_path / "s", settings={}, spread=Spread(workers=1, shards=20)
    )
    first = next(running)
    assert first[0] == "case000"
    # The worker of later shards is not waited for.
    assert len(list(tmp_path.glob("s/shard-*"))) < 20
    running.close()
    deadline = time.monotonic() + 20
    while any("spawn_main" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.1)


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    assert stamp(file) == ""
    file.write_text("one")
    (tmp_path / "b.nii").write_text("one")
    before, folder = stamp(file), stamp(tmp_path)
    file.write_text("other")
    assert len({before, folder, stamp(file), stamp(tmp_path)}) == 4
    assert len(before) == 64


def test_every_executor_has_been_tried_here() -> None:
    assert {spread.executor for spread in SPREADS.values()} == set(names())


def test_a_function_that_cannot_be_handed_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be handed to another process"):
        mapped(lambda task, place: 0, tmp_path / "out")
