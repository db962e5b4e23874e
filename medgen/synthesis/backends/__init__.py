"""Ways of making labelled scans: one file each, found by file name, imported only when asked for.

To add a backend, put ``<name>.py`` here with one final :class:`~medgen.synthesis.backend.Backend` whose ``name`` is the
file's name and whose ``Config`` holds its settings. Configurations then take it under ``generators.<name>``.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from medgen.errors import ArtifactError, ConfigError
from medgen.synthesis.backend import Backend
from medgen.system import members

__all__ = ["available", "backend_class", "load_backend"]

_FOLDER = sys.modules[__name__]


def available() -> list[str]:
    """Names of all backends."""
    return members.names(_FOLDER)


def backend_class(name: str) -> type[Backend]:
    """The class of a backend; only its module is imported.

    Raises:
        ConfigError: If there is no such backend, the message lists the known ones; or if its file holds none.
    """
    if name not in available():
        raise ConfigError(f"generators: expected one of {', '.join(available())}, found {name!r}")

    def wanted(item: Any) -> bool:
        return inspect.isclass(item) and issubclass(item, Backend) and getattr(item, "name", "") == name

    found: type[Backend] | None = members.member(_FOLDER, name, wanted)
    if found is None:
        raise ConfigError(f"{__name__}.{name}: holds no backend of the name {name!r}")
    return found


def load_backend(folder: str | Path, device: str = "auto") -> Backend:
    """Read a trained generator of any kind.

    Args:
        folder: ``model/<backend>`` of a run.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        ArtifactError: If the folder holds no generator, or one that is incomplete or altered.
    """
    folder = Path(folder)
    for name in available():
        kind = backend_class(name)
        if kind.recognises(folder):
            return kind.load(folder, device)
    raise ArtifactError(f"{folder}: holds no generator; expected the model/<backend> folder of an augment run")
