"""How the fused channels were chosen: the report's section."""

from __future__ import annotations

from medgen.anomaly.channel_choice import CONFIGURED, Choice
from medgen.report.html import Report, fmt


def choice_section(report: Report, choice: Choice | None) -> None:
    """Words and table of the validation; nothing if it is switched off."""
    if choice is None:
        return
    report.section("Choice of channels", choice.words)
    rows = [
        (
            f"{entry.name} (chosen)" if entry.name == choice.chosen else entry.name,
            "baseline" if entry.baseline else "",
            fmt(entry.ap),
            "" if entry.name == CONFIGURED else fmt(entry.gain),
            *(entry.by_kind[kind] for kind in choice.kinds),
        )
        for entry in choice.candidates
    ]
    report.table(
        ["candidate", "", "voxel AP", "minus configured", *choice.kinds],
        rows,
        f"{choice.scans} implanted development scans, scored out of fold; chance {choice.prevalence:.4f}. Scores as "
        "normative z. Kinds of implants that the test set does not use and the self-supervised score has not learned.",
    )
