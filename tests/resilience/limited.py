"""Runs of the command line that get too little memory or disk: ``limited.py COHORT OUT``, one line of JSON each.

One process imports everything and forks a child for each run, so that a run takes a second.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import harness

CONFIG = Path(__file__).parents[2] / "configs" / "tiny" / "train_vae.yaml"


def memory(mib: int) -> Callable[[], None]:
    """At most this much more address space than the process has now."""

    def limit() -> None:
        import psutil

        most = psutil.Process().memory_info().vms + (mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return limit


def disk(kib: int) -> Callable[[], None]:
    """No file larger than this."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10))


RUNS: dict[str, tuple[list[str], Callable[[], None]]] = {
    "grid": (["check_resources=false", "preprocess.shape=[192,192,192]"], memory(200)),
    "model": (["check_resources=false", "model.widths=[512,2048]"], memory(200)),
    "estimate": (["preprocess.shape=[192,192,192]"], memory(200)),
    "disk": ([], disk(60)),
    "no disk": ([], disk(0)),
}


def said(arguments: list[str], before: Callable[[], None]) -> tuple[int, str]:
    """Exit status and what was printed to the standard error of one run."""
    # A pipe, which no limit on files concerns; it holds more than is ever said.
    read, write = os.pipe()
    kept = os.dup(2)
    os.dup2(write, 2)
    try:
        code = harness.run(arguments, before)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)
    with os.fdopen(read) as output:
        return code, output.read()


def main() -> None:
    """See the module."""
    harness.prepare()
    cohort, out = sys.argv[1:]
    for name, (extra, limit) in RUNS.items():
        folder = Path(out) / name.replace(" ", "-")
        code, text = said(["train", str(CONFIG), f"data={cohort}", f"out={folder}", "device=cpu", "-q", *extra], limit)
        print(json.dumps({"name": name, "code": code, "said": text}), flush=True)


if __name__ == "__main__":
    main()
