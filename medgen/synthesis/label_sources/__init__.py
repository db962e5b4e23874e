"""Where labels of synthetic scans come from: one file each, found by file name, imported only when asked for.

To add one, put ``<name>.py`` here with one final :class:`~medgen.synthesis.label_source.LabelSource` whose ``name`` is
the file's name and whose ``Config`` holds its settings. It then makes a pair with every painter, ``<name>+flow``.
"""

from __future__ import annotations

import sys

from medgen.errors import ConfigError
from medgen.synthesis.label_source import LabelSource
from medgen.system import members

__all__ = ["available", "source_class"]

_FOLDER = sys.modules[__name__]


def available() -> list[str]:
    """Names of all label sources."""
    return members.names(_FOLDER)


def source_class(name: str) -> type[LabelSource]:
    """The class of a label source; only its module is imported.

    Raises:
        ConfigError: If there is none of this name, or its file holds none.
    """
    if name not in available():
        raise ConfigError(f"expected a label source of {', '.join(available())}, found {name!r}")
    found: type[LabelSource] = members.named_class(_FOLDER, name, LabelSource, "label source of the name")
    return found
