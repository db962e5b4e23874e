"""The report of new scans: an index of all, and for each its verdict, pseudo-healthy comparison and findings."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.doubts import Rank
from medgen.report.anomaly.gate import abstained_section, artefact_section, outside_section
from medgen.report.anomaly.heat.single_scores import scores_block
from medgen.report.anomaly.heat.sources import heat_words
from medgen.report.anomaly.pictures import (
    Scored,
    comparison_section,
    contrasts_figure,
    findings_section,
    marks_of,
    peak_of,
    picture_caption,
    shown_contrast,
)
from medgen.report.anomaly.scored.preparation import preparation_blocks, recipe_facts
from medgen.report.anomaly.words import level_words
from medgen.report.figures.mosaic import mosaic
from medgen.report.figures.small_png import small_png
from medgen.report.figures.thumbnail import thumbnail
from medgen.report.html import Link, Report, Thumbnail
from medgen.system.files import plain


@dataclass(frozen=True, eq=False)
class ScoredCase:
    """What an index of scored scans keeps of one: numbers and a picture of a few kilobytes, none of its maps.

    Attributes:
        name: Of the scan.
        findings, family_wise: How many it has, and how many of them pass the family-wise level.
        strongest: Where the strongest one is and what is unusual about it, in words; empty if there is none.
        unlisted: How many hot places it has that are no findings, since there are doubts.
        scores, p_values, ranks: As in :class:`medgen.anomaly.detector.ScanResult`.
        why: Why nothing is claimed of it, in two or three words; empty if there are no doubts.
        refused: Why the gate refuses it though it was scored; empty if it does not.
        artefact: The artefact that it looks like, with the number that says so; empty if it looks like none.
        thumbnail: A PNG of the slice through the hottest voxel.
        page: Path of its own page beside the report; empty if its section is in the report.
        dicom: Path of the folder with its DICOM objects beside the report; empty if there are none.
    """

    name: str
    findings: int
    family_wise: int
    strongest: str
    unlisted: int
    scores: Mapping[str, float]
    p_values: Mapping[str, float]
    ranks: Mapping[str, Rank]
    why: str
    refused: str
    artefact: str
    thumbnail: bytes
    page: str = ""
    dicom: str = ""

    @classmethod
    def of(cls, entry: Scored, page: str = "", dicom: str = "") -> ScoredCase:
        """What is kept of a scan."""
        result = entry.result
        small = thumbnail(entry.scan, result.heatmap, peak_of(result), shown_contrast(result) or 0)
        found, doubts = result.findings, result.doubts
        strongest = f"{found[0].region}; {found[0].unusual}" if found else ""
        return cls(
            name=entry.name,
            findings=len(found),
            family_wise=sum(finding.family_wise for finding in found),
            strongest=strongest,
            unlisted=len(result.unlisted),
            scores=dict(result.scores),
            p_values=dict(result.p_values),
            ranks=dict(result.ranks),
            why=doubts.why,
            refused=". ".join(doubts.refused),
            artefact=". ".join(sign.words for sign in doubts.signs),
            thumbnail=small,
            page=page,
            dicom=dicom,
        )

    def to_plain(self) -> dict[str, Any]:
        """As plain data, the picture in base 64."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**plain(own | {"thumbnail": ""}), "thumbnail": base64.b64encode(self.thumbnail).decode()}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> ScoredCase:
        """From what :meth:`to_plain` gave; a number that JSON does not have is NaN again."""
        numbers = {
            name: {key: math.nan if value is None else value for key, value in data[name].items()}
            for name in ("scores", "p_values")
        }
        ranks = {name: Rank(**own) for name, own in data["ranks"].items()}
        return cls(**{**data, **numbers, "ranks": ranks, "thumbnail": base64.b64decode(data["thumbnail"])})


def index_sections(
    report: Report,
    detector: AnomalyDetector,
    scored: Sequence[ScoredCase],
    failures: Sequence[tuple[str, str, str]],
    model_sha256: str,
) -> None:
    """What all scans share, and tables of all of them, the hottest first.

    Args:
        report: The report.
        detector: What scored them.
        scored: The scans that could be scored.
        failures: Case, stage and reason of the others; the stage ``gate`` is an abstention.
        model_sha256: Digest of the model.
    """
    config, calibration = detector.config, detector.calibration
    level = config.findings.false_findings
    abstained = [(name, reason) for name, stage, reason in failures if stage == "gate"]
    unusable = [(name, reason) for name, stage, reason in failures if stage != "gate"]
    several = any(case.page for case in scored)
    if several:
        report.text(heat_words(detector))
        _cases_table(report, detector, scored)
    if unusable:
        report.table(["scan", "why it was not scored"], unusable)
    abstained_section(report, abstained)
    artefact_section(report, [(s.name, s.artefact) for s in scored if s.artefact])
    outside_section(report, [(s.name, s.refused) for s in scored if s.refused])
    report.section("Model and calibration", layer="appendix")
    report.facts(
        {
            "model (SHA-256)": model_sha256,
            "healthy subjects in the calibration": len(calibration.maxima),
            "expected false findings per healthy scan": level,
            "the same, measured in the calibration": calibration.healthy.rate(level),
            "threshold of findings (z)": detector.findings_threshold,
            "family-wise level": f"{100 * config.calibration.target_fpr:g} % of healthy scans",
            "threshold of family-wise findings (z)": calibration.threshold,
            "score of whole scans": detector.config.scan_score,
            "healthy means and variances": detector.adjusted.words,
            **recipe_facts(detector.preprocess),
        }
    )
    if scored and not several:
        _cases_table(report, detector, scored)


def _cases_table(report: Report, detector: AnomalyDetector, scored: Sequence[ScoredCase]) -> None:
    """Every scored scan in a line, the hottest first."""
    calibration, level = detector.calibration, detector.config.findings.false_findings
    pages = " The hottest scan first; its name leads to its page." if any(case.page for case in scored) else ""
    names_of = list(dict.fromkeys(["max", detector.config.scan_score]))
    columns = [text for name in names_of for text in (name, f"p ({name})")]
    objects = ["DICOM"] if any(case.dicom for case in scored) else []
    report.table(
        ["slice", "scan", "findings", "family-wise", "strongest finding", *columns, *objects],
        [
            (
                Thumbnail(s.thumbnail, f"Slice of {s.name} through its hottest voxel"),
                Link(s.name, s.page) if s.page else s.name,
                s.findings,
                s.family_wise,
                s.strongest or s.why or None,
                *(part for name in names_of for part in (s.scores[name], s.p_values.get(name))),
                *(Link("objects", s.dicom) if s.dicom else None for _ in objects),
            )
            for s in sorted(scored, key=lambda s: (bool(s.why), -s.scores["max"]))
        ],
        f"{level_words(calibration.healthy, level)}. family-wise: how many of them pass the stricter level. max: "
        "hottest voxel (z). Each p is the share of healthy scans with at least that score, this one included "
        "(conformal). By hand: `calibration.csv` has the healthy scores, `candidates.csv` their candidates. A "
        f"scan that the gate refuses or that looks like an artefact has no p.{pages}",
        sortable=len(scored) > 1,
    )


def case_blocks(
    report: Report,
    entry: Scored,
    detector: AnomalyDetector,
    person: str = "",
    unknown: Sequence[str] = (),
    objects: Sequence[tuple[str, str]] = (),
) -> None:
    """What is said and shown of one scan below its first screen, in the section opened last.

    Args:
        report: The report, or a page of its own.
        entry: The scan and its result; nothing of it is kept but the pictures.
        detector: What scored it.
        person: For whom means and variances were adjusted, in words; empty where nothing is.
        unknown: Covariates that are not known of the person.
        objects: Its DICOM objects, relative to this page, with what each holds.
    """
    doubts = entry.result.doubts
    if doubts.refused:
        report.text(f"What the gate found: {'. '.join(doubts.refused)}")
    if person:
        report.text(f"Healthy means and variances are those of this person: {person}.{_unknown_words(unknown)}")
    # What a reader needs first: the list with its pictures.
    findings_section(report, entry)
    comparison_section(report, entry, detector)
    if len(entry.result.contrasts) > 1:
        contrasts_figure(report, entry)
    contrast = shown_contrast(entry.result) or 0
    figure = mosaic(
        entry.scan,
        heatmap=entry.result.heatmap,
        contour=marks_of(entry.result) if entry.result.findings or entry.result.unlisted else None,
        contour_label="finding" if entry.result.findings else "hot place",
        slices=peak_of(entry.result),
        title=entry.name,
        channel=contrast,
    )
    seen = f" ({entry.result.contrasts[contrast]})" if len(entry.result.contrasts) > 1 else ""
    text = f"The scan{seen} in its own space, slices through the hottest voxel."
    report.figure(small_png(figure), picture_caption(text), entry.name)
    report.text(heat_words(detector))
    scores_block(report, entry)
    preparation_blocks(report, entry)
    if objects:
        report.links(objects)


def _unknown_words(unknown: Sequence[str]) -> str:
    """What it means that something is not known; empty if all is."""
    if not unknown:
        return ""
    return (
        f" Of {' and '.join(name.replace('_', ' ') for name in unknown)} nothing is known: the cohort's average was "
        "taken, with the variance that not knowing adds. p-values then hold for people drawn like the cohort, not for "
        "each kind of person."
    )
