"""NiiVue, as the package ``ipyniivue`` brings it: an optional extra, found without importing it."""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from medgen.errors import ConfigError

_PACKAGE, _FILE = "ipyniivue", "ipyniivue/static/widget.js"
# The pages speak to the widget by the messages of these versions.
_VERSIONS = ("2.4",)


def missing() -> str:
    """Why no viewer can be written here, in a sentence; empty if one can."""
    try:
        found = distribution(_PACKAGE)
    except PackageNotFoundError:
        return f"the package {_PACKAGE} is not installed; install the extra: pip install 'medgen[viewer]'"
    if not found.version.startswith(tuple(f"{version}." for version in _VERSIONS)):
        return f"expected {_PACKAGE} {' or '.join(_VERSIONS)}, found {found.version}; pip install 'medgen[viewer]'"
    if not Path(str(found.locate_file(_FILE))).is_file():
        return f"{_PACKAGE} {found.version} has no {_FILE}; install it again: pip install 'medgen[viewer]'"
    return ""


@lru_cache(maxsize=1)
def library() -> bytes:
    """The front-end module of ``ipyniivue`` (NiiVue and its widget, an ES module), compressed by gzip.

    Raises:
        ConfigError: If it is not installed.
    """
    if reason := missing():
        raise ConfigError(f"viewer: {reason}")
    path = Path(str(distribution(_PACKAGE).locate_file(_FILE)))
    return gzip.compress(path.read_bytes(), 9, mtime=0)
