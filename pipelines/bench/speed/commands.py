"""Commands of medgen in processes of their own, and what these cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from medgen.errors import DataError, MedgenError


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: Processor time with that of its own processes.
        peak_mb: Largest resident memory of one of them, in 10⁶ bytes.
    """

    seconds: float
    peak_mb: float


def command(*arguments: str, may_fail: bool = False) -> Cost:
    """Run a command of medgen to its end, with one thread for each product of matrices.

    Raises:
        MedgenError: If it fails where it may not; the message is its last line.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", "from medgen.pipelines.cli.app import main; main()", *arguments]
    code = f"import json, resource, subprocess, sys; done = subprocess.run({line!r}, stdout=subprocess.DEVNULL, "
    code += "stderr=subprocess.PIPE, text=True); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    code += "print(json.dumps([done.returncode, done.stderr[-2000:], used.ru_utime + used.ru_stime, used.ru_maxrss]))"
    # A process between: what children of this one have used so far is not told apart.
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    status, said, seconds, peak = json.loads(found.stdout)
    if status not in (0, 1) and not may_fail:
        raise MedgenError(f"medgen {' '.join(arguments)}: {(said.strip().splitlines() or ['no reason given'])[-1]}")
    return Cost(seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6)


def apart(failed: str, module: str, *arguments: object) -> Any:
    """What a module prints as its last line, JSON, when Python runs it in a fresh process.

    Args:
        failed: How the sentence begins that says that it has failed.
        module: Its name.
        arguments: Of its command line.

    Raises:
        DataError: If it fails; the message ends with its last line.
    """
    line = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"{failed}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def shipped(name: str) -> Path:
    """A configuration that comes with medgen, such as ``tiny/anomaly.yaml``."""
    return Path(str(files("medgen.configs"))) / name
