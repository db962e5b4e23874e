"""The list of all scores, found by their names."""

from __future__ import annotations

from medgen.anomaly.scores.base import SCORES, Level, Score
from medgen.errors import ConfigError


def registered(level: Level | None = None) -> dict[str, Score]:
    """All registered scores by name, in order of registration, of one level or of both."""
    # Registration happens where the functions are written; importing those modules here keeps the list complete.
    from medgen.anomaly.scores import baselines, reconstruction
    from medgen.anomaly.scores import latent as latent_scores
    from medgen.anomaly.scores import local as local_scores
    from medgen.anomaly.scores import residuals as scores

    assert baselines
    assert latent_scores
    assert local_scores
    assert scores
    assert reconstruction
    return {name: entry for name, entry in SCORES.items() if level in (None, entry.level)}


def get(name: str) -> Score:
    """The score of that name.

    Raises:
        ConfigError: If there is none; the message lists the known names.
    """
    known = registered()
    if name not in known:
        raise ConfigError(f"unknown score {name!r}; known scores: {', '.join(known)}")
    return known[name]
