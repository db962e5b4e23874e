"""Signs of artefacts: a scan beyond all healthy ones in what an artefact changes looks like that artefact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.artefacts.comparison import gain_spread, rimmed_void, stripes
from medgen.anomaly.artefacts.looks import ENDS, Looks, standardised
from medgen.anomaly.gate import Gate, GateConfig, Limit, Reference, references_of_others
from medgen.errors import DataError
from medgen.implants.catalogue import artefacts
from medgen.preprocessing.prepared import PreparedScan

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Dataset


@dataclass(frozen=True)
class Measure:
    """What tells one artefact; higher is more of it.

    Attributes:
        what: Name in tables and sentences.
        unit: Unit of the value; empty for ratios.
        slack: Smallest spread over healthy scans that is believed.
        advice: What to do, as the end of a sentence.
        order: Place among the signs of a scan: the fewer other artefacts move the value, the lower.
    """

    what: str
    unit: str
    slack: float
    advice: str
    order: int = 1


_AGAIN = "acquire it again if you can"
# By artefact, as in :mod:`medgen.implants.artefacts`.
MEASURES: Mapping[str, Measure] = {
    "bias": Measure(
        "spread of its brightness across the organ", "", 0.02, "correct it, in all scans alike, and train again", 2
    ),
    "defacing": Measure(
        "flatness of its front", "", 0.08, "use the scan from before it was defaced, or train on scans cut like it", 0
    ),
    "ghost": Measure("echo of its fine detail", "", 0.01, _AGAIN),
    "low_snr": Measure("noise relative to its contrast", "", 0.005, "denoise all scans alike and train again", 2),
    "metal": Measure("signal piled up around a void", "ml", 0.02, "judge nothing in the void and its surroundings"),
    "motion": Measure("ripples along an axis and loss of sharpness", "sd", 0.5, _AGAIN, 2),
    "spike": Measure(
        "height of a lone point of k-space", "", 0.2, f"reconstruct it without that point, or {_AGAIN}", 0
    ),
    "wrap": Measure("flatness of two opposite ends", "", 0.05, "acquire it with a larger field of view", 0),
}
# Opposite ends of a head, and its front.
_OPPOSITE = (("right", "left"), ("front", "back"), ("head", "foot"))
_FRONT = tuple(name for name in ENDS if name.startswith("front"))
# Smallest spreads over healthy scans that are believed: of the detail along an axis beside the others, of log noise.
_DETAIL, _SHARPNESS = 0.01, 0.05


# Limits of fewer subjects, and noise and edges on coarser grids, take healthy scans and lesions for artefacts: of ten
# subjects at 8 mm one healthy scan of four and two implants of eight.
_FEWEST, _COARSEST_MM = 15, 5.0


def not_named(subjects: int, spacing: Sequence[float]) -> str:
    """Why a cohort's scans name no artefacts; empty if they do.

    >>> not_named(40, (2.0, 2.0, 2.0)), not_named(10, (2.0, 2.0, 2.0))
    ('', 'artefacts are not named: limits of 10 healthy subjects say too little, expected 15')
    """
    if subjects < _FEWEST:
        why = f"limits of {subjects} healthy subjects say too little, expected {_FEWEST}"
    elif (size := float(np.prod(spacing) ** (1 / 3))) > _COARSEST_MM:
        why = f"voxels of the model grid of {size:.3g} mm show too little, expected at most {_COARSEST_MM:g} mm"
    else:
        return ""
    return f"artefacts are not named: {why}"


@dataclass(frozen=True, eq=False)
class Usual:
    """What healthy scans look like in fine detail and at their ends.

    Attributes:
        noise: (2, c) mean and standard deviation of the logarithm of the noise.
        detail: (2, c, 3) likewise of the detail along an axis less its mean over the three.
        ends: (e,) mean logarithm of the thickness of each end.
    """

    noise: NDArray[np.float64]
    detail: NDArray[np.float64]
    ends: NDArray[np.float64]

    @classmethod
    def of(cls, looks: Sequence[Looks]) -> Usual:
        """Of healthy scans."""
        noise, detail = np.stack([_log_noise(own) for own in looks]), np.stack([_uneven(own) for own in looks])
        many = int(len(looks) > 1)
        return cls(
            noise=np.stack([noise.mean(axis=0), np.maximum(noise.std(axis=0, ddof=many), _SHARPNESS)]),
            detail=np.stack([detail.mean(axis=0), np.maximum(detail.std(axis=0, ddof=many), _DETAIL)]),
            ends=np.mean([own.ends for own in looks], axis=0),
        )


@dataclass(frozen=True, eq=False)
class Sign:
    """One artefact that a scan looks like.

    Attributes:
        artefact: Its name.
        value: What was measured.
        limit: What healthy scans reach.
    """

    artefact: str
    value: float
    limit: Limit

    @property
    def looks(self) -> str:
        """What the scan looks like: ``"motion"``."""
        return artefacts()[self.artefact].looks

    @property
    def excess(self) -> float:
        """How far the value lies beyond all healthy ones, in their standard deviations."""
        return (self.value - float(self.limit.values.max())) / _spread(self.artefact, self.limit.values)

    @property
    def words(self) -> str:
        """What it looks like, by which number, and what is usual."""
        about, usual = MEASURES[self.artefact], self.limit
        unit = f" {about.unit}" if about.unit else ""
        return (
            f"looks like {self.looks} ({about.what}: {self.value:.2g}{unit}, usual up to {usual.high:.2g}{unit}, "
            f"healthy scans {usual.values.min():.2g} to {usual.values.max():.2g}); {about.advice}"
        )


@dataclass(frozen=True, eq=False)
class ArtefactLimits:
    """What healthy scans reach in what artefacts change; see ``docs/decisions/0018-artefacts-are-no-lesions.md``.

    Attributes:
        reference: Their mean, which scans are compared with; the gate's.
        usual: What they look like by themselves.
        limits: By artefact, a key of :data:`MEASURES`.
        flagged: Of the healthy development scans, those that would look like an artefact by the limits of the scans of
            other subjects: (their number, how many scans there are).
    """

    reference: Reference
    usual: Usual
    limits: Mapping[str, Limit]
    flagged: tuple[int, int]

    @classmethod
    def fit(cls, dataset: Dataset, reference: Reference, config: GateConfig) -> ArtefactLimits:
        """Limits that lie beyond the leave-one-subject-out values of healthy scans by the gate's margin.

        Args:
            dataset: Prepared healthy scans of at least two subjects, with their ``prepared`` records.
            reference: The gate's, fitted on the same scans.
            config: The margin.

        Raises:
            DataError: If there are fewer than two subjects or no ``prepared`` records.
        """
        subjects = np.array(dataset.subjects)
        if len(set(dataset.subjects)) < 2 or not dataset.prepared:
            raise DataError(
                f"limits of artefacts need prepared scans of at least 2 subjects, found {len(set(subjects))}"
            )
        looks = [Looks.of(item) for item in dataset.prepared]
        rows: list[dict[str, float]] = []
        for row, others in enumerate(references_of_others(dataset)):
            usual = Usual.of([looks[index] for index in np.flatnonzero(subjects != subjects[row])])
            rows.append(values_of(dataset.prepared[row], looks[row], others, usual))
        values = {name: np.array([own[name] for own in rows]) for name in MEASURES}
        limits = {name: _limit(name, own, config.margin) for name, own in values.items()}
        flagged = 0
        for row in range(len(dataset)):
            apart = subjects != subjects[row]
            beyond = [not _limit(name, own[apart], config.margin).holds(own[row]) for name, own in values.items()]
            flagged += any(beyond)
        return cls(reference, Usual.of(looks), limits, (flagged, len(dataset)))

    @classmethod
    def of_cohort(
        cls, dataset: Dataset, gate: Gate | None, config: GateConfig, spacing: Sequence[float]
    ) -> ArtefactLimits | None:
        """Those of a cohort that is large and fine enough (:func:`not_named`); None for others, and without a gate."""
        if gate is None or not_named(len(set(dataset.subjects)), spacing):
            return None
        return cls.fit(dataset, gate.reference, config)

    def measure(self, prepared: PreparedScan) -> dict[str, float]:
        """By artefact, what tells it; see :func:`values_of`."""
        return values_of(prepared, Looks.of(prepared), self.reference, self.usual)

    def signs(self, prepared: PreparedScan) -> tuple[Sign, ...]:
        """The artefacts that a scan looks like, the likeliest first; mostly none.

        In the order of what explains what, then by how far healthy scans are exceeded: stripes repeat themselves as
        ghosts do, and both are uneven detail and a field, but a blurred or noisy scan has no lone point of k-space.
        """
        values = self.measure(prepared)
        found = [
            Sign(name, values[name], limit) for name, limit in self.limits.items() if not limit.holds(values[name])
        ]
        return tuple(sorted(found, key=lambda sign: (MEASURES[sign.artefact].order, -sign.excess)))

    def to_plain(self) -> dict[str, dict[str, float]]:
        """By artefact, the limit and the range of healthy development scans."""
        return {
            name: {
                "limit": own.high,
                "healthy_min": float(own.values.min()),
                "healthy_max": float(own.values.max()),
            }
            for name, own in self.limits.items()
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays that :meth:`from_arrays` reads back exactly; the reference is the gate's."""
        usual = {"noise": self.usual.noise, "detail": self.usual.detail, "ends": self.usual.ends}
        arrays = {f"usual/{name}": own for name, own in usual.items()}
        arrays |= {f"limits/{name}": np.array([limit.high]) for name, limit in self.limits.items()}
        arrays |= {f"values/{name}": limit.values for name, limit in self.limits.items()}
        return {**arrays, "flagged": np.array(self.flagged, dtype=np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], reference: Reference) -> ArtefactLimits:
        """Inverse of :meth:`to_arrays`.

        Raises:
            KeyError: If an array is missing.
            ValueError: If there is a limit for something that this version does not measure.
        """
        names = [name.removeprefix("limits/") for name in arrays if name.startswith("limits/")]
        unknown = sorted(set(names) - set(MEASURES))
        if unknown or not names:
            raise ValueError(f"there are limits for {unknown[0]!r}" if unknown else "artefacts have no limits")
        usual = Usual(arrays["usual/noise"], arrays["usual/detail"], arrays["usual/ends"])
        limits = {
            name: Limit(-math.inf, float(arrays[f"limits/{name}"][0]), arrays[f"values/{name}"])
            for name in MEASURES
            if name in names
        }
        flagged, scans = (int(value) for value in arrays["flagged"])
        return cls(reference, usual, limits, (flagged, scans))


def values_of(prepared: PreparedScan, looks: Looks, reference: Reference, usual: Usual) -> dict[str, float]:
    """By artefact, what tells it.

    Everything is measured on the model grid inside the foreground: stripped brains have nothing outside of it, and what
    models do not see does not mislead them.

    Args:
        prepared: A scan on the model grid.
        looks: What it looks like by itself.
        reference: The mean of healthy scans, on the same grid.
        usual: What they look like by themselves.
    """
    both, spacing = prepared.foreground & reference.foreground, prepared.grid.spacing
    scaled = [
        (standardised(own, prepared.foreground), standardised(mean, reference.foreground))
        for own, mean in zip(prepared.image, reference.mean, strict=True)
    ]
    flat = dict(zip(ENDS, (usual.ends - looks.ends).tolist(), strict=True))
    uneven = np.abs((_uneven(looks) - usual.detail[0]) / usual.detail[1]).max(axis=-1)
    blurred = np.maximum((usual.noise[0] - _log_noise(looks)) / usual.noise[1], 0)
    return {
        "bias": max(gain_spread(own, mean, both) for own, mean in zip(prepared.image, reference.mean, strict=True)),
        "defacing": max(flat[name] for name in _FRONT) - max(flat["back"], 0.0),
        "ghost": looks.echo,
        "low_snr": float(looks.noise.max()),
        "metal": max(rimmed_void(own, mean, both, spacing) for own, mean in scaled),
        "motion": float(np.hypot(uneven, blurred).max()),
        "spike": max(stripes(own, mean, both) for own, mean in scaled),
        "wrap": max(min(flat[one], flat[other]) for one, other in _OPPOSITE),
    }


def _log_noise(looks: Looks) -> NDArray[np.float64]:
    return np.log(np.maximum(looks.noise, 1e-6))


def _uneven(looks: Looks) -> NDArray[np.float64]:
    """Detail along each axis beside that along the others, (c, 3)."""
    return np.asarray(looks.detail - looks.detail.mean(axis=-1, keepdims=True))


def _spread(name: str, values: NDArray[np.float64]) -> float:
    return max(float(values.std(ddof=1)) if values.size > 1 else 0.0, MEASURES[name].slack)


def _limit(name: str, values: NDArray[np.float64], margin: float) -> Limit:
    return Limit(-math.inf, float(values.max()) + margin * _spread(name, values), values)
