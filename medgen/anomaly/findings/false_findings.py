"""How many false findings a healthy scan has: a level that counts findings, beside the level that counts scans.

Let N(t) be the number of candidates of a scan that are at least as hot as t, and λ(t) its mean over healthy scans. A
candidate of heat t that is the r-th hottest of its scan has

    expected_false = (Σᵢ Nᵢ(t) + r) / (n + 1),

λ(t) over the n healthy calibration subjects and the new scan together. It is listed as a finding where this is at most
``false_findings``. Suppose the new scan is healthy and exchangeable with the n others. The hottest threshold at which
the mean count of all n + 1 scans is at most the level depends on the n + 1 scans alike, so each of them has at most the
level above it on average, the new one too: **a new healthy scan has at most ``false_findings`` findings in
expectation**, for every n, whatever the distribution of counts, also where a few scans have most of them. (For one scan
a subject; with several averaged it is close, see the benchmark.) This is the argument of conformal risk control
(Angelopoulos et al., "Conformal risk control", ICLR 2024), with the count of the new scan itself in the place of the
bound on the loss that is needed where the new scan is not looked at. With counts cut off at 1 it is the conformal
p-value of the hottest voxel, (1 + #{i: maxᵢ ≥ t}) / (n + 1), the family-wise level.

What one calibration gives is its own rate, which scatters around that expectation; :meth:`HealthyCandidates.rate`
estimates it by leaving each subject out of its own calibration, with an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from medgen.anomaly.calibration import scans_needed
from medgen.anomaly.findings.candidates import LOWEST_PEAK, Candidates
from medgen.config import Config
from medgen.errors import CalibrationError
from medgen.metrics.interval import Interval

FROC_LEVELS = (0.25, 0.5, 1.0, 2.0)
"""Expected false findings per healthy scan at which evaluations give the sensitivity."""

# Sums of weights such as 1/3 must not decide about a candidate that is exactly at the level.
_ROUNDING = 1e-9


class FindingsConfig(Config):
    """Which candidates are listed as findings.

    Attributes:
        false_findings: How many findings a healthy scan has in expectation; more lists fainter findings.
        separation_mm: Distance in mm of the scan's space within which only the hottest peak is a finding.
    """

    false_findings: float = Field(default=0.5, gt=0, le=20)
    separation_mm: float = Field(default=10.0, ge=0, le=100)


def check_false_findings(level: float, n: int) -> None:
    """Refuse a level at which ``n`` healthy subjects would never list a finding: its number is at least 1 / (n + 1).

    Raises:
        CalibrationError: With the number needed and the level that can be reached.
    """
    needed = scans_needed(level)
    if n < needed:
        raise CalibrationError(
            f"{level:g} expected false findings per healthy scan need at least {needed} healthy scans (subjects) to "
            f"calibrate on, found {n}; add scans or raise anomaly.findings.false_findings to "
            f"{np.ceil(1000 / (n + 1)) / 1000:g} or more"
        )


@dataclass(frozen=True, eq=False)
class HealthyCandidates:
    """The candidates of the healthy calibration scans, scored out of fold; several scans of a subject are averaged.

    Attributes:
        heat: (m,) heat (z) of every candidate of every scan, float64.
        scan: (m,) which scan it is of, from 0.
        subject: (s,) subject of every scan, from 0.
    """

    heat: NDArray[np.float64]
    scan: NDArray[np.int64]
    subject: NDArray[np.int64]

    def __post_init__(self) -> None:
        falling = np.argsort(-self.heat, kind="stable")
        weights = (1.0 / np.bincount(self.subject, minlength=1))[self.subject]
        object.__setattr__(self, "_falling", self.heat[falling])
        object.__setattr__(self, "_sums", np.concatenate([[0.0], np.cumsum(weights[self.scan[falling]])]))

    @classmethod
    def of(cls, candidates: Sequence[ArrayLike], subjects: Sequence[str]) -> HealthyCandidates:
        """From the heat of the candidates of every scan and the subject of each; subjects in order of appearance.

        >>> healthy = HealthyCandidates.of([[4.0, 3.0], [3.5], []], ["a", "b", "b"])
        >>> healthy.n, [float(healthy.sum_of_means(heat)) for heat in (5, 4, 3.5, 3)]
        (2, [0.0, 1.0, 1.5, 2.5])
        """
        heats = [np.asarray(own, dtype=np.float64) for own in candidates]
        scan = np.repeat(np.arange(len(heats)), [own.size for own in heats])
        names = {name: number for number, name in enumerate(dict.fromkeys(subjects))}
        return cls(np.concatenate(heats), scan, np.array([names[subject] for subject in subjects], dtype=np.int64))

    @property
    def n(self) -> int:
        """Number of subjects."""
        return int(self.subject.max()) + 1

    def rows(self, subjects: Sequence[str] = ()) -> list[dict[str, object]]:
        """The lines of ``candidates.csv``, hottest first; a candidate weighs one over the scans of its subject.

        Args:
            subjects: Names in the order of the calibration; without them subjects stay unnamed.
        """
        scans = np.bincount(self.subject)
        lines: list[dict[str, object]] = []
        for number in np.argsort(-self.heat, kind="stable").tolist():
            scan = int(self.scan[number])
            owner = int(self.subject[scan])
            named = {"subject": subjects[owner]} if subjects else {}
            lines.append({**named, "scan": scan + 1, "heat": float(self.heat[number]), "weight": 1 / int(scans[owner])})
        return lines

    def without(self, subject: int) -> HealthyCandidates:
        """The same without the scans of one subject of at least two."""
        kept = np.flatnonzero(self.subject != subject)
        inside = np.isin(self.scan, kept)
        scan = np.searchsorted(kept, self.scan[inside])
        return HealthyCandidates(self.heat[inside], scan, self.subject[kept] - (self.subject[kept] > subject))

    def sum_of_means(self, heat: ArrayLike) -> NDArray[np.float64]:
        """Σᵢ Nᵢ(t) over the subjects, for heats t of any shape; Nᵢ(t) is the mean over the scans of subject i."""
        falling, sums = self.__dict__["_falling"], self.__dict__["_sums"]
        return np.asarray(sums[np.searchsorted(-falling, -np.asarray(heat, dtype=np.float64), side="right")])

    def expected_false(self, heat: ArrayLike) -> NDArray[np.float64]:
        """Expected false findings of the candidates of one new scan, given hottest first, (m,); see the module.

        >>> HealthyCandidates.of([np.array([4.0, 3.0])] * 3, "abc").expected_false([5.0, 3.5]).tolist()
        [0.25, 1.25]
        """
        own = np.asarray(heat, dtype=np.float64)
        return np.asarray((self.sum_of_means(own) + np.arange(1, own.size + 1)) / (self.n + 1))

    def listed(self, candidates: Candidates, level: float) -> int:
        """How many candidates of a scan are findings: the hottest ones up to this number."""
        return int(at_level(self.expected_false(candidates.heat), level).sum())

    def threshold(self, level: float) -> float:
        """Heat above which the hottest candidate of a scan is a finding; the r-th must be a little hotter.

        It is the heat of a healthy candidate, or the lowest heat of candidates where more could be afforded.
        """
        falling: NDArray[np.float64] = self.__dict__["_falling"]
        dear = ~at_level((self.sum_of_means(falling) + 1) / (self.n + 1), level)
        return float(falling[dear].max(initial=LOWEST_PEAK))

    def counts(self, level: float) -> NDArray[np.float64]:
        """Findings per scan of every subject, (n,), in a calibration without the subject; a mean over its scans."""
        found = np.zeros(len(self.subject))
        for subject in range(self.n):
            rest = self.without(subject)
            for scan in np.flatnonzero(self.subject == subject).tolist():
                own = np.sort(self.heat[self.scan == scan])[::-1]
                found[scan] = at_level(rest.expected_false(own), level).sum()
        return np.bincount(self.subject, weights=found) / np.bincount(self.subject)

    def rate(self, level: float) -> Interval:
        """False findings per healthy scan of this calibration: the mean of :meth:`counts`, with a 95 % interval.

        The counts are not Poisson: some healthy scans have many. See :func:`count_interval`.
        """
        return count_interval(self.counts(level))

    def share_with_finding(self, level: float) -> Interval:
        """Share of healthy subjects with a finding in a calibration without them, exact interval."""
        from medgen.metrics.bootstrap import binomial_interval

        return binomial_interval(int((self.counts(level) > 0).sum()), self.n)


def at_level(expected_false: ArrayLike, level: float) -> NDArray[np.bool_]:
    """Where the expected number of false findings is at most the level; rounding must not decide."""
    return np.asarray(np.asarray(expected_false, dtype=np.float64) <= level + _ROUNDING)


def count_interval(counts: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of a mean count over subjects whose counts vary more than a Poisson count: a gamma interval.

    With the dispersion φ = variance / mean (at least 1) the total K behaves like φ times a Poisson count of K / φ,
    whose exact limits are gamma quantiles (Garwood, Biometrika 1936; quasi-Poisson: McCullagh and Nelder 1989).

    >>> print(count_interval([0, 1, 0, 2, 0, 0, 1, 0, 0, 1]))
    0.5 [0.1623, 1.167]
    """
    values = np.asarray(counts, dtype=np.float64)
    return gamma_interval(float(values.mean()), values.size, dispersion_of(values), level)


def dispersion_of(counts: ArrayLike) -> float:
    """φ of counts: variance over mean, at least 1, that of Poisson counts."""
    values = np.asarray(counts, dtype=np.float64)
    mean, spread = float(values.mean()), float(values.var(ddof=1)) if values.size > 1 else 0.0
    return max(1.0, spread / mean) if mean > 0 else 1.0


def gamma_interval(mean: float, n: int, dispersion: float, level: float = 0.95) -> Interval:
    """Interval of a mean count of ``n`` subjects whose counts have this dispersion, see :func:`count_interval`."""
    from scipy import stats

    effective, tail = n * mean / dispersion, (1 - level) / 2
    low = float(stats.gamma.ppf(tail, effective)) * dispersion / n if mean > 0 else 0.0
    high = float(stats.gamma.ppf(1 - tail, effective + 1)) * dispersion / n
    return Interval(mean, low, high, n, level)
