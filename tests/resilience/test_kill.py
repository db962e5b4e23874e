"""Killed at any point and gone on with, a run ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medgen.config import Config
from medgen.errors import ConfigError
from medgen.runs.folder import CONFIG_FILE, REMOVING, open_run
from medgen.runs.recorded_environment import DIFF, ENVIRONMENT

KILL = Path(__file__).with_name("kill.py")


# One fault of each kind here; ``python tests/resilience/kill.py --kills 50`` does every family and both pipelines.
@pytest.mark.slow
def test_every_stage_of_the_writer_and_random_moments():
    command = [sys.executable, str(KILL), "--kills", "2", "--files", "2", "--only", "train vaegan"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    # On a busy machine a run may end before its random moment comes.
    assert re.search(r"total: 1[0-2] kills, 1[0-2] identical", done.stdout), done.stdout


class Settings(Config):
    out: str = "x"


def test_a_kill_at_the_very_first_file_does_not_lock_the_folder(tmp_path):
    (tmp_path / ".tmp-abc-config.yaml").write_text("out:")
    for flags in ({"resume": True}, {}):
        with pytest.raises(RuntimeError), open_run(tmp_path, Settings(), **flags):
            raise RuntimeError
        assert not list(tmp_path.glob(".tmp-*"))
        for name in (CONFIG_FILE, ENVIRONMENT, DIFF):
            (tmp_path / name).unlink(missing_ok=True)


def test_what_a_killed_writer_left_is_swept(tmp_path):
    with pytest.raises(RuntimeError), open_run(tmp_path, Settings()) as folder:  # noqa: PT012
        for name in (".tmp-x-a.json", "heatmaps/.tmp-y-b.nii.gz", ".old-model-z/artifact/w", ".tmp-model-q/w"):
            (folder.out / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.out / name).write_text("half")
        raise RuntimeError
    with open_run(tmp_path, Settings(), resume=True):
        pass
    left = {path.name for path in tmp_path.rglob("*")}
    assert left - {DIFF} == {CONFIG_FILE, ENVIRONMENT, "outputs.json", ".medgen-lock", "heatmaps"}


def test_a_removal_that_was_killed_is_finished_first(tmp_path, monkeypatch):
    with open_run(tmp_path, Settings()) as folder:
        (folder.out / "heatmaps").mkdir()
        (folder.out / "heatmaps" / "old.nii.gz").write_text("of another cohort")
    seen = []

    def killed(entry):
        seen.append(entry)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medgen.runs.folder._delete", killed)
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path, Settings(), overwrite=True):
            pass
    assert (tmp_path / REMOVING).is_file()
    with open_run(tmp_path, Settings(), resume=True):
        assert not (tmp_path / REMOVING).exists()
        assert not (tmp_path / "heatmaps").exists()


LOSER = """
import sys, time
from pathlib import Path
from medgen.config import Config
from medgen.errors import ConfigError
from medgen.runs.folder import open_run
class Settings(Config):
    out: str = "x"
try:
    with open_run(Path(sys.argv[1]), Settings()):
        print("won", flush=True)
        time.sleep(1.5)
except ConfigError as error:
    print(error)
"""


def test_of_eight_runs_in_one_folder_one_wins(tmp_path):
    command = [sys.executable, "-c", LOSER, str(tmp_path / "run")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = [process.communicate(timeout=120)[0].strip() for process in started]
    # One that comes when the winner has ended finds a finished run.
    assert sum(text == "won" for text in said) == 1
    assert all("another medgen run" in text or "already holds a run" in text for text in said if text != "won")


def test_a_folder_that_cannot_be_locked_says_so(tmp_path, monkeypatch):
    import errno
    import fcntl

    def flock(handle, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigError, match="cannot be locked on this file system"), open_run(tmp_path / "a", Settings()):
        pass
