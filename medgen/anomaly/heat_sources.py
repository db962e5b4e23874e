"""Where the heatmap comes from: the scores of a detector, the model that computes each, and which of them are fused."""

from __future__ import annotations

from dataclasses import dataclass

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.scores.base import Score
from medgen.anomaly.scores.catalogue import get
from medgen.models.base import ScanModel


@dataclass(frozen=True)
class HeatSource:
    """One voxel score of a detector.

    Attributes:
        score: Its name.
        family: Family of the trained model that computes it; empty if it needs none.
        learnt_from: What it learns from by itself, without such a model: "healthy scans" or "corrupted copies of
            healthy scans"; empty if it learns nothing.
        weight: Its share in the heatmap, 0 to 1; shares are equal, and 0 for a score that only stands beside it.
        baseline: Whether it is a simple baseline.
    """

    score: str
    family: str
    learnt_from: str
    weight: float
    baseline: bool

    @property
    def origin(self) -> str:
        """What computes it, in words.

        >>> HeatSource("nll", "vae", "", 0.5, False).origin, HeatSource("zscore", "", "healthy scans", 0, True).origin
        ('vae', 'no model, learnt from healthy scans')
        """
        if self.family:
            return self.family
        return f"no model, learnt from {self.learnt_from}" if self.learnt_from else "no model, nothing learnt"


def heat_sources(detector: AnomalyDetector) -> tuple[HeatSource, ...]:
    """The scores that a detector computes of every voxel: those of the heatmap, then the others.

    A detector from a model folder has only those of the heatmap: the others stay behind with the run.
    """
    member, fused = detector.members[0], detector.config.fusion.channels
    names = [*fused, *(name for name in member.normatives if name not in fused)]
    return tuple(
        HeatSource(
            score=name,
            family=_family(get(name), member.models),
            learnt_from=_learnt_from(get(name)),
            weight=1 / len(fused) if name in fused else 0.0,
            baseline=get(name).baseline,
        )
        for name in names
    )


def idle_families(detector: AnomalyDetector) -> tuple[str, ...]:
    """Families of the trained models of which no score is in the heatmap."""
    working = {source.family for source in heat_sources(detector) if source.weight}
    families = dict.fromkeys(model.family for model in detector.members[0].models)
    return tuple(family for family in families if family not in working)


def _family(score: Score, models: tuple[ScanModel, ...]) -> str:
    """The first model that offers what the score needs is the one that it uses."""
    if score.needs is None:
        return ""
    return next(model.family for model in models if score.supports([model]))


def _learnt_from(score: Score) -> str:
    if score.needs is not None or score.fixed:
        return ""
    return "corrupted copies of healthy scans" if score.from_corruptions else "healthy scans"
