"""Scored scans for other programs: BIDS derivatives, 3D Slicer scenes and ITK-SNAP workspaces."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.export.bids import BidsName, bids_names, describe_bids, write_bids
from medgen.anomaly.export.itksnap import write_itksnap
from medgen.anomaly.export.scan import ExportedScan
from medgen.anomaly.export.slicer import write_slicer
from medgen.errors import MedgenError
from medgen.report.anomaly.pictures import Scored
from medgen.report.figures.mosaic import grey_scale
from medgen.runs.context import Output

from ...given_scans import GivenScan

_BIDS, _SLICER, _ITKSNAP = "bids/", "slicer/", "itksnap/"
EXPORTS = (
    Output(_BIDS, "where wanted: heat, masks of findings and pseudo-healthy scans as a BIDS derivative"),
    Output(_SLICER, "where wanted: a folder for each scan with a scene for 3D Slicer, `<case>.mrml`"),
    Output(_ITKSNAP, "where wanted: a folder for each scan with a workspace for ITK-SNAP, `<case>.itksnap`"),
)


@dataclass(frozen=True)
class Exports:
    """Writes what other programs open of a scoring.

    Attributes:
        out: Folder of the run.
        kinds: For which, of :data:`medgen.anomaly.export.wanted.KINDS`.
        channels: Names of the model's channels.
        model: SHA-256 of the model.
        names: What BIDS calls each case.
    """

    out: Path
    kinds: Collection[str]
    channels: Sequence[str]
    model: str
    names: Mapping[str, BidsName]

    @classmethod
    def of(
        cls, out: Path, kinds: Collection[str], channels: Sequence[str], model: str, scans: Mapping[str, GivenScan]
    ) -> Exports:
        """For these scans, by case."""
        names = bids_names({case: scan.order(channels)[0] for case, scan in scans.items()}, channels)
        return cls(out, kinds, channels, model, names)

    def write(self, entry: Scored, detector: AnomalyDetector) -> tuple[list[str], str]:
        """Write what is wanted of a scan.

        Args:
            entry: The scan.
            detector: What scored it.

        Returns:
            The files, relative to the run's folder; and for which programs there are none and why, in a few words.
        """
        if not self.kinds:
            return [], ""
        scan = self._exported(entry, detector)
        ways: Mapping[str, Callable[[], list[Path]]] = {
            "bids": lambda: write_bids(self.out / _BIDS, self.names[entry.name], scan),
            "slicer": lambda: write_slicer(self.out / _SLICER / entry.name, scan),
            "itksnap": lambda: write_itksnap(self.out / _ITKSNAP / entry.name, scan),
        }
        written: list[Path] = []
        lost: list[str] = []
        for kind in self.kinds:
            try:
                written += ways[kind]()
            except MedgenError as error:
                lost.append(f"nothing for {kind}: {error}")
        return [path.relative_to(self.out).as_posix() for path in written], "; ".join(lost)

    def close(self, cases: Collection[str]) -> None:
        """Describe the BIDS data set once all its scans are written.

        Args:
            cases: Those that could be scored.
        """
        if "bids" in self.kinds and cases:
            describe_bids(self.out / _BIDS, [self.names[case] for case in cases], "medgen anomaly scores")

    def _exported(self, entry: Scored, detector: AnomalyDetector) -> ExportedScan:
        result, count = entry.result, len(entry.scan.data)
        return ExportedScan(
            name=entry.name,
            scan=entry.scan,
            # A model whose cohort did not say what a channel is called has numbered it.
            contrasts=["" if name.isdigit() else name for name in self.channels] or [""] * count,
            window=[grey_scale(entry.scan, channel) for channel in range(count)],
            heatmap=result.heatmap,
            regions=result.regions,
            findings=[*result.findings, *result.unlisted],
            threshold=detector.findings_threshold,
            doubt=result.doubts.why,
            pseudo=entry.pseudo,
            model=self.model,
        )
