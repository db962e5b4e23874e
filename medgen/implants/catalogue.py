"""All kinds of implants, found by their files in :mod:`medgen.implants.kinds`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from medgen.errors import ConfigError
from medgen.implants import kinds
from medgen.implants.kind import Kind
from medgen.system import members


def registered() -> Mapping[str, Kind]:
    """All kinds by name, in their order, which decides the turns that scans take.

    >>> list(registered())[:3], registered()["lesion"].shape
    (['uniform', 'noise', 'sink'], True)

    Raises:
        ConfigError: If a file in the folder holds no kind of its own name.
    """
    return _kinds(tuple(kinds.__path__))


def check_kinds(names: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest known name, if a kind is not one of :func:`registered`."""
    known = registered()
    for kind in names:
        if kind not in known:
            near = difflib.get_close_matches(kind, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(known)}"
            raise ConfigError(f"unknown implant kind {kind!r}; {hint}")


@cache
def _kinds(folders: tuple[str, ...]) -> Mapping[str, Kind]:
    """Read once for each list of folders: kinds are asked for scan by scan, and a folder is slow to list."""
    del folders
    found = [_kind(name) for name in members.names(kinds)]
    found.sort(key=lambda kind: (kind.order, kind.name))
    return MappingProxyType({kind.name: kind for kind in found})


def _kind(name: str) -> Kind:
    found: Kind | None = members.member(kinds, name, lambda item: isinstance(item, Kind) and item.name == name)
    if found is None:
        raise ConfigError(f"{kinds.__name__}.{name}: holds no implant kind of the name {name!r}")
    return found
