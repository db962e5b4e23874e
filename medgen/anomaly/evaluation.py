"""Held-out evaluation: healthy test scans, the same scans with implants, and every score measured on both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from medgen.anomaly.detector import AnomalyDetector, Measured
from medgen.cohorts.implants import IMPLANTS, NEEDS_FOREIGN, NEEDS_SHAPE, check_kinds, implant
from medgen.config import Config
from medgen.dataset import Dataset
from medgen.seeds import numpy_rng

HEALTHY = "healthy"
FUSED = "fused"


class EvaluationConfig(Config):
    """The implanted test set.

    Attributes:
        kinds: Kinds of implants, see :mod:`medgen.cohorts.implants`; test scans take them in turn.
        per_scan: Implanted copies of each healthy test scan, one implant each.
        radius_mm: Smallest and largest radius; drawn uniformly.
        contrasts: Strengths, taken in turn; what a strength is depends on the kind.
        bootstrap: Resamples of the test subjects behind each interval.
    """

    kinds: tuple[str, ...] = tuple(kind for kind in IMPLANTS if kind not in NEEDS_SHAPE)
    per_scan: int = Field(default=3, ge=1, le=50)
    radius_mm: tuple[float, float] = (6.0, 12.0)
    contrasts: tuple[float, ...] = Field(default=(1.5, 2.5), min_length=1)
    bootstrap: int = Field(default=2000, ge=100)

    @field_validator("kinds")
    @classmethod
    def _usable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_kinds(value)
        shaped = sorted(set(value) & NEEDS_SHAPE)
        if shaped or not value:
            raise ValueError(f"expected kinds that need no lesion masks, found {shaped or 'none'}")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> EvaluationConfig:
        if not 0 < self.radius_mm[0] <= self.radius_mm[1] or min(self.contrasts) <= 0:
            raise ValueError("radius_mm must be (smallest, largest), above 0, and contrasts above 0")
        return self


@dataclass(frozen=True, eq=False)
class TestScan:
    """A healthy or implanted scan on the model grid, before scoring.

    Attributes:
        name: Unique; the case id for a healthy scan, else with the copy's number and kind.
        case, subject: Of the healthy scan.
        kind: ``"healthy"`` or the implant's kind.
        radius_mm, contrast: Of the implant; 0 for healthy.
        image: (c, i, j, k) float32.
        foreground: (1, i, j, k) boolean.
        truth: (i, j, k), voxels changed by the implant.
    """

    # Not a test, whatever pytest makes of the name.
    __test__ = False

    name: str
    case: str
    subject: str
    kind: str
    radius_mm: float
    contrast: float
    image: torch.Tensor
    foreground: torch.Tensor
    truth: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Measurement:
    """A scored test scan, reduced to what metrics need: values inside the scored region, as flat arrays.

    Attributes:
        case, subject, kind, radius_mm, contrast: As in :class:`TestScan`.
        region: (i, j, k) boolean with v voxels, where the scan is scored.
        truth: (v,) boolean.
        rows: Name of a table row → (v,) float16 voxel scores; 11 bits rank voxels as well as 24 do.
        hot: (v,) boolean, heat above the calibrated threshold.
        scores, p_values: Scan scores (mean over folds) and their p-values.
    """

    case: str
    subject: str
    kind: str
    radius_mm: float
    contrast: float
    region: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    rows: Mapping[str, NDArray[np.float16]]
    hot: NDArray[np.bool_]
    scores: Mapping[str, float]
    p_values: Mapping[str, float]


def scans_to_test(
    test: Dataset, training: Dataset, spacing: Sequence[float], config: EvaluationConfig, seed: int
) -> Iterator[TestScan]:
    """Every healthy test scan followed by its implanted copies.

    Implants are made in model intensities on the model grid; foreign tissue comes from development scans only. Every
    copy has its own random stream, so adding scans changes nothing for the others.

    Args:
        test: Held-out healthy scans.
        training: Development scans, the source of foreign tissue.
        spacing: Voxel size of the model grid in mm.
        config: Kinds, sizes, strengths.
        seed: Seed of the run.
    """
    for number, (case, subject) in enumerate(zip(test.ids, test.subjects, strict=True)):
        image, foreground = test.images[number], test.foregrounds[number].bool()
        mask = foreground[0].cpu().numpy()
        yield TestScan(case, case, subject, HEALTHY, 0.0, 0.0, image, foreground, np.zeros(mask.shape, dtype=bool))
        for copy in range(config.per_scan):
            turn = number * config.per_scan + copy
            kind = config.kinds[turn % len(config.kinds)]
            # A second counter, so that every kind meets every strength however many of each there are.
            contrast = config.contrasts[(turn // len(config.kinds) + copy) % len(config.contrasts)]
            rng = numpy_rng(seed, "implant", case, copy)
            radius = float(rng.uniform(*config.radius_mm))
            other = training.images[int(rng.integers(len(training)))] if kind in NEEDS_FOREIGN else None
            changed, truth = implant_all(image, mask, kind, radius, contrast, spacing, other, rng)
            name = f"{case}-implant{copy + 1}-{kind}"
            yield TestScan(name, case, subject, kind, radius, contrast, changed, foreground, truth)


def implant_all(
    image: torch.Tensor,
    mask: NDArray[np.bool_],
    kind: str,
    radius: float,
    contrast: float,
    spacing: Sequence[float],
    other: torch.Tensor | None,
    rng: np.random.Generator,
    where: NDArray[np.bool_] | None = None,
) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """The same implant in every channel: one place and form, because every channel starts from the same stream.

    Args:
        image: (c, i, j, k) in model intensities.
        mask: (i, j, k), the foreground.
        kind: Of implant, see :mod:`medgen.cohorts.implants`.
        radius: Radius in mm.
        contrast: Strength, in the unit of the kind.
        spacing: Voxel sizes in mm.
        other: Foreign tissue, (c, i, j, k), for the kinds that need it.
        rng: Source of randomness.
        where: (i, j, k), the part that the centre may lie in; default: the whole foreground.

    Returns:
        The changed image (c, i, j, k) and the voxels that changed in any channel, (i, j, k).
    """
    state = rng.bit_generator.state
    channels, truth = [], np.zeros(mask.shape, dtype=bool)
    for number, channel in enumerate(image):
        rng.bit_generator.state = state
        foreign = None if other is None else other[number].cpu().numpy()
        done = implant(
            channel.cpu().numpy(),
            mask,
            kind,
            rng,
            radius_mm=radius,
            spacing=spacing,
            contrast=contrast,
            foreign=foreign,
            where=where,
        )
        channels.append(torch.from_numpy(done.image))
        truth |= done.mask
    return torch.stack(channels), truth


def measure(detector: AnomalyDetector, scans: Iterator[TestScan]) -> Iterator[tuple[TestScan, Measured, Measurement]]:
    """Score test scans one by one: the scan, its maps on the model grid, and what the metrics need of them."""
    for scan in scans:
        measured = detector.measure(scan.image, scan.foreground)
        yield scan, measured, reduce(detector, scan, measured)


def reduce(detector: AnomalyDetector, scan: TestScan, measured: Measured) -> Measurement:
    """One scored test scan as flat arrays inside its region."""
    region = measured.region
    rows: dict[str, NDArray[Any]] = {FUSED: measured.heat[region]}
    for name in measured.raw:
        rows[f"{name} (raw)"] = measured.raw[name][region]
        rows[f"{name} (z)"] = measured.z[name][region]
    limit = float(np.finfo(np.float16).max)
    return Measurement(
        case=scan.case,
        subject=scan.subject,
        kind=scan.kind,
        radius_mm=scan.radius_mm,
        contrast=scan.contrast,
        region=region,
        truth=scan.truth[region],
        rows={name: np.clip(values, -limit, limit).astype(np.float16) for name, values in rows.items()},
        hot=measured.heat[region] > detector.calibration.threshold,
        scores={name: float(np.mean(values)) for name, values in measured.scores.items()},
        p_values={name: detector.calibration.p_value(name, values) for name, values in measured.scores.items()},
    )
