"""Training scans that may not be healthy: outliers among the out-of-fold scores of the development subjects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Progress

# Iglewicz and Hoaglin 1993 recommend this limit for the modified z-score.
OUTLIER = 3.5
COLUMNS = ("case", "subject", "scan_score", "score", "robust_z", "peak_r", "peak_a", "peak_s")


@dataclass(frozen=True)
class Suspect:
    """A development scan to look at before the model is trusted.

    Attributes:
        case, subject: Which scan; of several scans of a subject the one with the highest score.
        scan_score: Name of the scan score by which it stands out most: the one that decides about scans, or ``max``.
        score: Its out-of-fold value.
        robust_z: How far the subject's score lies above those of the others, in robust standard deviations.
        peak_ras: Where it is hottest, mm in the scan's own RAS+ world.
        picture: A PNG of it, if one was asked for.
    """

    case: str
    subject: str
    scan_score: str
    score: float
    robust_z: float
    peak_ras: tuple[float, float, float]
    picture: bytes = b""

    def row(self) -> dict[str, object]:
        """One line of ``contamination.csv``."""
        r, a, s = (round(value, 1) for value in self.peak_ras)
        values = (self.case, self.subject, self.scan_score, self.score, round(self.robust_z, 2), r, a, s)
        return dict(zip(COLUMNS, values, strict=True))


def robust_z(values: ArrayLike) -> NDArray[np.float64]:
    """Modified z-scores (n,): 0.6745 (x - median) / MAD; infinite off the median where the MAD is 0.

    Source: Iglewicz and Hoaglin, "How to detect and handle outliers", ASQC 1993.

    >>> robust_z([1.0, 2.0, 3.0, 4.0, 10.0]).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 4.72]
    """
    data = np.asarray(values, dtype=np.float64)
    away = data - np.median(data)
    spread = float(np.median(np.abs(away)))
    if spread == 0:
        return np.where(away == 0, 0.0, np.copysign(np.inf, away))
    return np.asarray(0.6745 * away / spread, dtype=np.float64)


def suspects(
    detector: AnomalyDetector,
    development: Dataset,
    draw: Callable[[str, ScanResult], bytes] | None = None,
    progress: Progress | None = None,
) -> list[Suspect]:
    """Development scans whose out-of-fold scan score or hottest voxel is an outlier above the others, worst first.

    Args:
        detector: Calibrated on ``development``.
        development: The scans it was fitted on, with their ``prepared`` records.
        draw: Makes the picture of a suspect from its case and its result; None: no pictures.
        progress: Called with the number of outliers looked at and their total.

    Raises:
        DataError: If the data set is not the one of the calibration, or has no ``prepared`` records.
    """
    names = list(dict.fromkeys(development.subjects))
    judged = list(dict.fromkeys([detector.config.scan_score, "max"]))
    scores = detector.calibration.scores
    if len(names) != len(scores["max"]) or not development.prepared:
        raise DataError(
            f"expected the {len(scores['max'])} prepared subjects that the detector was calibrated on, "
            f"found {len(names)}"
        )
    table = np.stack([robust_z(scores[name]) for name in judged])
    found = []
    outliers = np.flatnonzero(table.max(axis=0) > OUTLIER).tolist()
    for done, number in enumerate(outliers, start=1):
        worst = judged[int(table[:, number].argmax())]
        # Through the member of its own fold alone, which has never seen this subject: its calibration score again.
        fold = int(detector.calibration.folds[number])
        own = replace(detector, members=(detector.members[fold],))
        best: Suspect | None = None
        for row in (row for row, subject in enumerate(development.subjects) if subject == names[number]):
            known = development.prepared[row].attributes
            measured = own.measure(development.images[row], development.foregrounds[row], known)
            result = own.result(development.prepared[row], measured)
            hot = np.nan_to_num(result.heatmap.data[0], nan=-np.inf)
            peak = result.heatmap.grid.to_world(np.unravel_index(int(hot.argmax()), hot.shape))
            place = (float(peak[0]), float(peak[1]), float(peak[2]))
            score, away = result.scores[worst], float(table[:, number].max())
            if best is None or score > best.score:
                case = development.ids[row]
                picture = b"" if draw is None else draw(case, result)
                best = Suspect(case, names[number], worst, score, away, place, picture)
        if best is not None:
            found.append(best)
        if progress is not None:
            progress(done, len(outliers))
    return sorted(found, key=lambda item: -item.robust_z)
