"""Minimum detectable lesion: which sizes and contrasts of implant a fitted detector finds, by region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy import ndimage

from medgen.anomaly.findings.region_names import SURFACE_MM
from medgen.config import Config
from medgen.errors import DataError
from medgen.implants.implanted_scans import LARGEST_RADIUS_MM, implant_all
from medgen.progress import Tick
from medgen.seeds import numpy_rng

if TYPE_CHECKING:
    import torch

    from medgen.anomaly.detector import AnomalyDetector
    from medgen.metrics.interval import Interval
    from medgen.preprocessing.dataset import Dataset

REGIONS = ("left near the surface", "right near the surface", "left deep", "right deep")
# A size counts as detectable where it is found in at least this share of the subjects.
FOUND = 0.8
# Places tried for an implant that changes nothing, such as a dark one in a black ventricle.
_PLACES = 5


class DetectabilityConfig(Config):
    """The grid of sizes and contrasts.

    Attributes:
        enabled: Whether it is measured. Four regions x radii x contrasts x ``per_cell`` scans are scored.
        radii_mm: Radii of the implants.
        contrasts: In robust standard deviations of the foreground: below 0 a dark implant (hypointense), above 0 a
            bright one (hyperintense).
        per_cell: Subjects for each region, size and contrast; at most as many as are held out.
    """

    enabled: bool = True
    radii_mm: tuple[float, ...] = Field(default=(5.0, 10.0, 15.0), min_length=1)
    contrasts: tuple[float, ...] = Field(default=(-2.5, 2.5), min_length=1)
    per_cell: int = Field(default=2, ge=1)

    @field_validator("radii_mm")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 0 < min(value) <= max(value) <= LARGEST_RADIUS_MM or len(set(value)) < len(value):
            raise ValueError(f"expected different radii above 0 and up to {LARGEST_RADIUS_MM:g}, found {list(value)}")
        return value

    @field_validator("contrasts")
    @classmethod
    def _not_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in value or len(set(value)) < len(value):
            raise ValueError(f"expected different contrasts other than 0, found {list(value)}")
        return value

    def measurements(self, subjects: int) -> int:
        """Most scans that are scored with so many held-out subjects."""
        return len(REGIONS) * len(self.radii_mm) * len(self.contrasts) * min(self.per_cell, subjects)


@dataclass(frozen=True)
class Cell:
    """Implants of one region, size and contrast.

    Attributes:
        region: One of :data:`REGIONS`.
        kind: ``hypointense`` or ``hyperintense``.
        contrast: Signed, in robust standard deviations.
        radius_mm: Radius.
        subjects: Subjects with such an implant; fewer than wanted where it does not fit.
        detected: Those with a finding that hits the implant, see :data:`medgen.anomaly.evaluation.hits.RULE`.
        share: ``detected`` in ``subjects`` with its exact 95 % interval; None if it fits nowhere.
    """

    region: str
    kind: str
    contrast: float
    radius_mm: float
    subjects: int
    detected: int
    share: Interval | None


@dataclass(frozen=True)
class Smallest:
    """The minimum detectable lesion of a region and contrast.

    Attributes:
        region, contrast: See :class:`Cell`.
        radius_mm: The smallest radius that, like every larger one that fits, is detected in at least 80 % of the
            subjects tried; None if there is none.
        subjects, detected: At that radius, how many were tried and in how many it was detected.
        more: How many more subjects with such an implant detected it would take to say, with 95 % confidence (one-sided
            exact limit), that it is detected in at least 80 % of them; 0 if that can be said.
    """

    region: str
    contrast: float
    radius_mm: float | None
    subjects: int = 0
    detected: int = 0
    more: int = 0

    @property
    def words(self) -> str:
        """What can be said of the smallest radius."""
        if self.radius_mm is None:
            return "none of those measured"
        seen = f"{self.radius_mm:g} mm: {self.detected} of {self.subjects}"
        if self.more:
            return f"{seen}; {self.more} more needed to say {100 * FOUND:g} %"
        return f"{seen}, at least {100 * FOUND:g} % of subjects (95 % confidence)"


@dataclass(frozen=True)
class Detectability:
    """All cells (by region, contrast, rising radius) and the smallest radius of each region and contrast."""

    cells: Sequence[Cell]
    smallest: Sequence[Smallest]


def region_masks(foreground: NDArray[np.bool_], spacing: Sequence[float]) -> dict[str, NDArray[np.bool_]]:
    """The foreground parted into left and right, near the surface and deep; masks by name in :data:`REGIONS`.

    The model grid is RAS+, so voxels at or beyond the middle of the i axis are right. Near the surface is what lies
    within 10 mm of the nearest voxel outside of the foreground (Euclidean distance); the edge of the grid counts as
    outside.

    Args:
        foreground: (i, j, k).
        spacing: Voxel size in mm.
    """
    distance = ndimage.distance_transform_edt(np.pad(foreground, 1), sampling=tuple(spacing))[1:-1, 1:-1, 1:-1]
    right = np.zeros(foreground.shape, dtype=bool)
    right[foreground.shape[0] // 2 :] = True
    near = distance <= SURFACE_MM
    sides = {"left": ~right, "right": right}
    depths = {"near the surface": near, "deep": ~near}
    parts = {name: name.partition(" ") for name in REGIONS}
    return {name: foreground & sides[side] & depths[depth] for name, (side, _, depth) in parts.items()}


def detectability(
    detector: AnomalyDetector,
    test: Dataset,
    config: DetectabilityConfig,
    seed: int,
    progress: Tick | None = None,
) -> Detectability:
    """Implant every size and contrast in every region of held-out healthy scans and count what is found.

    All sizes and contrasts of a region are put into the same subjects, one scan of each; regions take turns through the
    subjects. The centre lies in the region and where the detector scores; the edge may reach over.

    Args:
        detector: Fitted.
        test: Healthy scans of held-out subjects.
        config: The grid.
        seed: Seed of the run.
        progress: Called with (what, done, total).
    """
    from medgen.anomaly.evaluation.hits import hits_of
    from medgen.anomaly.heat_scores import truth_on_own_grid
    from medgen.preprocessing.dataset import prepared_record

    rows = [test.subjects.index(subject) for subject in dict.fromkeys(test.subjects)]
    copies = min(config.per_cell, len(rows))
    spacing, lean = detector.preprocess.spacing, detector.lean
    total, done = config.measurements(len(rows)), 0
    counts: dict[tuple[str, float, float], list[bool]] = {}
    for number, region in enumerate(REGIONS):
        chosen = [rows[(number * copies + copy) % len(rows)] for copy in range(copies)]
        for row in chosen:
            foreground = test.foregrounds[row, 0].bool().cpu().numpy()
            where = region_masks(foreground, spacing)[region] & detector.support
            own = prepared_record(test, row, spacing)
            for contrast in config.contrasts:
                for radius in config.radii_mm:
                    stream = (seed, "detectability", test.ids[row], region)
                    placed = _placed(test.images[row], foreground, where, radius, contrast, spacing, stream)
                    found = counts.setdefault((region, contrast, radius), [])
                    if placed is not None:
                        image, truth = placed
                        heatmap = lean.heatmap(own, lean.measure(image, test.foregrounds[row].bool(), own.attributes))
                        there = truth_on_own_grid(truth, own, detector.preprocess).data[0] > 0
                        candidates = lean.candidates(heatmap)
                        listed = lean.calibration.healthy.listed(candidates, lean.config.findings.false_findings)
                        hits = hits_of(candidates, heatmap, there, lean.findings_threshold)
                        found.append(bool(hits[:listed].any()))
                    done += 1
                    if progress is not None:
                        progress("minimum detectable lesion", done, total)
    return tabulate(counts)


def tabulate(counts: Mapping[tuple[str, float, float], Sequence[bool]]) -> Detectability:
    """Cells and smallest radii from (region, contrast, radius) → whether each subject's implant was detected."""
    from medgen.metrics.bootstrap import binomial_interval

    cells = [
        Cell(
            region=region,
            kind=kind_of(contrast),
            contrast=contrast,
            radius_mm=radius,
            subjects=len(found),
            detected=sum(found),
            share=binomial_interval(sum(found), len(found)) if found else None,
        )
        for (region, contrast, radius), found in sorted(
            counts.items(), key=lambda item: (REGIONS.index(item[0][0]), item[0][1], item[0][2])
        )
    ]
    smallest = []
    for region, contrast in dict.fromkeys((cell.region, cell.contrast) for cell in cells):
        best: Cell | None = None
        for cell in reversed([cell for cell in cells if (cell.region, cell.contrast) == (region, contrast)]):
            if cell.share is None:
                continue
            if cell.share.estimate < FOUND:
                break
            best = cell
        if best is None:
            smallest.append(Smallest(region, contrast, None))
        else:
            more = more_needed(best.detected, best.subjects)
            smallest.append(Smallest(region, contrast, best.radius_mm, best.subjects, best.detected, more))
    return Detectability(cells, smallest)


def more_needed(detected: int, subjects: int) -> int:
    """Fewest further subjects, all with their implant detected, until at least 80 % can be said with 95 % confidence.

    The one-sided exact (Clopper-Pearson) lower limit of ``detected`` in ``subjects``.

    >>> more_needed(0, 0), more_needed(2, 2), more_needed(14, 14)
    (14, 12, 0)
    """
    from medgen.metrics.bootstrap import binomial_interval

    more = 0
    while binomial_interval(detected + more, max(subjects + more, 1), level=0.9).low < FOUND:
        more += 1
    return more


def kind_of(contrast: float) -> str:
    """The kind of implant of a signed contrast."""
    return "hypointense" if contrast < 0 else "hyperintense"


def _placed(
    image: torch.Tensor,
    foreground: NDArray[np.bool_],
    where: NDArray[np.bool_],
    radius: float,
    contrast: float,
    spacing: Sequence[float],
    stream: tuple[int, str, str, str],
) -> tuple[torch.Tensor, NDArray[np.bool_]] | None:
    """The implanted scan and its truth; None where the region has no place for it."""
    seed, *names = stream
    for attempt in range(_PLACES):
        rng = numpy_rng(seed, *names, attempt)
        try:
            changed, truth = implant_all(
                image, foreground, kind_of(contrast), radius, abs(contrast), spacing, None, rng, where
            )
        except DataError:
            return None
        if truth.any():
            return changed, truth
    return None
