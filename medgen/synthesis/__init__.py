"""Labelled synthesis: generators that learn from a few labelled scans, filters, provenance, and proof of value."""

from __future__ import annotations

from pathlib import Path

from medgen.errors import ArtifactError
from medgen.synthesis.base import Backend, FitContext, Sources, Synthetic

__all__ = ["Backend", "FitContext", "Sources", "Synthetic", "load_backend"]


def load_backend(folder: str | Path, device: str = "auto") -> Backend:
    """Read a trained generator of any kind.

    Args:
        folder: ``model/<backend>`` of a run.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        ArtifactError: If the folder holds no generator, or one that is incomplete or altered.
    """
    from medgen.artifact import MANIFEST
    from medgen.synthesis.store import RECORD

    folder = Path(folder)
    if (folder / RECORD).is_file():
        from medgen.synthesis.deform import Deform

        return Deform.load(folder, device)
    if (folder / MANIFEST).is_file():
        from medgen.synthesis.joint import JointBackend

        return JointBackend.load(folder, device)
    raise ArtifactError(f"{folder}: holds no generator; expected the model/<backend> folder of an augment run")
