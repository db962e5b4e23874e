"""The files of scored scans: native-space heatmaps, findings, scan scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from medgen import io
from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.ensemble import Calibration
from medgen.anomaly.findings.listing import COLUMNS
from medgen.anomaly.findings.record import findings_content
from medgen.runs.context import Output
from medgen.system.files import write_csv, write_json
from medgen.volume import Volume

SCAN_OUTPUTS = (
    Output(
        "heatmaps/", "the heat of every scan in standard deviations, each on the grid of its scan; NaN is not scored"
    ),
    Output("pseudo-healthy/", "what a model of healthy anatomy makes of some scans, in their own intensities"),
    Output("difference/", "these scans minus their pseudo-healthy versions"),
    Output("scans.csv", "scores and p-values of every scan", tracked=True),
    Output(
        "findings.csv",
        "place, looks, size, expected false findings and p-value of every finding; a row with a doubt claims nothing",
        tracked=True,
    ),
    Output(
        "findings.json", "the same findings by scan, in a form that `findings.schema.json` of the package describes"
    ),
)
CALIBRATION = (
    Output("calibration.csv", "the scores of every calibration subject, from which each p-value can be checked"),
    Output("candidates.csv", "the candidates of the calibration scans, from which expected false findings follow"),
)
_DESCRIPTION = "medgen heat (z), research only"


@dataclass
class ScanFiles:
    """Collects the results of a run and writes them below one folder.

    Attributes:
        out: Folder of the run.
    """

    out: Path
    _scans: list[dict[str, Any]] = field(default_factory=list)
    _findings: list[dict[str, Any]] = field(default_factory=list)
    _json: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, result: ScanResult, **facts: Any) -> Path:
        """Write ``heatmaps/<name>.nii.gz`` and keep the rows of the tables; ``facts`` are further columns."""
        path = self.out / "heatmaps" / f"{name}.nii.gz"
        io.write(result.heatmap, path, description=_DESCRIPTION)
        row: dict[str, Any] = {"case": name, **facts, "findings": len(result.findings)}
        row["family_wise"] = sum(finding.family_wise for finding in result.findings)
        for key, value in result.scores.items():
            row |= {key: value, f"p_{key}": result.p_values.get(key)}
            if (tail := result.tails.get(key)) is not None:
                row |= {f"tail_{key}": tail.estimate, f"tail_low_{key}": tail.low, f"tail_high_{key}": tail.high}
        # What a doubtful scan would have had is kept with the doubt, and claims nothing.
        hot, doubt = [*result.findings, *result.unlisted], result.doubts.why
        found = [finding.row(name, doubt) for finding in hot]
        self.take({"scan": row, "findings": found, "json": [finding.to_plain(doubt) for finding in hot]})
        return path

    def take(self, rows: Mapping[str, Any]) -> None:
        """Take over rows that an interrupted run has kept of a scan whose files are written."""
        name = str(rows["scan"]["case"])
        self._scans.append(dict(rows["scan"]))
        self._findings += rows["findings"]
        self._json[name] = rows["json"]

    def rows(self) -> dict[str, Any]:
        """The rows of the scan that was added last, for :meth:`take`."""
        name = self._scans[-1]["case"]
        return {
            "scan": self._scans[-1],
            "findings": [row for row in self._findings if row["case"] == name],
            "json": self._json[name],
        }

    def add_pseudo_healthy(self, name: str, pseudo: Volume, difference: Volume) -> None:
        """Write ``pseudo-healthy/<name>.nii.gz`` and ``difference/<name>.nii.gz``, both in the scan's intensities."""
        io.write(
            pseudo, self.out / "pseudo-healthy" / f"{name}.nii.gz", description="medgen pseudo-healthy, research only"
        )
        io.write(difference, self.out / "difference" / f"{name}.nii.gz", description="medgen scan minus pseudo-healthy")

    def add_truth(self, name: str, truth: Volume) -> None:
        """Write the ground truth of an implanted scan, ``truth/<name>.nii.gz``, 0 and 1 on the native grid."""
        io.write(truth, self.out / "truth" / f"{name}.nii.gz", description="medgen implant, ground truth")

    def close(self) -> None:
        """Write ``scans.csv``, ``findings.csv`` and ``findings.json``; headers alone if there is nothing."""
        columns = list(dict.fromkeys(key for row in self._scans for key in row)) or ["case", "findings"]
        write_csv(self.out / "scans.csv", map(_exact, self._scans), columns)
        write_csv(self.out / "findings.csv", map(_exact, self._findings), COLUMNS)
        write_json(self.out / "findings.json", findings_content(self._json))


def write_calibration(out: Path, calibration: Calibration, subjects: Sequence[str] = ()) -> None:
    """Write ``calibration.csv`` and ``candidates.csv``: scan scores and candidates of healthy subjects, out of fold.

    A p-value of ``scans.csv`` is (1 + how many lines have a score at least as high) / (1 + lines), and that of a
    finding is the same for its peak and the column ``max``. The expected false findings of the r-th finding of a scan
    are (r + the sum of the weights of the candidates at least as hot) / (1 + subjects).

    Args:
        out: Folder of the run.
        calibration: The scores.
        subjects: Names in their order; a model that was handed on knows none.
    """
    rows = calibration.rows(subjects)
    write_csv(out / "calibration.csv", map(_exact, rows), list(rows[0]))
    candidates = calibration.healthy.rows(subjects)
    columns = [*(["subject"] if subjects else []), "scan", "heat", "weight"]
    write_csv(out / "candidates.csv", map(_exact, candidates), columns)


def level_facts(detector: AnomalyDetector) -> dict[str, Any]:
    """The level of findings for ``metrics.json``: what it aims at, its threshold, and how it came out."""
    level, healthy = detector.config.findings.false_findings, detector.calibration.healthy
    return {
        "false_findings": level,
        "threshold": detector.findings_threshold,
        "measured": healthy.rate(level),
        "subjects_with_finding": healthy.share_with_finding(level),
    }


def _exact(row: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers to their last digit: a p-value counts which scores are higher, and rounding would make ties."""
    return {
        key: repr(float(value)) if isinstance(value, float) and isfinite(value) else value for key, value in row.items()
    }


def unique_names(paths: Iterable[Path]) -> list[str]:
    """A safe output name per scan: its stem, numbered where two are the same."""
    from medgen.data.layouts.by_file_name import safe_id

    names: list[str] = []
    for path in paths:
        stem = safe_id(io.stem(path.resolve()))
        name, number = stem, 2
        while name.lower() in {used.lower() for used in names}:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names
