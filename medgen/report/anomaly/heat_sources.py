"""Which scores and models make the heatmap, in a sentence, and what the single scores say of a place."""

from __future__ import annotations

from collections.abc import Sequence

from medgen.anomaly.channel_choice import CONFIGURED, INDEPENDENT
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.heat_sources import HeatSource, heat_sources, idle_families


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
