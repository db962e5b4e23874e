"""Ways of making labelled scans: pairs of a label source and a painter, and one file for each that is no such pair.

To add a backend that makes image and labels at once, put ``<name>.py`` here with one final
:class:`~medgen.synthesis.backend.Backend` whose ``name`` is the file's name and whose ``Config`` holds its settings.
Configurations then take it under ``generators.<name>``, as they take pairs (:mod:`medgen.synthesis.pair`) by theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from medgen.errors import ArtifactError, ConfigError
from medgen.synthesis.backend import Backend
from medgen.synthesis.pair import SHORT, halves_of, pair_class, pairs, stored_pair
from medgen.system import members

__all__ = ["available", "backend_class", "every_name", "load_backend", "untried"]

_FOLDER = sys.modules[__name__]


def available() -> list[str]:
    """Names of all backends that have one of their own; pairs go by ``labels+painter`` too."""
    return sorted({*members.names(_FOLDER), *SHORT})


def every_name() -> list[str]:
    """Every name that a backend may be asked for by: its own, and the full one of every pair."""
    return [*available(), *pairs()]


def untried(used: Sequence[str]) -> tuple[str, ...]:
    """Those of :func:`available` that are not among the used ones, by whichever name these go.

    >>> untried(["deform", "shape+spade"])
    ('flow', 'joint', 'lesion')
    """
    known = [halves_of(name) or name for name in used]
    return tuple(name for name in available() if (halves_of(name) or name) not in known)


def backend_class(name: str) -> type[Backend]:
    """The class of a backend; only the modules it is made of are imported.

    Raises:
        ConfigError: If there is no such backend, the message lists the known ones; or if its file holds none.
    """
    if halves_of(name) is not None:
        return pair_class(name)
    if name not in available():
        raise ConfigError(f"generators: expected one of {', '.join(available())} or labels+painter, found {name!r}")
    found: type[Backend] = members.named_class(_FOLDER, name, Backend, "backend of the name")
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
    if pair := stored_pair(folder):
        try:
            return pair_class(pair).load(folder, device)
        except ConfigError as error:
            raise ArtifactError(f"{folder}: {error}") from None
    for name in members.names(_FOLDER):
        kind = backend_class(name)
        if kind.recognises(folder):
            return kind.load(folder, device)
    raise ArtifactError(f"{folder}: holds no generator; expected the model/<backend> folder of an augment run")
