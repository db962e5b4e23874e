"""The peers by name."""

from __future__ import annotations

from types import ModuleType

from medgen.anomaly.comparison.peers import monai, patchcore, pyod
from medgen.anomaly.comparison.peers.base import Fitted, PeerSettings
from medgen.errors import ConfigError
from medgen.preprocessing.dataset import Dataset

_LIBRARY: dict[str, ModuleType] = {name: module for module in (pyod, monai, patchcore) for name in module.NAMES}
NAMES = tuple(_LIBRARY)


def missing(name: str) -> str | None:
    """Why a peer cannot be run here, in a sentence; None if it can.

    Raises:
        ConfigError: If there is no such peer.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown peer {name!r}; known peers: {', '.join(NAMES)}")
    reason: str | None = _LIBRARY[name].missing(name)
    return reason


def fit(name: str, development: Dataset, settings: PeerSettings, seed: int) -> Fitted:
    """Fit a peer on prepared development scans.

    Raises:
        ConfigError: If there is no such peer, or its library is not installed.
    """
    reason = missing(name)
    if reason is not None:
        raise ConfigError(reason)
    fitted: Fitted = _LIBRARY[name].fit(name, development, settings, seed)
    return fitted
