"""The list of all scores, found by their files: what registers a score in this folder, and models' own maps."""

from __future__ import annotations

from functools import cache

from medgen.anomaly import scores
from medgen.anomaly.scores.base import SCORES, Level, Score
from medgen.anomaly.scores.own_maps import own_maps
from medgen.errors import ConfigError
from medgen.models import families
from medgen.system import members


def registered(level: Level | None = None) -> dict[str, Score]:
    """All scores by name, of one level or of both, in their order.

    >>> "residual" in registered("voxel"), "residual" in registered("scan")
    (True, False)
    """
    known = _all((*scores.__path__, *families.__path__))
    return {name: entry for name, entry in known.items() if level in (None, entry.level)}


@cache
def _all(folders: tuple[str, ...]) -> dict[str, Score]:
    """Import every file, once for each list of folders: scores are asked for scan by scan, and listing is slow.

    Raises:
        ValueError: If a model has a map of its own under the name of another score (a bug, not a user error).
    """
    del folders
    for name in members.names(scores):
        members.module(scores, name)
    own = own_maps()
    if taken := sorted(own.keys() & SCORES.keys()):
        raise ValueError(f"a score named {taken[0]!r} is registered already; a model's own map needs another name")
    return dict(sorted([*SCORES.items(), *own.items()], key=lambda item: (item[1].order, item[0])))


def get(name: str) -> Score:
    """The score of that name.

    Raises:
        ConfigError: If there is none; the message lists the known names.
    """
    known = registered()
    if name not in known:
        raise ConfigError(f"unknown score {name!r}; known scores: {', '.join(known)}")
    return known[name]
