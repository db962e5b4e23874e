"""Tasks in processes: results, errors, death of a worker, and none left when the parent is killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from medgen.errors import TrainingError
from medgen.system.processes import run_in_processes

SLEEPERS = (
    "import time\nfrom medgen.system.processes import run_in_processes\nlist(run_in_processes(time.sleep, [60, 60], 2))"
)


def test_every_task_has_its_result() -> None:
    tasks = [4.0, 9.0, 16.0, 25.0, 36.0]
    assert dict(run_in_processes(math.sqrt, tasks, 2)) == {task: math.sqrt(task) for task in tasks}
    assert list(run_in_processes(math.sqrt, [], 2)) == []


def test_errors_come_through_and_end_the_others() -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(run_in_processes(math.sqrt, [-1.0, 4.0], 2))
    with pytest.raises(TrainingError, match=r"exit code 3.*fewer workers"):
        list(run_in_processes(os._exit, [3], 1))
    assert not psutil.Process().children(recursive=True) or all(
        "spawn_main" not in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_parent(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPERS]) as parent:
        own = psutil.Process(parent.pid)
        deadline = time.monotonic() + 60
        # The two workers and multiprocessing's resource tracker, which ends with its last user.
        workers: list[psutil.Process] = []
        while len(workers) < 2 and time.monotonic() < deadline:
            workers = [child for child in own.children() if "spawn_main" in " ".join(child.cmdline())]
            time.sleep(0.05)
        assert len(workers) == 2
        parent.send_signal(number)
        parent.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


LEFT_BEHIND = """
import time
from medgen.system.processes import run_in_processes
if __name__ == "__main__":
    running = run_in_processes(time.sleep, [0, 60, 60], 2)
    next(running)
    raise SystemExit(7)
"""


def test_work_that_is_left_behind_does_not_hold_up_the_end(tmp_path) -> None:
    script = tmp_path / "left.py"
    script.write_text(LEFT_BEHIND)
    assert subprocess.run([sys.executable, str(script)], timeout=50, check=False).returncode == 7
