"""DICOM objects of scored scans that came from a DICOM series."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgen import __version__
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.findings.listing import Finding
from medgen.errors import MedgenError
from medgen.io.dicom.objects.scored import Place, ScoredScan
from medgen.io.dicom.objects.write import write_objects
from medgen.report.anomaly.pictures import Scored
from medgen.report.figures.mosaic import grey_scale
from medgen.runs.context import Output

from ...given_scans import GivenScan

FOLDER = "dicom/"
DICOM = Output(
    FOLDER,
    "where wanted: objects that refer to a scan's series (`seg.dcm` findings, `pmap.dcm` heat, `sc/` colour images, "
    "`sr.dcm` measurements), with the patient's name and number as the series has them",
)


@dataclass(frozen=True)
class DicomObjects:
    """Writes the wanted DICOM objects of a scoring.

    Attributes:
        out: Folder of the run.
        kinds: Which, of :data:`medgen.io.dicom.objects.wanted.KINDS`.
        channels: Names of the model's channels.
        model: SHA-256 of the model.
    """

    out: Path
    kinds: Collection[str]
    channels: Sequence[str]
    model: str

    def write(self, entry: Scored, detector: AnomalyDetector, given: GivenScan) -> str:
        """Write the objects of a scan.

        Args:
            entry: The scan.
            detector: What scored it.
            given: The files that it was read from.

        Returns:
            Why there are none, in a few words; empty where they are written, or none are wanted.
        """
        if not self.kinds:
            return ""
        series = given.order(self.channels)[0]
        if not given.is_series(series):
            return f"{series.name} is no DICOM series"
        try:
            write_objects(self.out / FOLDER / entry.name, series, self._described(entry, detector), self.kinds)
        except MedgenError as error:
            return str(error)
        return ""

    def _described(self, entry: Scored, detector: AnomalyDetector) -> ScoredScan:
        result, doubt = entry.result, entry.result.doubts.why
        found = [*result.findings, *result.unlisted]
        return ScoredScan(
            scan=entry.scan,
            window=grey_scale(entry.scan, 0),
            heatmap=result.heatmap,
            regions=result.regions,
            places=[_place(finding, bool(doubt)) for finding in found],
            threshold=detector.findings_threshold,
            doubt=doubt,
            model=self.model,
            family=", ".join(dict.fromkeys(model.family for model in detector.members[0].models)) or "none",
            version=__version__,
        )


def _place(finding: Finding, doubtful: bool) -> Place:
    """A finding as an object tells it; of a hot place of a doubtful scan nothing is claimed."""
    return Place(
        number=finding.id,
        label=f"{'Hot place' if doubtful else 'Finding'} {finding.id}",
        region=finding.region,
        peak=finding.peak,
        volume_ml=finding.above_threshold_ml,
        expected_false=None if doubtful else finding.expected_false,
        p=None if doubtful else finding.p_max,
    )
