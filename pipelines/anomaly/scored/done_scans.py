"""What is done of a scoring, scan by scan: files, page, and the little that the index needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.doubts import rank_words
from medgen.anomaly.findings import listing
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.scored.opening import Scorer, scan_opening
from medgen.report.anomaly.scored.scoring import ScoredCase, case_blocks
from medgen.report.anomaly.words import p_words
from medgen.report.html import Link, Report

from ...given_scans import GivenScan
from ..known_scans import learnt_words
from ..outputs import ScanFiles
from ..people import Person
from .dicom_objects import FOLDER, DicomObjects
from .exports import Exports
from .kept_cases import KeptCase, KeptCases
from .viewers import Viewers

# Folder of the pages, relative to the report.
PAGES = "cases/"


@dataclass
class DoneScans:
    """What is done of a scoring; what a scan leaves in memory are kilobytes.

    Attributes:
        detector: The detector, with its gate.
        out: Folder of the run.
        kept: Where scans are kept for a scoring that goes on.
        viewers: Writes pages to look through them.
        objects: Writes DICOM objects of them.
        exports: Writes what other programs open.
        several: Whether there are several scans, each with a page of its own.
        limits: What a page says that results do not show.
        scorer: What pages say of the model.
        learnt: Scans that the model knows, by the hash of their file.
    """

    detector: AnomalyDetector
    out: Path
    kept: KeptCases
    viewers: Viewers
    objects: DicomObjects
    exports: Exports
    several: bool
    limits: str
    scorer: Scorer = field(default_factory=Scorer)
    learnt: Mapping[str, str] = field(default_factory=dict)
    files: ScanFiles = field(init=False)
    scored: list[ScoredCase] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    only: Report | None = None

    def __post_init__(self) -> None:
        self.files = ScanFiles(self.out)

    def before(self, name: str, read: Mapping[str, str]) -> bool:
        """Take a scan over that an interrupted scoring has kept; False if there is none."""
        found = self.kept.find(name, read)
        if found is None:
            return False
        self.take(found)
        return True

    def take(self, kept: KeptCase) -> None:
        """Take a scan over whose files and page are written."""
        self.files.take(kept.rows)
        self.scored.append(kept.case)
        self.said.append(kept.said)

    def add(self, entry: Scored, given: GivenScan, read: Mapping[str, str], person: Person) -> None:
        """Write the files and the page of a scan, and keep what the index and the tables need.

        Args:
            entry: The scan.
            given: The files that it was read from.
            read: Their hashes, by what they are.
            person: Whose scan it is.
        """
        name = entry.name
        about = {"adjusted_for": person.words} if self.detector.covariates else {}
        self.files.add(name, entry.result, doubt=entry.result.doubts.why, **about)
        if entry.pseudo is not None:
            difference = entry.cleaned.with_data(entry.cleaned.data - entry.pseudo.data)
            self.files.add_pseudo_healthy(name, entry.pseudo, difference)
        page = f"{PAGES}{name}.html" if self.several else ""
        viewer = self.viewers.write(entry, self.detector, page or "report.html")
        without = self.objects.write(entry, self.detector, given)
        exported, lost = self.exports.write(entry, self.detector)
        objects = sorted(path.relative_to(self.out).as_posix() for path in (self.out / FOLDER / name).rglob("*.dcm"))
        links = object_links(objects, "../" if page else "")
        if page:
            # It can be read, and sent, without the others.
            report = Report(name, "Anomaly scores of one scan", back=Link("All scans", "../report.html"))
            seen = viewer and f"../{viewer}"
            for sentence in learnt_words({name: read}, self.learnt):
                report.verdict(sentence, "bad")
            scan_opening(report, entry, self.detector, self.scorer, seen)
            case_blocks(report, entry, self.detector, person.words, person.missing, links)
            report.section("Limits", self.limits)
            report.write(self.out / page)
        else:
            self.only = Report(name)
            scan_opening(self.only, entry, self.detector, self.scorer, viewer)
            self.only.section("Where it is unusual", layer="cases")
            case_blocks(self.only, entry, self.detector, person.words, person.missing, links)
        self.scored.append(ScoredCase.of(entry, page, f"{FOLDER}{name}/" if objects else ""))
        self.said.append(
            line_of(entry) + (f"; no DICOM objects: {without}" if without else "") + (f"; {lost}" if lost else "")
        )
        if page:
            written = [page, f"heatmaps/{name}.nii.gz", *([viewer] if viewer else [])]
            if entry.pseudo is not None:
                written += [f"{folder}/{name}.nii.gz" for folder in ("pseudo-healthy", "difference")]
            written += [*objects, *exported]
            self.kept.keep(KeptCase(self.scored[-1], self.said[-1], self.files.rows(), written), read)


def object_links(objects: Sequence[str], up: str) -> list[tuple[str, str]]:
    """The DICOM objects of a scan as a page links to them, with what each holds; of the colour images the first.

    Args:
        objects: Their files, relative to the run's folder, in order.
        up: The way from the page to that folder.
    """
    first = next((path for path in objects if "/sc/" in path), "")
    holds = {"seg.dcm": "DICOM segments of findings", "pmap.dcm": "DICOM map of the heat", "sr.dcm": "DICOM report"}
    return [
        (f"{up}{path}", holds.get(path.rpartition("/")[2], "the first of the DICOM colour images"))
        for path in objects
        if "/sc/" not in path or path == first
    ]


def line_of(entry: Scored) -> str:
    """What the console says of a scan: p-values and findings, or why there are none."""
    name, doubts = entry.result.scan_score, entry.result.doubts
    if doubts:
        hot = len(entry.result.unlisted)
        ranks = rank_words(entry.result.ranks, name)
        return f"{entry.name}: {doubts.why}, so no p-value and no findings: {ranks}; hot places: {hot}"
    numbers = ", ".join(p_words(entry.result, key) for key in dict.fromkeys(["max", entry.result.scan_score]))
    return f"{entry.name}: {numbers}, {listing.summary(entry.result.findings)}"
