"""All kinds of implants and of artefacts, found by their files in :mod:`medgen.implants.kinds` and ``artefacts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from medgen.config import nearest
from medgen.errors import ConfigError
from medgen.implants import artefacts as artefact_files
from medgen.implants import kinds
from medgen.implants.artefact import Artefact
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
    _check(names, list(registered()), "implant kind")


def artefacts() -> Mapping[str, Artefact]:
    """All kinds of artefacts by name, sorted.

    >>> list(artefacts())[:3], artefacts()["metal"].tomogram
    (['bias', 'defacing', 'ghost'], True)

    Raises:
        ConfigError: If a file in the folder holds no artefact of its own name.
    """
    return _artefacts(tuple(artefact_files.__path__))


def check_artefacts(names: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest known name, if an artefact is not one of :func:`artefacts`."""
    _check(names, list(artefacts()), "artefact")


def _check(names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"; known kinds: {', '.join(known)}"
            raise ConfigError(f"unknown {what} {name!r}{hint}")


@cache
def _kinds(folders: tuple[str, ...]) -> Mapping[str, Kind]:
    """Read once for each list of folders: kinds are asked for scan by scan, and a folder is slow to list."""
    del folders
    found = [_kind(name) for name in members.names(kinds)]
    found.sort(key=lambda kind: (kind.order, kind.name))
    return MappingProxyType({kind.name: kind for kind in found})


@cache
def _artefacts(folders: tuple[str, ...]) -> Mapping[str, Artefact]:
    del folders
    return MappingProxyType({name: _artefact(name) for name in members.names(artefact_files)})


def _artefact(name: str) -> Artefact:
    found: Artefact | None = members.member(
        artefact_files, name, lambda item: isinstance(item, Artefact) and item.name == name
    )
    if found is None:
        raise ConfigError(f"{artefact_files.__name__}.{name}: holds no artefact of the name {name!r}")
    return found


def _kind(name: str) -> Kind:
    found: Kind | None = members.member(kinds, name, lambda item: isinstance(item, Kind) and item.name == name)
    if found is None:
        raise ConfigError(f"{kinds.__name__}.{name}: holds no implant kind of the name {name!r}")
    return found
