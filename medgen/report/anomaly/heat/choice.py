"""How the scores of the heatmap were chosen, and what the others would have made of it: the report's section."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from medgen.anomaly.channel_choice import CONFIGURED, Candidate
from medgen.anomaly.detector import AnomalyDetector
from medgen.report.anomaly.heat.sources import HeatSource, chosen_words, heat_sources, role_words
from medgen.report.html import Report


def choice_section(report: Report, detector: AnomalyDetector, tested: Collection[str]) -> None:
    """Every score, the model that it comes from and its part in the heatmap; how each would do, if that was compared.

    Args:
        report: To add to.
        detector: The detector as it was fitted.
        tested: Kinds of the test implants.
    """
    choice, sources = detector.choice, {source.score: source for source in heat_sources(detector)}
    if choice is None:
        report.section("Choice of scores", chosen_words(""), layer="appendix")
        report.table(
            ["score", "model", "part"],
            [(name, source.origin, role_words(source) or None) for name, source in sources.items()],
            "model: the trained model that the score is computed from.",
        )
        return
    report.section("Choice of scores", choice.words, layer="appendix")
    rows = [
        (
            f"{entry.name} (chosen)" if entry.name == choice.chosen else entry.name,
            _models(entry, sources),
            _part(entry, choice.chosen, sources),
            entry.ap,
            None if entry.name == CONFIGURED else entry.gain,
            None if entry.name == CONFIGURED else entry.p,
            *(entry.by_kind[kind] for kind in choice.kinds),
        )
        for entry in choice.candidates
    ]
    report.table(
        ["candidate", "model", "part", "voxel AP", "minus configured", "p (Holm)", *choice.kinds],
        rows,
        f"{choice.scans} implanted development scans, scored out of fold; chance {choice.prevalence:.4f}. Scores as "
        f"normative z. model: the trained model that a score is computed from. part: its own in the heatmap. "
        f"{kinds_words(choice.kinds, tested, detector.config.corruptions)}",
    )


def _models(entry: Candidate, sources: Mapping[str, HeatSource]) -> str:
    """Of a single score what computes it; of a fusion the families that have a part in it."""
    if len(entry.channels) == 1:
        return sources[entry.channels[0]].origin
    families = dict.fromkeys(sources[name].family for name in entry.channels)
    return ", ".join(family for family in families if family) or "no model"


def _part(entry: Candidate, chosen: str, sources: Mapping[str, HeatSource]) -> str | None:
    if entry.name in sources:
        return role_words(sources[entry.name]) or None
    return "heatmap" if entry.name == chosen else None


def kinds_words(kinds: Collection[str], tested: Collection[str], learned: Collection[str]) -> str:
    """Whether the kinds of implants that decided are new to the test set and to the self-supervised score.

    >>> kinds_words(["twist"], ["noise"], ["blur"])
    'These kinds of implants are not in the test set, and the self-supervised score has not learned them.'
    >>> kinds_words(["twist", "fade"], ["fade"], [])
    'Of these kinds of implants, the test set uses fade too: figures of the chosen scores on it are too good.'
    """
    shared, known = [kind for kind in kinds if kind in tested], [kind for kind in kinds if kind in learned]
    if not shared and not known:
        return "These kinds of implants are not in the test set, and the self-supervised score has not learned them."
    said = []
    if shared:
        said.append(f"the test set uses {', '.join(shared)} too: figures of the chosen scores on it are too good")
    if known:
        said.append(f"the self-supervised score has learned {', '.join(known)}, which favours it in this choice")
    return f"Of these kinds of implants, {'; '.join(said)}."
