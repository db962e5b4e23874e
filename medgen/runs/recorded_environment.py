"""What a run was computed with: installed packages, processor, settings of the system, and uncommitted code."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from medgen.runs import environment
from medgen.system.files import sha256_file, write_json, write_text

ENVIRONMENT = "environment.json"
DIFF = "code.diff"
# Settings of the system on which the last bits of results depend.
_VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|CUDA|CUBLAS|CUDNN|TORCH|PYTORCH|ITK)_\w+|PYTHONHASHSEED"
)
# More is no patch that anybody reads.
_DIFF_LIMIT = 4 << 20


def write_environment(out: Path) -> None:
    """Write ``environment.json``, and ``code.diff`` where the code is not that of its commit.

    Raises:
        DataError: If they cannot be written.
    """
    write_json(out / ENVIRONMENT, recorded())
    (out / DIFF).unlink(missing_ok=True)
    if environment.commit().dirty:
        write_text(out / DIFF, difference())


def recorded() -> dict[str, Any]:
    """Facts on which results may depend, as plain data: no name of a machine or person, and no path.

    ``machine`` says on what a result can be expected again to the last bit: on another processor, sums are rounded in
    another order.
    """
    source = environment.commit()
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "medgen": environment.versions()["medgen"],
        "commit": source.id,
        "dirty": source.dirty,
        "machine": machine(),
        "cores": environment.threads(),
        "threads": computing_threads(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "variables": {name: _harmless(os.environ[name]) for name in sorted(os.environ) if _VARIABLES.fullmatch(name)},
        "packages": packages(),
    }


def machine() -> dict[str, Any]:
    """System, processor and accelerators, as far as results depend on them."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "accelerators": _accelerators(),
    }


def computing_threads() -> int | None:
    """Threads that torch computes with, on which the order of sums depends; None where it was not there yet."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def packages() -> dict[str, str]:
    """Version of every installed package."""
    found = {str(item.metadata["Name"] or ""): item.version for item in metadata.distributions()}
    return {name: version for name, version in sorted(found.items(), key=lambda own: own[0].lower()) if name}


def difference() -> str:
    """The patch from the commit to the code that runs, and the hashes of files that the commit has not."""
    root = Path(environment.__file__).resolve().parents[2]
    patch = environment.git(root, "diff", "HEAD", "--no-color", "--no-ext-diff") or ""
    new = (environment.git(root, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    lines = [
        f"# not in the commit: {name} sha256 {sha256_file(root / name)}" for name in new if (root / name).is_file()
    ]
    if len(patch) > _DIFF_LIMIT:
        patch = f"# the patch has {len(patch)} characters, the first {_DIFF_LIMIT} are kept\n{patch[:_DIFF_LIMIT]}"
    return "\n".join([patch, *lines]) + "\n"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor()


def _accelerators() -> list[str]:
    """Names of the GPUs; asked for only where torch is there already, since it takes seconds to import."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]


def _harmless(value: str) -> str:
    """The value of a variable; one that holds a path is told by its last name."""
    return value.rstrip("/").rpartition("/")[2] if "/" in value else value
