"""Peers that may be installed or not."""

from __future__ import annotations

from importlib.util import find_spec


def absent(package: str, peer: str) -> tuple[str, ...]:
    """Why a peer is left out, as one sentence; empty where its package is there.

    >>> absent("no_such_package", "Its Network")
    ('Its Network: no_such_package is not installed; pip install "medgen[peers]"',)
    """
    return () if find_spec(package) else (f'{peer}: {package} is not installed; pip install "medgen[peers]"',)
