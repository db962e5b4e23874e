"""Checkpoints that are whole or absent, that run nothing when they are read, and fit or are refused."""

from __future__ import annotations

import io
import os
import pickle
import platform
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

import medgen
from medgen.errors import TrainingError
from medgen.system.files import atomic_path, open_regular
from medgen.system.precision import Precision

CHECKPOINT = Path("checkpoint") / "state.pt"
_VERSION = 3
# The pickled part names tensors and holds numbers; the tensors' bytes are separate members.
_PICKLE_LIMIT = 64 << 20


def conditions(precision: Precision, ranks: int) -> dict[str, str]:
    """What changes the last bits of a training although its settings are the same: name → value.

    The number of ``workers`` is not among them: they prepare scans one by one, each in the same way.
    """
    found = {
        "medgen": medgen.__version__,
        "torch": str(torch.__version__),
        "device": precision.device.type,
        "precision": "bf16" if precision.bf16 else "32",
        "processes": str(ranks),
    }
    if precision.device.type == "cpu":
        instructions = torch.backends.cpu.get_cpu_capability()
        return {**found, "threads": str(torch.get_num_threads()), "processor": f"{platform.machine()} {instructions}"}
    return {**found, "processor": torch.cuda.get_device_name(precision.device)}


# What damaged and crafted files make torch and zipfile raise.
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    ImportError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
# What to do about a condition that differs; {0} is the value at the time of the checkpoint.
_REMEDIES = {
    "threads": "set OMP_NUM_THREADS={0}",
    "device": "use device={0}",
    "precision": "set training.precision to {0}",
    "torch": "install torch {0}",
    "medgen": "use medgen {0}",
    "processes": "start {0} process(es) with torchrun",
    "processor": "go on on such a machine",
}


def save_checkpoint(out: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain data to ``out/checkpoint/state.pt`` atomically.

    Args:
        out: Folder of the training.
        state: Needs ``fingerprint``, the hash of what determines the training's course, and ``conditions``.

    Raises:
        DataError: If it cannot be written; an earlier checkpoint is then still there.
    """
    with atomic_path(out / CHECKPOINT) as temporary, temporary.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save({"version": _VERSION, **state}, cast("IO[bytes]", sink))
        except RuntimeError:
            # torch replaces the error of a full disk by one about its own bookkeeping.
            if sink.error is None:
                raise
            raise sink.error from None


def load_checkpoint(
    out: Path, fingerprint: str, device: torch.device, found: Mapping[str, str]
) -> dict[str, Any] | None:
    """Read the checkpoint of ``out``; None if there is none. No code in the file is run.

    Args:
        out: Folder of the training.
        fingerprint: Hash of the settings and data of the training that is to go on; another one is refused.
        device: Where to put tensors.
        found: The present :func:`conditions`.

    Raises:
        TrainingError: If it is damaged, of another version, of a training with another fingerprint, or was written
            under conditions that would change the last bits of the result.
    """
    path = out / CHECKPOINT
    if not path.exists() and not path.is_symlink():
        return None
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            # Of torch, about files that are not of torch; what is wrong with them is said below.
            warnings.simplefilter("ignore")
            content = _checked(file)
            state = torch.load(content, map_location=device, weights_only=True)
    except _UNREADABLE as error:
        raise TrainingError(
            f"{path}: cannot be read as a checkpoint ({error.__class__.__name__}); remove it to start again"
        ) from None
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        raise TrainingError(f"{path}: expected a checkpoint of version {_VERSION}; remove it to start again")
    if state.get("fingerprint") != fingerprint:
        raise TrainingError(
            f"{path}: belongs to another training (model, settings, seed, cases or prepared scans differ); "
            "use the same, or another out"
        )
    before = state.get("conditions")
    if not isinstance(before, dict):
        raise TrainingError(f"{path}: does not say how it was computed; remove it to start again")
    changed = [name for name in sorted({*before, *found}) if before.get(name) != found.get(name)]
    if changed:
        what = ", ".join(f"{name} {before.get(name)} then and {found.get(name)} now" for name in changed)
        remedies = ", ".join(_REMEDIES[name].format(before.get(name)) for name in changed if name in _REMEDIES)
        raise TrainingError(
            f"{path}: {what}: going on would not give the numbers of an uninterrupted run; "
            f"{remedies or 'go on as it was begun'}, or remove the checkpoint to start again"
        )
    return state


class _Sink(io.RawIOBase):
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def _checked(file: BinaryIO) -> BinaryIO:
    """The file, whose every byte has been compared with its checksum; torch compares none.

    Members are stored as they are, so that nothing can unpack to more than the file holds.
    """
    # What torch takes for an archive; anything else it reads in older ways.
    if file.read(4) != b"PK\x03\x04":
        raise zipfile.BadZipFile("no archive")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # torch finds members by their names in small letters.
        if len({member.filename.lower() for member in members}) != len(members):
            raise zipfile.BadZipFile("two members of one name")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise zipfile.BadZipFile("a compressed member")
            if member.filename.lower().endswith(".pkl") and member.file_size > _PICKLE_LIMIT:
                raise zipfile.BadZipFile("too large a header")
        if sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
            raise zipfile.BadZipFile("members that overlap")
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("a damaged member")
    file.seek(0)
    return file
