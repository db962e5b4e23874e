"""Where the heatmap comes from: the scores of a detector, the model that computes each, and a sentence on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medgen.anomaly.channel_choice import CONFIGURED, INDEPENDENT
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


def heat_words(detector: AnomalyDetector) -> str:
    """What makes the heatmap, what of it a trained model computes, and how that was chosen."""
    sources = [source for source in heat_sources(detector) if source.weight]
    folds = len(detector.members)
    averaged = f"averaged over {folds} folds" if folds > 1 else "of one fold"
    parts = and_words([f"{source.score} ({source.origin})" for source in sources])
    if len(sources) == 1:
        made = f"**The heatmap is made by one score:** {parts}, {averaged}."
    else:
        made = f"**The heatmap is made by {len(sources)} scores of equal weight:** {parts}, each {averaged}."
    return " ".join([made, *idle_words(idle_families(detector)), chosen_words(detector.chosen)])


def idle_words(families: Sequence[str]) -> list[str]:
    """A sentence on trained models that have no part in the heatmap; none if all have.

    >>> idle_words(["vae"])
    ['**The trained model vae carries no weight in it:** none of its scores is among them.']
    """
    if not families:
        return []
    models, carry = ("model", "carries") if len(families) == 1 else ("models", "carry")
    whose = "its" if len(families) == 1 else "their"
    return [
        f"**The trained {models} {and_words(families)} {carry} no weight in it:** none of {whose} scores is among them."
    ]


def chosen_words(chosen: str) -> str:
    """How it was decided which scores make the heatmap.

    >>> chosen_words("")
    'That is as configured; others were not compared.'

    Args:
        chosen: Name of the candidate that was chosen; empty where nothing was compared.
    """
    if not chosen:
        return "That is as configured; others were not compared."
    compared = "on implanted development scans, scored out of fold,"
    if chosen == CONFIGURED:
        return f"That is as configured: {compared} nothing else was clearly better."
    if chosen == INDEPENDENT:
        return f"That is what was configured, less the self-supervised score: {compared} it was clearly better without."
    return f"It was chosen instead of the configured fusion: {compared} it was clearly better."


def role_words(source: HeatSource) -> str:
    """The part that a score has.

    >>> role_words(HeatSource("nll", "vae", "", 1 / 3, False)), role_words(HeatSource("pca", "", "", 0.0, True))
    ('heatmap, weight 0.33', 'baseline')
    """
    parts = [f"heatmap, weight {source.weight:.2g}"] if source.weight else []
    return ", ".join([*parts, *(["baseline"] if source.baseline else [])])


def and_words(names: Sequence[str]) -> str:
    """A list as it is spoken.

    >>> and_words(["T1"]), and_words(["T1", "T2", "FLAIR"])
    ('T1', 'T1, T2 and FLAIR')
    """
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def _family(score: Score, models: tuple[ScanModel, ...]) -> str:
    """The first model that offers what the score needs is the one that it uses."""
    if score.needs is None:
        return ""
    return next(model.family for model in models if score.supports([model]))


def _learnt_from(score: Score) -> str:
    if score.needs is not None or score.fixed:
        return ""
    return "corrupted copies of healthy scans" if score.from_corruptions else "healthy scans"
