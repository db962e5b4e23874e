"""Artefacts: whether faulty scans are told from unusual ones, the report's section."""

from __future__ import annotations

from medgen.anomaly.artefacts.signs import MEASURES, ArtefactLimits
from medgen.anomaly.evaluation.artefacts import ArtefactResults
from medgen.metrics.interval import Interval
from medgen.report.html import Report, fmt


def healthy_words(results: ArtefactResults) -> str:
    """How many scans that are not faulty look like an artefact: development scans, held-out ones, implants."""

    def count(share: Interval) -> str:
        return f"{round(share.estimate * share.n)} of {share.n}"

    text = (
        f"{count(results.development)} healthy development scans look like an artefact by the limits of the other "
        f"subjects' scans ({fmt(results.development)}), {count(results.test)} held-out healthy scans "
        f"({fmt(results.test)})"
    )
    if results.implants is None:
        return f"{text}."
    return f"{text}, and {count(results.implants)} scans with an implanted lesion ({fmt(results.implants)})."


def artefacts_section(report: Report, results: ArtefactResults, limits: ArtefactLimits) -> None:
    """What is named, what would have been listed, and the limits that say so."""
    report.section(
        "Artefacts",
        "Held-out healthy scans as a faulty acquisition would have made them; no figure on lesions has any of them. A "
        "scan beyond the limit of a measure looks like that artefact: nothing of it is listed as a finding, and it has "
        f"no p-value. {healthy_words(results)}",
        layer="appendix",
    )
    report.table(
        ["artefact", "strength", "scans", "named", "as another", "not named", "refused", "scored", "hot", "listed"],
        [tuple(row.row().values()) for row in results.rows if row.scans],
        "named: looks like this artefact before any other. refused: by the gate, as another kind of scan. hot: of the "
        "scored ones, how many have places as hot as findings; listed: how many of these would be taken for findings, "
        "since the scan is neither named nor refused.",
    )
    report.table(
        ["artefact", "what tells it", "limit", "healthy development scans"],
        [
            (
                name,
                MEASURES[name].what + (f" ({MEASURES[name].unit})" if MEASURES[name].unit else ""),
                limit.high,
                f"{limit.values.min():.3g} to {limit.values.max():.3g}",
            )
            for name, limit in limits.limits.items()
        ],
        "Each healthy scan against those of other subjects.",
    )
