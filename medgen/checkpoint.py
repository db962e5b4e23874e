"""Stopping and going on: checkpoints that are whole or absent, and SIGTERM that waits for the end of a step."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from medgen.errors import TrainingError
from medgen.files import atomic_path

CHECKPOINT = Path("checkpoint") / "state.pt"
_VERSION = 1


class Terminated(SystemExit):
    """Training ended because of SIGTERM, after writing a checkpoint; the exit code is 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def termination() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets instead of ending the process; the earlier handler comes back afterwards.

    Outside the main thread Python delivers no signals, and the event is never set.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        requested.set()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield requested
    finally:
        # None: installed by C code, which Python cannot put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def save_checkpoint(out: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain data to ``out/checkpoint/state.pt`` atomically.

    Args:
        out: Folder of the training.
        state: Needs ``fingerprint``, the hash of what determines the training's course.

    Raises:
        DataError: If it cannot be written; an earlier checkpoint is then still there.
    """
    with atomic_path(out / CHECKPOINT) as temporary:
        torch.save({"version": _VERSION, **state}, temporary)


def load_checkpoint(out: Path, fingerprint: str, device: torch.device) -> dict[str, Any] | None:
    """Read the checkpoint of ``out``; None if there is none. No code in the file is run.

    Raises:
        TrainingError: If it is damaged, of another version, or of a training with another fingerprint.
    """
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: cannot be read as a checkpoint ({error.__class__.__name__}); remove it to start again"
        ) from None
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        raise TrainingError(f"{path}: expected a checkpoint of version {_VERSION}; remove it to start again")
    if state.get("fingerprint") != fingerprint:
        raise TrainingError(
            f"{path}: belongs to another training (model, settings, seed, cases or number of processes differ); "
            "use the same, or another out"
        )
    return state
