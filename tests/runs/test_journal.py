"""The journal: whole lines only, sequence ids, cursors, and texts without paths."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medgen.runs import journal, plain_text


def test_entries_are_numbered_and_read_from_any_offset(tmp_path):
    book = journal.Journal(tmp_path)
    for value in (1.0, float("nan"), float("-inf")):
        book.append("r", "metrics", values={"a": value}, step=0)
    book.close()
    found = list(journal.entries(tmp_path / journal.NAME))
    assert [entry["seq"] for entry, _ in found] == [0, 1, 2]
    assert math.isnan(float(found[1][0]["values"]["a"]))
    rest = list(journal.entries(tmp_path / journal.NAME, found[0][1]))
    assert rest == found[1:]


def test_a_torn_line_is_passed_over_and_writing_goes_on(tmp_path):
    book = journal.Journal(tmp_path)
    book.append("r", "tags", values={})
    book.close()
    path = tmp_path / journal.NAME
    with path.open("a") as file:
        file.write('{"seq": 1, "run": "r", "ti')
    assert len(list(journal.entries(path))) == 1
    again = journal.Journal(tmp_path)
    again.append("r", "tags", values={"b": "1"})
    again.close()
    assert [entry["seq"] for entry, _ in journal.entries(path)] == [0, 1]


def test_threads_do_not_mix_lines(tmp_path):
    book = journal.Journal(tmp_path)

    def work() -> None:
        for step in range(50):
            book.append("r", "metrics", values={"a": 1.0}, step=step)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    book.close()
    assert [entry["seq"] for entry, _ in journal.entries(tmp_path / journal.NAME)] == list(range(200))


def test_open_runs_are_those_without_an_end(tmp_path):
    book = journal.Journal(tmp_path)
    book.append("a", "start")
    book.append("b", "start")
    book.append("a", "end", status="FINISHED")
    book.close()
    assert set(journal.open_runs(tmp_path / journal.NAME)) == {"b"}


def test_cursor_counts_for_its_own_store_only(tmp_path):
    journal.Cursor("here", 12, {"a": "b"}).save(tmp_path)
    assert journal.Cursor.load(tmp_path, "here") == journal.Cursor("here", 12, {"a": "b"})
    assert journal.Cursor.load(tmp_path, "there") == journal.Cursor("there")
    (tmp_path / journal.CURSOR).write_text("{")
    assert journal.Cursor.load(tmp_path, "here") == journal.Cursor("here")


def test_lock_is_seen_by_another_process(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from medgen.runs.journal import locked\n"
        "with locked(Path(sys.argv[1]), wait=False) as held: print(held)"
    )
    with journal.locked(path) as held:
        assert held
        command = [sys.executable, "-c", code, str(path)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/ann/my scans/", "my scans"),
        ("~/scans", "scans"),
        ("C:\\Users\\ann\\scans", "scans"),
        ("../shared/data", "../shared/data"),
        ("read /home/ann/a.nii.gz and /b/c, done", "read a.nii.gz and c, done"),
        ("http://host:5000/path/x", "http://host:5000/path/x"),
        ("mean/std", "mean/std"),
        ("/", "/"),
        (Path("/a/b"), "b"),
        ({"a": ["/x/y", 3]}, {"a": ["y", 3]}),
        (1.5, 1.5),
    ],
)
def test_scrub(value, expected):
    assert plain_text.scrub(value) == expected


def test_scrub_knows_the_home_folder(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert plain_text.scrub("/home/ann") == "~"
    assert "ann" not in plain_text.scrub("failed in /home/ann")


def test_names_params_and_stores(tmp_path, monkeypatch):
    assert plain_text.clean_name("FPR@TPR95 (%)") == "FPR_TPR95 ___"
    assert plain_text.flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert plain_text.param_text("x" * 6001).startswith("sha256:")
    assert json.loads(plain_text.param_text([1, None])) == [1, None]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert journal.store_uri(tmp_path / "runs" / "a") == journal.store_uri(tmp_path / "runs" / "b")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://u:p@host/x")
    assert plain_text.printable(journal.store_uri(tmp_path)) == "https://host/x"
