"""The gate before scoring: a scan that as a whole is unlike the healthy scans is refused, not scored.

A heatmap of another organ, of half a head or of another contrast is hot everywhere and means nothing. The gate looks
at the whole scan: field of view, voxel size, intensity histogram, likeness to the mean and registration. Every limit
lies beyond the leave-one-subject-out values of the healthy scans by a margin, since 15 to 30 scans do not show all that
is usual. A lesion moves these numbers little, so it is let through and left to the scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medgen.axes import assigned
from medgen.config import Config
from medgen.data.faces import NOTE
from medgen.errors import DataError, OutOfDistribution
from medgen.preprocessing.prepared import PreparedScan

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Dataset

# Standardised intensities: all healthy histograms lie well inside, and one stray voxel cannot stretch the bins.
_EDGES = np.linspace(-4.0, 4.0, 81)
# A scan with voxels more than twice as large as any healthy one shows the model a blur that it has never seen.
_COARSER = 2.0


class GateConfig(Config):
    """When a scan is refused as a whole.

    Attributes:
        enabled: Whether there is a gate.
        margin: How far a limit lies beyond the most extreme healthy scan, in standard deviations over healthy scans.
    """

    enabled: bool = True
    margin: float = Field(default=3.0, ge=0)


@dataclass(frozen=True)
class Check:
    """One thing the gate looks at.

    Attributes:
        what: Name in tables and messages.
        unit: Unit of the value, such as mm; empty for shares and ratios.
        slack: Smallest spread that is believed: cohorts of equal scans must not refuse a scan for a rounding error.
        low, high: Whether too low and too high values are refused.
        advice: What to do, as the end of a sentence.
    """

    what: str
    unit: str
    slack: float
    low: bool
    high: bool
    advice: str


_WHOLE = "check that the scan shows the whole organ and nothing was cut off or zeroed"
_SAME = (
    "check that it shows the same organ with the same contrast; for scans of another scanner or protocol, train on "
    "healthy ones of its own"
)
_SIZE = "check the voxel size in the header and that the whole organ is shown"
_STRIPPED = "strip the skull as there, or train on whole heads"
_FINER = "use a finer scan (resampling this one adds no detail), or train on scans as coarse as it is"
CHECKS: dict[str, Check] = {
    "head": Check("size of a whole head with skin (1: yes, 0: no)", "", 0.0, False, True, _STRIPPED),
    "coverage": Check("share of the healthy scans' anatomy that is shown", "", 0.02, True, False, _WHOLE),
    "kept": Check("share of the scan that fits the model grid", "", 0.02, True, False, _SIZE),
    **{
        f"extent_{axis}": Check(f"extent along {name}", "mm", 2.0, True, True, _SIZE)
        for axis, name in zip("ras", ("left-right", "back-front", "foot-head"), strict=True)
    },
    **{
        f"spacing_{axis}": Check(f"voxel size along {name}", "mm", 0.0, False, True, _FINER)
        for axis, name in zip("ras", ("left-right", "back-front", "foot-head"), strict=True)
    },
    "histogram": Check("distance of the intensity histogram", "", 0.02, False, True, _SAME),
    "likeness": Check("rank correlation with the mean of the healthy scans", "", 0.05, True, False, _SAME),
    "similarity": Check("correlation after registration", "", 0.05, True, False, _SAME),
    "overlap": Check("share of the template in the field of view", "", 0.02, True, False, _WHOLE),
    "determinant": Check("volume relative to the template", "", 0.05, True, True, _SIZE),
}


@dataclass(frozen=True, eq=False)
class Limit:
    """What one check allows.

    Attributes:
        low, high: Smallest and largest value that passes; infinite where there is no limit.
        values: (n,) of the healthy development scans, each compared with scans of other subjects; those of the
            registration were measured against the cohort's template, to which the scan itself contributed.
    """

    low: float
    high: float
    values: NDArray[np.float64]

    def holds(self, value: float) -> bool:
        """Whether a value passes; a value that is not finite does not."""
        return math.isfinite(value) and self.low <= value <= self.high


@dataclass(frozen=True, eq=False)
class Reference:
    """What healthy scans look like as a whole.

    Attributes:
        mean: Mean prepared image, (c, i, j, k) float32, model intensities.
        foreground: (i, j, k) boolean, anatomy in at least half of the scans.
        histogram: (c, b) mean histogram of the standardised foreground intensities; rows sum to 1.
    """

    mean: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    histogram: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gate:
    """Plain limits, fitted on the healthy development scans.

    Attributes:
        reference: What a scan is compared with.
        limits: By name of the check, a key of :data:`CHECKS`.
    """

    reference: Reference
    limits: Mapping[str, Limit]

    @classmethod
    def fit(cls, dataset: Dataset, config: GateConfig) -> Gate:
        """Limits from healthy scans: beyond their leave-one-subject-out range by ``margin`` standard deviations.

        The limit of the voxel size is twice that of the coarsest scan instead: smaller voxels are never refused.

        Args:
            dataset: Prepared healthy scans of at least two subjects, with their ``prepared`` records.
            config: The margin.

        Raises:
            DataError: If there are fewer than two subjects or no ``prepared`` records.
        """
        if len(set(dataset.subjects)) < 2 or not dataset.prepared:
            raise DataError(
                f"the gate needs prepared scans of at least 2 healthy subjects, found {len(set(dataset.subjects))}; "
                "add subjects or set anomaly.gate.enabled=false"
            )
        values: dict[str, list[float]] = {}
        for item, others in zip(dataset.prepared, references_of_others(dataset), strict=True):
            for name, value in measure(item, others).items():
                values.setdefault(name, []).append(value)
        limits = {name: _limit(name, np.array(own), config.margin) for name, own in values.items()}
        return cls(reference_of(dataset), limits)

    def measure(self, prepared: PreparedScan) -> dict[str, float]:
        """The value of every check for a prepared scan; see :func:`measure`."""
        return measure(prepared, self.reference)

    def problems(self, prepared: PreparedScan) -> list[str]:
        """One sentence for each check that a scan fails: found, expected, what to do; empty if it passes."""
        values = self.measure(prepared)
        return [
            _sentence(CHECKS[name], values.get(name, math.nan), limit)
            for name, limit in self.limits.items()
            if not limit.holds(values.get(name, math.nan))
        ]

    def check(self, prepared: PreparedScan) -> None:
        """Let a scan pass or refuse it.

        Raises:
            OutOfDistribution: With the reasons, if it fails any check.
        """
        problems = self.problems(prepared)
        if problems:
            raise OutOfDistribution(problems)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays that :meth:`from_arrays` reads back exactly."""
        arrays: dict[str, NDArray[Any]] = {
            "mean": self.reference.mean,
            "foreground": self.reference.foreground.astype(np.uint8),
            "histogram": self.reference.histogram,
        }
        for name, limit in self.limits.items():
            arrays[f"limits/{name}"] = np.array([limit.low, limit.high])
            arrays[f"values/{name}"] = limit.values
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Gate:
        """Inverse of :meth:`to_arrays`.

        Raises:
            KeyError: If an array is missing.
            ValueError: If there is a limit for something that this version does not check.
        """
        names = [name.removeprefix("limits/") for name in arrays if name.startswith("limits/")]
        unknown = sorted(set(names) - set(CHECKS))
        if unknown or not names:
            raise ValueError(f"the gate has limits for {unknown[0]!r}" if unknown else "the gate has no limits")
        reference = Reference(arrays["mean"], arrays["foreground"].astype(bool), arrays["histogram"])
        if reference.histogram.shape[1] != len(_EDGES) - 1:
            raise ValueError(f"the gate's histogram has {reference.histogram.shape[1]} bins, not {len(_EDGES) - 1}")
        limits = {}
        for name in (name for name in CHECKS if name in names):
            low, high = (float(value) for value in arrays[f"limits/{name}"])
            limits[name] = Limit(low, high, arrays[f"values/{name}"])
        return cls(reference, limits)


def reference_of(dataset: Dataset) -> Reference:
    """The reference of all scans of a data set with ``prepared`` records."""
    return _reference(*_sums(dataset), len(dataset))


def references_of_others(dataset: Dataset) -> Iterator[Reference]:
    """For every scan of a data set with ``prepared`` records, in its order, that of the scans of other subjects."""
    subjects = np.array(dataset.subjects)
    total, count, histograms = _sums(dataset)
    for subject in dataset.subjects:
        own = np.flatnonzero(subjects == subject)
        less = total - sum(dataset.prepared[row].image.astype(np.float64) for row in own)
        shown = count - sum(dataset.prepared[row].foreground.astype(np.int64) for row in own)
        yield _reference(less, shown, np.delete(histograms, own, axis=0), len(dataset) - len(own))


def _sums(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Sum of images, number of scans that show anatomy, and the histogram of each scan."""
    total = np.stack([item.image for item in dataset.prepared]).sum(axis=0, dtype=np.float64)
    count = np.stack([item.foreground for item in dataset.prepared]).sum(axis=0)
    return total, count, np.stack([histogram(item) for item in dataset.prepared])


def _reference(
    total: NDArray[np.float64], count: NDArray[np.int64], histograms: NDArray[np.float64], n: int
) -> Reference:
    return Reference((total / n).astype(np.float32), 2 * count >= n, histograms.mean(axis=0))


def measure(prepared: PreparedScan, reference: Reference) -> dict[str, float]:
    """The value of every check.

    ``extent_*`` is the distance in mm, in the scan's own world, over which the middle 98 % of the scored anatomy
    reaches along each axis of the model grid. ``spacing_*`` is the voxel size of the native axis nearest to each
    anatomical axis. ``kept`` is there for scans that were not registered, else ``similarity``, ``overlap`` and
    ``determinant``.

    Args:
        prepared: A scan on the model grid.
        reference: What it is compared with, on the same grid.
    """
    inside = prepared.foreground
    values = {"head": float(prepared.may_show_face)}
    values |= {"coverage": float((inside & reference.foreground).sum() / max(int(reference.foreground.sum()), 1))}
    if "similarity" not in prepared.quality:
        values["kept"] = float(prepared.quality["kept"])
    for axis, (name, step) in enumerate(zip("ras", prepared.grid.spacing, strict=True)):
        values[f"extent_{name}"] = _extent(inside, axis) * step
    native, model = prepared.native, prepared.grid
    order = assigned(native.directions, model.directions, spacing=native.spacing, wanted=model.spacing)
    for (target, _), step in zip(order, native.spacing, strict=True):
        values[f"spacing_{'ras'[target]}"] = step
    values["histogram"] = histogram_distance(histogram(prepared), reference.histogram)
    values["likeness"] = _likeness(prepared, reference)
    values |= {
        name: float(prepared.quality[name])
        for name in ("similarity", "overlap", "determinant")
        if name in prepared.quality
    }
    return {name: values[name] for name in CHECKS if name in values}


def histogram(prepared: PreparedScan) -> NDArray[np.float64]:
    """Histogram (c, b) of the foreground intensities, standardised by median and interquartile range; rows sum to 1.

    Standardised, since a large bright lesion moves the percentiles that a scan is scaled by, and with them all
    intensities, but hardly the median and the quartiles.
    """
    rows = []
    for channel in prepared.image:
        inside = channel[prepared.foreground].astype(np.float64)
        if not inside.size:
            rows.append(np.full(len(_EDGES) - 1, 1 / (len(_EDGES) - 1)))
            continue
        low, middle, high = np.percentile(inside, [25, 50, 75])
        scaled = np.clip((inside - middle) / max(high - low, 1e-6), _EDGES[0], _EDGES[-1])
        rows.append(np.histogram(scaled, _EDGES)[0] / inside.size)
    return np.stack(rows)


def histogram_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Largest 1-Wasserstein distance over channels, in interquartile ranges (Vallender, Theory Probab. Appl. 1974)."""
    # Half a second to import, which a command that refuses a misspelt key need not wait for.
    from scipy import stats

    centres = (_EDGES[:-1] + _EDGES[1:]) / 2
    return max(float(stats.wasserstein_distance(centres, centres, a, b)) for a, b in zip(first, second, strict=True))


def _extent(inside: NDArray[np.bool_], axis: int) -> float:
    """Voxels between the first and the last hundredth of the foreground, in whole planes."""
    profile = inside.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
    if profile[-1] == 0:
        return 0.0
    low, high = np.searchsorted(profile, [0.01 * profile[-1], 0.99 * profile[-1]])
    return float(high - low + 1)


def _likeness(prepared: PreparedScan, reference: Reference) -> float:
    """Mean over channels of Spearman's correlation with the mean scan, where both show anatomy; 0 if undefined.

    Of ranks, since one large bright lesion can take Pearson's correlation from 0.99 to 0.7.
    """
    from scipy import stats

    both = prepared.foreground & reference.foreground
    found = []
    for own, mean in zip(prepared.image, reference.mean, strict=True):
        a, b = own[both].astype(np.float64), mean[both].astype(np.float64)
        defined = a.size > 1 and a.std() > 0 and b.std() > 0
        found.append(float(stats.spearmanr(a, b).statistic) if defined else 0.0)
    return float(np.mean(found))


def _limit(name: str, values: NDArray[np.float64], margin: float) -> Limit:
    check = CHECKS[name]
    if name == "head":
        # A model that has seen one whole head has seen scalp and skull.
        return Limit(-math.inf, float(values.max()), values)
    if name.startswith("spacing_"):
        # Headers round: a scan of exactly twice the voxel size passes.
        return Limit(-math.inf, 1.001 * _COARSER * float(values.max()), values)
    # A volume ratio is symmetric on a log scale: half and twice are equally far.
    scale = np.log(values) if name == "determinant" else values
    reach = margin * max(float(scale.std(ddof=1)) if scale.size > 1 else 0.0, check.slack)
    low = float(scale.min()) - reach if check.low else -math.inf
    high = float(scale.max()) + reach if check.high else math.inf
    if name == "determinant":
        low, high = math.exp(low), math.exp(high)
    return Limit(low, high, values)


def _sentence(check: Check, value: float, limit: Limit) -> str:
    if check is CHECKS["head"]:
        # In the words of `medgen data check`, less its advice before sharing.
        return f"{NOTE.rpartition('; ')[0]}, and none of the healthy scans has; {check.advice}"
    unit = f" {check.unit}" if check.unit else ""
    if math.isinf(limit.low):
        expected = f"at most {limit.high:.3g}{unit}"
    elif math.isinf(limit.high):
        expected = f"at least {limit.low:.3g}{unit}"
    else:
        expected = f"{limit.low:.3g} to {limit.high:.3g}{unit}"
    healthy = f"healthy scans: {limit.values.min():.3g} to {limit.values.max():.3g}"
    return f"{check.what}: found {value:.3g}{unit}, expected {expected} ({healthy}); {check.advice}"
