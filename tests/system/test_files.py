import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medgen.errors import DataError
from medgen.metrics.interval import Interval
from medgen.system import files


def test_atomic_path_replaces_whole_files_only(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    files.write_text(path, "old")

    def fail_half_way():
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    files.write_bytes(path, b"new")
    assert path.read_text() == "new"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        files.write_text(tmp_path / "file" / "below.txt", "x")


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old" * 1000)
    code = (
        "import sys\nfrom medgen.system import files\nprint('go', flush=True)\n"
        "for number in range(10**6): files.write_bytes(sys.argv[1], bytes([number % 256]) * 3000000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    content = path.read_bytes()
    assert content == b"old" * 1000 or (len(content) == 3000000 and len(set(content)) == 1)


def test_json(tmp_path):
    value = {"b": np.float32(1.5), "a": [np.nan, float("inf"), None, True], "p": Path("x/y"), "n": np.arange(2)}
    files.write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "b": 1.5,
        "a": [None, None, None, True],
        "p": "x/y",
        "n": [0, 1],
    }
    assert list(files.read_json(tmp_path / "a.json")) == ["b", "a", "p", "n"]
    with pytest.raises(DataError, match="no such file"):
        files.read_json(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        files.read_json(tmp_path / "bad.json")
    with pytest.raises(DataError, match="at most 1 are accepted"):
        files.read_json(tmp_path / "a.json", limit=1)
    with pytest.raises(TypeError):
        files.plain(object())


def test_dataclasses_are_plain_data_by_their_fields():
    told = files.plain({"rates": [Interval(0.5, float("nan"), 1.0, 7)]})
    assert told == {"rates": [{"estimate": 0.5, "low": None, "high": 1.0, "n": 7, "level": 0.95}]}
    assert files.seal_holds(files.sealed(told))


def test_csv(tmp_path):
    rows = [{"id": "a,b", "x": 1 / 3}, {"id": "c", "x": float("nan")}, {"id": 'q"q', "x": None}, {"id": "d"}]
    files.write_csv(tmp_path / "a.csv", rows, ("id", "x"))
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["id", "x"], ["a,b", "0.333333"], ["c", ""], ['q"q', ""], ["d", ""]]
    # What starts like a formula is made harmless; numbers, and lists of them, are not touched.
    cells = ["=1+1", "-1.5", "-1.20; 0.30", "-1; @x"]
    files.write_csv(tmp_path / "c.csv", [{"x": cell} for cell in cells], ("x",))
    with (tmp_path / "c.csv").open(newline="") as file:
        assert [row["x"] for row in csv.DictReader(file)] == ["'=1+1", "-1.5", "-1.20; 0.30", "'-1; @x"]
    with pytest.raises(ValueError, match="fields"):
        files.write_csv(tmp_path / "b.csv", [{"other": 1}], ("id",))
    assert not (tmp_path / "b.csv").exists()


def test_hashes(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        files.sha256_file(tmp_path / "absent")
    assert files.sha256_json({"a": 1, "b": [2]}) == files.sha256_json({"b": (2,), "a": np.int64(1)})
    assert files.sha256_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
