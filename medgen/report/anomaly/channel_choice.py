"""How the fused channels were chosen: the report's section."""

from __future__ import annotations

from collections.abc import Collection

from medgen.anomaly.channel_choice import CONFIGURED, Choice
from medgen.report.html import Report


def choice_section(report: Report, choice: Choice | None, tested: Collection[str], learned: Collection[str]) -> None:
    """Words and table of the validation; nothing if it is switched off.

    Args:
        report: To add to.
        choice: What was decided.
        tested: Kinds of the test implants.
        learned: Kinds of corruption that the self-supervised score has learned.
    """
    if choice is None:
        return
    report.section("Choice of channels", choice.words)
    rows = [
        (
            f"{entry.name} (chosen)" if entry.name == choice.chosen else entry.name,
            "baseline" if entry.baseline else "",
            entry.ap,
            None if entry.name == CONFIGURED else entry.gain,
            None if entry.name == CONFIGURED else entry.p,
            *(entry.by_kind[kind] for kind in choice.kinds),
        )
        for entry in choice.candidates
    ]
    report.table(
        ["candidate", "", "voxel AP", "minus configured", "p (Holm)", *choice.kinds],
        rows,
        f"{choice.scans} implanted development scans, scored out of fold; chance {choice.prevalence:.4f}. Scores as "
        f"normative z. {kinds_words(choice.kinds, tested, learned)}",
    )


def kinds_words(kinds: Collection[str], tested: Collection[str], learned: Collection[str]) -> str:
    """Whether the kinds of implants that decided are new to the test set and to the self-supervised score.

    >>> kinds_words(["twist"], ["noise"], ["blur"])
    'These kinds of implants are not in the test set, and the self-supervised score has not learned them.'
    >>> kinds_words(["twist", "fade"], ["fade"], [])
    'Of these kinds of implants, the test set uses fade too: figures of the chosen channels on it are too good.'
    """
    shared, known = [kind for kind in kinds if kind in tested], [kind for kind in kinds if kind in learned]
    if not shared and not known:
        return "These kinds of implants are not in the test set, and the self-supervised score has not learned them."
    said = []
    if shared:
        said.append(f"the test set uses {', '.join(shared)} too: figures of the chosen channels on it are too good")
    if known:
        said.append(f"the self-supervised score has learned {', '.join(known)}, which favours it in this choice")
    return f"Of these kinds of implants, {'; '.join(said)}."
