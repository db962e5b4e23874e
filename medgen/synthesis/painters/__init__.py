"""Who paints images on given labels: one file each, found by file name, imported only when asked for.

To add one, put ``<name>.py`` here with one final :class:`~medgen.synthesis.painter.Painter` whose ``name`` is the
file's name and whose ``Config`` holds its settings. It then makes a pair with every label source, ``deform+<name>``.
"""

from __future__ import annotations

import sys

from medgen.errors import ConfigError
from medgen.synthesis.painter import Painter
from medgen.system import members

__all__ = ["available", "painter_class"]

_FOLDER = sys.modules[__name__]


def available() -> list[str]:
    """Names of all painters."""
    return members.names(_FOLDER)


def painter_class(name: str) -> type[Painter]:
    """The class of a painter; only its module is imported.

    Raises:
        ConfigError: If there is none of this name, or its file holds none.
    """
    if name not in available():
        raise ConfigError(f"expected a painter of {', '.join(available())}, found {name!r}")
    found: type[Painter] = members.named_class(_FOLDER, name, Painter, "painter of the name")
    return found
