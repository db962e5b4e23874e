"""Facts about this machine and this installation: versions, commit, memory, and the checks of ``medgen doctor``."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import medgen
from medgen.errors import DataError
from medgen.runs import journal
from medgen.runs.plain_text import printable
from medgen.system.memory import available_memory, peak_bytes

PACKAGES = ("torch", "monai", "mlflow", "numpy", "scipy", "nibabel", "pydicom", "SimpleITK")
_GIB = 1 << 30


@dataclass(frozen=True)
class Commit:
    """The source a run used.

    Attributes:
        id: Git commit of the checkout medgen runs from, or ``"unknown"`` when it is not run from one.
        dirty: Whether tracked or new files differ from that commit; None if unknown.
    """

    id: str
    dirty: bool | None


class Check(NamedTuple):
    """One line of ``medgen doctor``: what was looked at, what was found, whether that is fine, and what to do."""

    name: str
    value: str
    ok: bool
    hint: str


def versions() -> dict[str, str]:
    """Versions of Python, medgen and the packages that results depend on, without importing them."""
    found = {"python": platform.python_version(), "medgen": medgen.__version__}
    for name in PACKAGES:
        try:
            found[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name.lower()] = "missing"
    return found


@functools.cache
def commit() -> Commit:
    """Git commit and dirty flag of the checkout that holds this package; asked once per process."""
    root = Path(medgen.__file__).resolve().parents[1]
    # A wheel inside some other project's checkout must not report that project's commit.
    if not (root / ".git").exists() or shutil.which("git") is None:
        return Commit("unknown", None)
    head = git(root, "rev-parse", "HEAD")
    status = git(root, "status", "--porcelain")
    return Commit(head or "unknown", None if status is None or not head else bool(status))


def git(root: Path, *arguments: str) -> str | None:
    """What a command of git prints in a folder; None where it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def peak_memory() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return peak_bytes() / _GIB


def threads() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def doctor(out: str | Path = "runs/run") -> list[Check]:
    """What this machine can do: one line per fact, in the order they matter when something does not work.

    Args:
        out: The run folder whose disk and MLflow store are looked at; it need not exist.
    """
    out = Path(out)
    checks: list[Callable[[], list[Check]]] = [_python, _packages, _processor, _accelerator, _template]
    return [*(line for check in checks for line in check()), _disk(out), _store(out)]


def _python() -> list[Check]:
    fine = sys.version_info >= (3, 11)
    source = commit()
    state = {None: "", True: ", with local changes", False: ""}[source.dirty]
    return [
        Check("Python", platform.python_version(), fine, "" if fine else "medgen needs Python 3.11 or newer"),
        Check("medgen", f"{medgen.__version__} (commit {source.id[:12]}{state})", True, ""),
    ]


def _packages() -> list[Check]:
    return [
        Check(name, version, version != "missing", "" if version != "missing" else "install medgen again: make setup")
        for name, version in versions().items()
        if name not in {"python", "medgen"}
    ]


def _processor() -> list[Check]:
    free = available_memory()
    hint = "" if free >= 6 else "the demo wants 6 GiB: close programs, or lower shape and batch_size in the config"
    return [
        Check("CPU cores", str(threads()), True, ""),
        Check("memory available", f"{free:.1f} GiB", free >= 6, hint),
    ]


def _accelerator() -> list[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Check("torch", f"cannot be imported ({error.__class__.__name__})", False, "install torch again")]
    lines = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            value = f"{properties.name}, {properties.total_memory / _GIB:.0f} GiB, CUDA {torch.version.cuda}"
            lines.append(Check(f"GPU cuda:{index}", value, True, ""))
    else:
        lines.append(Check("GPU", "none", True, "small volumes run on the CPU; use a GPU for 128³ and more"))
    return [*lines, _bf16()]


def _bf16() -> Check:
    """Compare one small 3D convolution in bfloat16 with float32: some torch and cuDNN pairs compute it wrongly."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 8, 8, 8, generator=generator).to(device)
    w = torch.randn(16, 16, 3, 3, 3, generator=generator).to(device) / (16 * 27) ** 0.5
    try:
        exact = torch.nn.functional.conv3d(x, w, padding=1)
        low = torch.nn.functional.conv3d(x.bfloat16(), w.bfloat16(), padding=1).float()
    except RuntimeError as error:
        return Check("bf16 convolution", f"fails ({error.__class__.__name__})", False, "set training.precision=32")
    difference = float((low - exact).abs().max() / exact.abs().max())
    fine = difference < 0.03
    hint = "" if fine else "bfloat16 results are wrong with this torch build: set training.precision=32"
    return Check("bf16 convolution", f"differs from fp32 by {difference:.1%} at most", fine, hint)


def _template() -> list[Check]:
    # Looked up without importing nilearn, which takes seconds.
    spec = importlib.util.find_spec("nilearn")
    folder = Path(spec.origin).parent / "datasets" / "data" if spec and spec.origin else None
    count = len(list(folder.glob("mni_icbm152_*.nii.gz"))) if folder else 0
    hint = "" if count >= 3 else "medgen data simulate and demo need it: install nilearn>=0.11"
    return [Check("MNI template", f"{count} maps in nilearn" if folder else "missing", count >= 3, hint)]


def _disk(out: Path) -> Check:
    folder = out.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIB
    writable = os.access(folder, os.W_OK)
    hint = f"{folder} cannot be written: choose another out" if not writable else "a run needs up to 5 GiB"
    fine = writable and free >= 5
    return Check("disk", f"{free:.0f} GiB free" if writable else "not writable", fine, "" if fine else hint)


def _store(out: Path) -> Check:
    origin = "from MLFLOW_TRACKING_URI" if journal.chosen_store() else "the default"
    uri = journal.store_uri(out)
    if uri.startswith(("file:", "/", "./")):
        hint = "MLflow no longer writes plain folders: use sqlite:///... or a server's http address"
        return Check("MLflow store", f"{printable(uri)} ({origin})", False, hint)
    found, fault = look_at_store(out)
    return Check("MLflow store", f"{printable(uri)} ({origin}){found}", not fault, fault)


def look_at_store(out: Path) -> tuple[str, str]:
    """Ask the store of a run folder; nothing is made there.

    Args:
        out: The run folder, which need not exist.

    Returns:
        What was found, to be put behind the store's address; and what is wrong and what to do, empty if nothing is.
    """
    from medgen.runs.store import database as database_store
    from medgen.runs.store.faults import sentence
    from medgen.runs.store.mlflow_store import database, is_sqlite

    uri = journal.store_uri(out)
    if is_sqlite(uri) and not database(uri).exists():
        return "", _unwritable(database(uri).parent)
    try:
        if is_sqlite(uri):
            fault = _unwritable(database(uri)) or _unwritable(database(uri).parent)
            return _of_database(uri) if not fault else ("", fault)
        return _of_database(uri) if database_store.is_database(uri) else _of_server(uri)
    except Exception as error:  # whatever a driver or a client raises
        return "", f"{sentence(error)}; until then runs keep what they have to say in their journal"


def _unwritable(path: Path) -> str:
    while not path.exists():
        path = path.parent
    if os.access(path, os.W_OK):
        return ""
    return f"{path} may only be read: let this user write to it, or name another store in MLFLOW_TRACKING_URI"


def _of_database(uri: str) -> tuple[str, str]:
    from medgen.runs.store import database as database_store
    from medgen.runs.store.mlflow_store import answers

    with database_store.reached(uri) as connection:
        if not database_store.check_version(connection):
            return ", empty: the first run sets it up", ""
    answers(uri)
    return ", answers", ""


def _of_server(uri: str) -> tuple[str, str]:
    from medgen.runs.store.mlflow_store import answers

    there, here = answers(uri), metadata.version("mlflow")
    if there.partition(".")[0] != here.partition(".")[0]:
        raise DataError(f"the server is MLflow {there}, here is {here}; bring both to the same first number")
    return f", answers, MLflow {there}", ""
