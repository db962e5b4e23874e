"""What is submitted to SLURM, and what becomes of it: with programs in its place that start the jobs here at once."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from medgen.runs.cases.executors import slurm
from medgen.runs.cases.manifest import Item
from medgen.runs.cases.map_cases import Spread, map_cases
from medgen.runs.cases.resources import Resources

SBATCH = """
import os, re, subprocess, sys
place = os.environ["PRETENDED"]
script = sys.argv[-1]
text = open(script).read()
number = 4000 + len([name for name in os.listdir(place) if name.endswith(".sh")])
open(f"{place}/{number}.sh", "w").write(text)
array = re.search(r"#SBATCH --array=(\\d+)-(\\d+)", text)
for task in range(int(array[1]), int(array[2]) + 1) if array else [None]:
    job = f"{number}" if task is None else f"{number}_{task}"
    told = {"SLURM_JOB_ID": f"{number}"}
    told |= {} if task is None else {"SLURM_ARRAY_JOB_ID": f"{number}", "SLURM_ARRAY_TASK_ID": f"{task}"}
    told |= {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
    subprocess.Popen(
        ["bash", "-c", f'bash {script}; echo $? > {place}/{job}.code'],
        env={**os.environ, **told}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    open(f"{place}/{job}.begun", "w").close()
print(f"Submitted batch job {number}")
"""
SRUN = """
import os, sys
start = next(place for place, word in enumerate(sys.argv) if word.endswith(os.path.basename(sys.executable)))
os.execv(sys.argv[start], sys.argv[start:])
"""
SACCT = """
import os
place = os.environ["PRETENDED"]
print("JobID|State|NodeList")
for name in sorted(os.listdir(place)):
    if name.endswith(".begun"):
        code = f"{place}/{name[:-6]}.code"
        text = open(code).read().strip() if os.path.exists(code) else ""
        print(f"{name[:-6]}|{'RUNNING' if not text else 'COMPLETED' if text == '0' else 'FAILED'}|here")
"""
MAPPED = """
import os, signal
from pathlib import Path

def square(task, place):
    number, flag = task
    if number == 3 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": number * number, "threads": os.environ.get("OMP_NUM_THREADS"), "site": os.environ.get("SITE")}
"""


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which jobs leave their scripts and how they ended."""
    programs, place = tmp_path / "bin", tmp_path / "cluster"
    programs.mkdir()
    place.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": ""}.items():
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o700)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mapped_by_slurm.py").write_text(MAPPED)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("PRETENDED", str(place))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(slurm, "_PAUSE", 0.5)
    return place


def test_an_array_is_submitted_with_its_resources_and_a_job_that_was_killed_again(
    pretended: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mapped_by_slurm import square  # type: ignore[import-not-found]

    own = Resources(minutes=7, memory_gb=3, cpus=2, partition="long", account="us", at_once=5, setup=("export SITE=a",))
    spread = Spread("slurm", 2, 3, own)
    items = [Item(f"case{number}", (number, str(tmp_path / "died"))) for number in range(6)]
    found = list(map_cases(square, items, count=6, folder=tmp_path / "s", settings={}, spread=spread))
    assert found == [(f"case{number}", {"square": number * number, "threads": "1", "site": "a"}) for number in range(6)]
    scripts = [path.read_text() for path in sorted(pretended.glob("*.sh"))]
    assert [re.findall(r"--array=(\S+)", text) for text in scripts] == [["0-2%3"], []]
    for line in ("--partition=long", "--account=us", "--mem=3GB", "--cpus-per-task=2", "--time=7", "--job-name=medgen"):
        assert f"#SBATCH {line}" in scripts[0]
    said = [record.getMessage() for record in caplog.records if "its worker has died" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("shard 1 (case2 to case3), at case3: its worker has died (job 4000_1 ended as FAILED)")


@pytest.mark.usefixtures("pretended")
def test_a_plan_says_arrays_and_how_many_jobs_run_at_a_time() -> None:
    lines = Spread("slurm", 2, 2500, Resources(at_once=40, gpus=1)).words(10_000)
    assert lines[1] == "3 SLURM array(s) of 2500 job(s) on the default partition, 40 at a time"
    assert lines[2].startswith("each job: 1 core(s), 8 GB, 60 min, 1 GPU(s); at most 2500.0 core hours")
