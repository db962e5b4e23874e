"""Findings: the candidates of a heatmap that are listed, measured in the scan's own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from medgen.anomaly.calibration import p_value, significant
from medgen.anomaly.findings.appearance import ASPECTS, lean, most_unusual, unusual_words
from medgen.anomaly.findings.candidates import Candidates
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.findings.region_names import middle_of, regions
from medgen.metrics.neighbourhood import connected_parts
from medgen.preprocessing.prepared import PreparedScan, Template
from medgen.volume import Volume

COLUMNS = (
    "case", "finding", "region", "unusual", "expected_false", "p_max", "family_wise", "peak", "mean",
    "above_threshold_ml", "half_peak_extent_ml", "brightness_sd", "detail_sd", "channel", "channels",
    "voxel_i", "voxel_j", "voxel_k", "template_r_mm", "template_a_mm", "template_s_mm",
    "scan_r_mm", "scan_a_mm", "scan_s_mm", "doubt",
)  # fmt: skip

# A score takes part in a finding if fewer than one in a hundred healthy voxels surprise it as much: −log₁₀ p above 2.
_TAKES_PART = 2.0

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Finding:
    """A candidate that is listed.

    Attributes:
        id: 1 for the one with the highest peak, and so on.
        above_threshold_ml: Volume of its outlined part, in the scan's own grid: above the threshold of findings, and at
            least half as hot as the peak, in one piece. It is no lesion's volume: of a lesion that is barely above the
            threshold, it is a few voxels.
        half_peak_extent_ml: Volume around the peak that is at least half as far above the scan's background (the median
            of its scored voxels) as the peak is, in one piece and nearer to this peak than to another candidate's by
            steepest ascent: the full width at half maximum, in three dimensions.
        peak, mean: Heat (z) at the peak and on average over the outlined part.
        p_max: Family-wise conformal p-value of the peak: the share of healthy scans whose hottest voxel is as hot.
        expected_false: How many findings a healthy scan has on average if what is as strong as this is listed; see
            :mod:`medgen.anomaly.findings.false_findings`.
        family_wise: Whether ``p_max`` is at or below the family-wise target.
        peak_voxel: (i, j, k) of the peak in the scan's file, from 0.
        peak_ras: The same in RAS+ mm of the scan's own world, whose origin is wherever the scanner put it.
        peak_template: The peak in mm to the right, front and top of the middle of the organ in the cohort's template;
            None where the scan was not registered to one.
        channel: The score of the heatmap with the smallest tail probability at the peak.
        channels: All such scores with −log₁₀ p above 2 at the peak and that number, strongest first: "nll 4.1, pca
            3.0".
        region: Where the peak lies, in words; see :func:`medgen.anomaly.findings.region_names.regions`.
        brightness, detail: Difference of intensity and of detail from healthy scans over the outlined part, to the side
            that it leans to (:func:`medgen.anomaly.findings.appearance.lean`), in healthy standard deviations, one for
            each contrast of the scan.
        contrasts: What the contrasts of the scan are called, in their order.
    """

    id: int
    above_threshold_ml: float
    half_peak_extent_ml: float
    peak: float
    mean: float
    p_max: float
    expected_false: float
    family_wise: bool
    peak_voxel: tuple[int, int, int]
    peak_ras: Point
    peak_template: Point | None = None
    channel: str = ""
    channels: str = ""
    region: str = ""
    brightness: tuple[float, ...] = ()
    detail: tuple[float, ...] = ()
    contrasts: tuple[str, ...] = ()

    def to_plain(self, doubt: str = "") -> dict[str, Any]:
        """Plain data, keys as the attributes, and ``unusual`` and ``doubt``; see :meth:`row`."""
        nothing = dict.fromkeys(("expected_false", "p_max", "family_wise")) if doubt else {}
        return {**asdict(self), "unusual": self.unusual, **nothing, "doubt": doubt}

    def row(self, case: str, doubt: str = "") -> dict[str, Any]:
        """A row of ``findings.csv`` (see ``COLUMNS``).

        Args:
            case: Name of the scan.
            doubt: Why it is no finding but a hot place of which nothing is claimed: it then has no p-value and no
                expected false findings. Empty for findings.
        """
        levels = (None, None, None) if doubt else (self.expected_false, self.p_max, self.family_wise)
        numbers = (self.peak, self.mean, self.above_threshold_ml, self.half_peak_extent_ml)
        looks = ("; ".join(f"{value:.2f}" for value in own) for own in (self.brightness, self.detail))
        places = [*self.peak_voxel, *(self.peak_template or (None, None, None)), *self.peak_ras]
        words = (case, self.id, self.region, self.unusual)
        values = (*words, *levels, *numbers, *looks, self.channel, self.channels, *places, doubt or None)
        return dict(zip(COLUMNS, values, strict=True))

    @property
    def unusual(self) -> str:
        """What is unusual about it, in words."""
        return unusual_words(self.brightness, self.detail, self.contrasts)

    @property
    def contrast(self) -> int | None:
        """Number of the contrast in which it is most unusual, from 0; None where it is clearly so in none."""
        return most_unusual(self.brightness, self.detail)

    @property
    def position(self) -> str:
        """Where the peak is, in numbers that can be looked up: its voxel, and mm as viewers show them.

        The mm are of the scan's own world, so that viewers of it, medgen's among them, say the same.
        """
        i, j, k = self.peak_voxel
        sides = (letters[value < 0] for letters, value in zip(("RL", "AP", "SI"), self.peak_ras, strict=True))
        mm = ", ".join(f"{abs(value):.1f} {side}" for side, value in zip(sides, self.peak_ras, strict=True))
        return f"{mm} mm; voxel {i}, {j}, {k}"


def find(
    heatmap: Volume,
    candidates: Candidates,
    healthy: HealthyCandidates,
    maxima: ArrayLike,
    false_findings: float,
    target_fpr: float,
) -> list[Finding]:
    """The candidates whose expected number of false findings is at most a level, hottest first.

    The k-th finding is the k-th candidate, so its voxels are those with ``candidates.labels == k``.

    Args:
        heatmap: One channel, NaN where not scored.
        candidates: Its candidates.
        healthy: Candidates of the healthy calibration scans.
        maxima: (n,) their hottest voxels, one per subject.
        false_findings: Expected false findings per healthy scan.
        target_fpr: Family-wise false-positive rate, for the mark.
    """
    count = healthy.listed(candidates, false_findings)
    if not count:
        return []
    values = np.nan_to_num(heatmap.data[0], nan=-np.inf)
    parts = candidates.parts(heatmap, healthy.threshold(false_findings))
    expected = healthy.expected_false(candidates.heat).tolist()
    boxes = ndimage.find_objects(candidates.labels, max_label=count)
    litre = heatmap.grid.voxel_volume / 1000
    found = []
    for number, (box, heat, voxel) in enumerate(
        zip(boxes, candidates.heat[:count].tolist(), candidates.voxels[:count].tolist(), strict=True), start=1
    ):
        own = candidates.labels[box] == number
        above = values[box][parts[box] == number]
        half = own & (values[box] >= (candidates.background + heat) / 2)
        inside = tuple(int(index - axis.start) for index, axis in zip(voxel, box, strict=True))
        p_max = p_value(maxima, heat)
        found.append(
            Finding(
                id=number,
                above_threshold_ml=above.size * litre,
                half_peak_extent_ml=_connected(half, inside) * litre,
                peak=heat,
                mean=float(above.mean(dtype=np.float64)),
                p_max=p_max,
                expected_false=expected[number - 1],
                family_wise=significant(p_max, target_fpr),
                peak_voxel=(voxel[0], voxel[1], voxel[2]),
                peak_ras=_point(heatmap, voxel),
            )
        )
    return found


def describe(
    found: Sequence[Finding],
    regions_of: Volume,
    prepared: PreparedScan,
    surprise: Mapping[str, NDArray[np.float32]],
    appearance: Mapping[str, NDArray[np.float32]],
    template: Template | None,
    contrasts: Sequence[str] = (),
) -> list[Finding]:
    """The findings with their place and what is unusual about them in words, and the scores that are surprised.

    Args:
        found: Findings of one scan.
        regions_of: Their voxels, as :func:`outline` gives them.
        prepared: The scan on the model grid.
        surprise: Per score −log₁₀ p on the model grid, (i, j, k).
        appearance: Per aspect of :data:`medgen.anomaly.findings.appearance.ASPECTS` standard deviations from the
            healthy mean on the model grid, (c, i, j, k).
        template: What the scan was registered to; None if the model grid is only centred on it.
        contrasts: What the contrasts of the scan are called; numbers without.
    """
    if not found:
        return []
    voxels = prepared.grid.to_voxel(prepared.native.to_world([finding.peak_voxel for finding in found]))
    # The template's own millimetres: a registered scan's are stretched by its registration.
    grid = prepared.grid if template is None else template.grid
    foreground = prepared.foreground if template is None else template.foreground.data[0] > 0
    words = regions(voxels, foreground, grid.spacing, registered=template is not None)
    from_middle = (voxels - middle_of(foreground)) * np.array(grid.spacing)
    inside = np.clip(np.rint(voxels).astype(int), 0, np.array(grid.shape) - 1)
    described = []
    for finding, region, place, away in zip(found, words, inside.tolist(), from_middle.tolist(), strict=True):
        at_peak = {name: float(values[tuple(place)]) for name, values in surprise.items()}
        order = sorted(at_peak, key=lambda name: -at_peak[name])
        channels = ", ".join(f"{name} {at_peak[name]:.1f}" for name in order if at_peak[name] > _TAKES_PART)
        there = None if template is None else (round(away[0], 1), round(away[1], 1), round(away[2], 1))
        part = _on_model_grid(regions_of.data[0] == finding.id, prepared)
        brightness, detail = (
            tuple(round(lean(channel[part]), 2) for channel in appearance[aspect]) for aspect in ASPECTS
        )
        described.append(
            replace(
                finding,
                region=region,
                channel=order[0],
                channels=channels,
                peak_template=there,
                brightness=brightness,
                detail=detail,
                contrasts=tuple(contrasts),
            )
        )
    return described


def outline(heatmap: Volume, candidates: Candidates, found: int, threshold: float) -> Volume:
    """The parts of the findings that are outlined, on the heatmap's grid: the number of the finding, 0 for none.

    Args:
        heatmap: One channel, NaN where not scored.
        candidates: Its candidates.
        found: How many of them are findings.
        threshold: Heat (z) of findings.
    """
    parts = candidates.parts(heatmap, threshold)
    return heatmap.with_data(np.where(parts <= found, parts, 0).astype(np.min_scalar_type(found))[None])


def summary(found: Sequence[Finding]) -> str:
    """One line on a scan: how many findings, where and how large the strongest is, and at which levels it passes.

    Args:
        found: Findings of the scan, strongest first.
    """
    if not found:
        return "no finding"
    first = found[0]
    start = "1 finding:" if len(found) == 1 else f"{len(found)} findings, the strongest:"
    size = f"{millilitres(first.half_peak_extent_ml)} at half its peak"
    strong = sum(finding.family_wise for finding in found)
    passing = "family-wise" if strong == len(found) == 1 else f"{strong} family-wise" if strong else "none family-wise"
    level = f"{number(first.expected_false)} expected false"
    return f"{start} {first.region}, {first.unusual}, {size}, z {first.peak:.1f}, {level}; {passing}"


def number(value: float) -> str:
    """A number of findings with two significant digits: ``"0.05"``, ``"0.33"``, ``"2"``."""
    return f"{float(f'{value:.2g}'):g}"


def millilitres(volume_ml: float) -> str:
    """A volume with two significant digits and its unit: ``"2.1 ml"``, ``"0.034 ml"``, ``"120 ml"``."""
    return f"{number(volume_ml)} ml"


def _on_model_grid(part: NDArray[np.bool_], prepared: PreparedScan) -> tuple[NDArray[np.int64], ...]:
    """The voxels of the model grid that the voxels of a part of the scan lie in, as an index."""
    voxels = prepared.grid.to_voxel(prepared.native.to_world(np.argwhere(part)))
    inside = np.clip(np.rint(voxels).astype(np.int64), 0, np.array(prepared.grid.shape) - 1)
    return tuple(np.unique(inside, axis=0).T)


def _connected(mask: NDArray[np.bool_], voxel: tuple[int, ...]) -> int:
    """Voxels of the connected part that holds a voxel."""
    parts, _ = connected_parts(mask)
    return int((parts == parts[voxel]).sum())


def _point(volume: Volume, voxel: Sequence[int]) -> Point:
    right, anterior, superior = (round(float(value), 2) for value in volume.grid.to_world(voxel))
    return right, anterior, superior
