"""Normative z: what a healthy scan scores at a place, and how much that varies, from out-of-fold maps.

For a score map s(p) of a new scan, Z(p) = (s(p) − μ(p)) / √(σ²(p) + ε). Mean and variance over healthy scans are
blurred, because neighbouring places are alike and scans are few, and the variance is shrunk to its average over the
region, σ² = (1 − w) σ_p² + w σ̄² with w = prior / (n + prior), the posterior mean under a scaled inverse-χ² prior
worth ``prior`` scans (Marquand et al., "Understanding heterogeneity in clinical cohorts using normative models",
2016, for the idea of a normative map; Smyth, "Linear models and empirical Bayes methods", 2004, for the shrinkage).

Where the people are known, x being their age, sex and so on as centred columns, both depend on them:

    μ(p, x) = μ(p) + xᵀβ(p),   log σ(p, x) = log σ(p) + xᵀγ(p) − γᵀCγ,

β and γ are slopes shrunk by their neighbourhood (:mod:`medgen.anomaly.normative.regression`); β is not blurred, since
an effect ends where an organ's part ends; γ is, and comes from the absolute residuals (Glejser, JASA 1969). C is the
covariance of x in the cohort, which keeps the mean variance. The slopes are known from few scans, so σ² is multiplied
by 1 + xᵀUx with U their posterior covariance over σ². What is not known of a person is averaged over the cohort: x is 0
there and σ² grows by βᵀCβ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.normative.moments import Moments
from medgen.anomaly.normative.regression import on_grid, regress
from medgen.errors import DataError
from medgen.transforms.masked_smoothing import Smoother

# A standard deviation changes by a factor of two at most with one unit of a column: |r| of few scans is noisy.
_MOST_SPREAD = float(np.log(2))


@dataclass(frozen=True, eq=False)
class Adjustment:
    """How mean and standard deviation depend on the person.

    Attributes:
        slopes: (d, i, j, k) float32, change of the mean per unit of each column.
        log_spread: (d, i, j, k) float32, change of the logarithm of the standard deviation.
        uncertainty: (d, d), U of the module.
        covariance: (d, d), C of the module.
    """

    slopes: NDArray[np.float32]
    log_spread: NDArray[np.float32]
    uncertainty: NDArray[np.float64]
    covariance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Normative:
    """Healthy mean and standard deviation of one score, (i, j, k) float32; the standard deviation is above 0.

    Attributes:
        mean, sd: Of the cohort's average person, or of the person for whom it was made.
        adjustment: How they depend on the person; None if they do not.
        shift, scale: What z of another site have at each place, where it depends on the person: a z is then what is
            beyond ``shift``, over ``scale``. None where nothing was moved, or mean and sd hold it already.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    adjustment: Adjustment | None = None
    shift: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    def at(self, person: NDArray[np.float64] | None) -> Normative:
        """Mean and standard deviation for one person.

        Args:
            person: (d,), a row of :meth:`medgen.anomaly.normative.covariates.Covariates.row`; NaN where something is
                not known. None knows nothing.
        """
        own = self.adjustment
        if own is None:
            return self
        x = np.full(len(own.slopes), np.nan) if person is None else person
        missing = np.isnan(x)
        known = np.where(missing, 0.0, x)
        mean, log_factor = self.mean.astype(np.float64), np.zeros(self.mean.shape)
        for value, slope, spread in zip(known, own.slopes, own.log_spread, strict=True):
            mean += value * slope
            log_factor += value * spread
        bent = np.einsum("a...,ab,b...->...", own.log_spread, own.covariance, own.log_spread)
        factor = np.exp(2 * (log_factor - bent)) * (1 + known @ own.uncertainty @ known)
        variance = self.sd.astype(np.float64) ** 2 * factor
        if missing.any():
            part = own.slopes[missing]
            variance += np.einsum("a...,ab,b...->...", part, own.covariance[np.ix_(missing, missing)], part)
        sd = np.sqrt(variance)
        if self.shift is not None and self.scale is not None:
            # In the person's own standard deviations, as the other site's scans were compared.
            mean, sd = mean + self.shift * sd, sd * self.scale
        return Normative(mean.astype(np.float32), sd.astype(np.float32))

    def moved(self, shift: NDArray[Any], scale: NDArray[Any]) -> Normative:
        """The map whose z are those of this one, moved: (z − shift) / scale, for every person."""
        if self.adjustment is None:
            mean, sd = self.mean + shift * self.sd, self.sd * scale
            return replace(self, mean=mean.astype(np.float32), sd=sd.astype(np.float32))
        if self.shift is not None and self.scale is not None:
            shift, scale = self.shift + self.scale * shift, self.scale * scale
        return replace(self, shift=np.asarray(shift, np.float32), scale=np.asarray(scale, np.float32))

    def z(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Standardised score map: 0 is the healthy mean, 1 is one healthy standard deviation above it."""
        return np.asarray((values - self.mean) / self.sd, dtype=np.float32)

    def z_of(self, values: NDArray[Any], region: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The same for the values inside a region (i, j, k) alone, (v,)."""
        return np.asarray((values - self.mean[region]) / self.sd[region], dtype=np.float32)


def normative_of(
    moments: Moments,
    region: NDArray[np.bool_],
    config: NormativeConfig,
    covariance: NDArray[np.float64] | None = None,
) -> Normative:
    """Blurred mean and blurred, shrunk standard deviation; with columns in the moments also the slopes of the mean.

    The standard deviation depends on the person only after :func:`with_spread`.

    Args:
        moments: Sums over the healthy scans.
        region: (i, j, k), where scores are used; outside, mean is the region's average and sd its average.
        config: Blur and prior.
        covariance: (d, d), covariance of the columns over the cohort; needed where there are columns.

    Raises:
        DataError: If there are fewer than two healthy scans.
    """
    if moments.count.max(initial=0) < 2:
        raise DataError(f"normative scores need at least 2 healthy scans, found {int(moments.count.max(initial=0))}")
    known = region & (moments.count > 0)
    fit = regress(moments, known, config.blur, config.prior)
    average_mean = float(moments.totals[0][known].sum() / moments.count[known].sum())
    average_variance = float(fit.spread.sum() / fit.freedom.sum()) if fit.freedom.any() else 0.0
    # A place that one scan covers has no variance of its own: it gets the average through its weight.
    tried = on_grid(fit.freedom, known) > 0
    variance = np.zeros(region.shape)
    variance[tried] = (fit.spread / np.maximum(fit.freedom, 1))[tried[known]]
    variance = Smoother.of(tried, config.blur)(variance).astype(np.float64)
    trusted = np.where(tried, moments.count, 0)
    weight = config.prior / (trusted + config.prior) if config.prior > 0 else np.where(trusted > 0, 0.0, 1.0)
    shrunk = (1 - weight) * variance + weight * average_variance
    epsilon = 1e-6 * average_variance + 1e-12
    blurred = Smoother.of(known, config.blur)
    mean = np.where(known, blurred(on_grid(fit.intercept, known)), average_mean)
    sd = np.sqrt(np.where(known, shrunk, average_variance) + epsilon)
    found = Normative(mean.astype(np.float32), sd.astype(np.float32))
    if moments.columns == 0:
        return found
    slopes = np.stack([on_grid(own, known).astype(np.float32) for own in fit.slopes])
    matrix = np.eye(moments.columns) if covariance is None else covariance
    return replace(found, adjustment=Adjustment(slopes, np.zeros_like(slopes), fit.uncertainty, matrix))


def with_spread(
    normative: Normative,
    maps: Sequence[NDArray[Any]],
    masks: Sequence[NDArray[np.bool_]],
    people: NDArray[np.float64],
    region: NDArray[np.bool_],
    config: NormativeConfig,
) -> Normative:
    """The same normative map with a standard deviation that depends on the person.

    |s − μ(x)| / √(1 − h) is regressed on x as the score was: h = 1/n + xᵀUx makes up for what the fit took out of the
    residuals of the people at the edges. The slope over the mean of it is that of the logarithm.

    Args:
        normative: With slopes of the mean, from the same scans.
        maps: The values of each scan inside its mask, (v,).
        masks: (i, j, k) boolean each.
        people: (n, d), 0 where something is not known.
        region: (i, j, k), where scores are used.
        config: Blur and prior.
    """
    own = normative.adjustment
    if own is None:
        return normative
    leverage = np.minimum(1 / len(maps) + np.einsum("na,ab,nb->n", people, own.uncertainty, people), 0.9)
    mean = normative.mean.astype(np.float64)

    def away(number: int) -> NDArray[np.float64]:
        mask = masks[number]
        expected = mean[mask] + people[number] @ own.slopes[:, mask]
        return np.asarray(np.abs(maps[number] - expected) / np.sqrt(1 - leverage[number]))

    moments = Moments.of(map(away, range(len(maps))), masks, region.shape, people)
    known = region & (moments.count > 0)
    fit = regress(moments, known, config.blur, config.prior)
    blurred = Smoother.of(known, config.blur)
    typical = np.maximum(blurred(on_grid(fit.intercept, known)), 1e-12)
    slopes = np.stack([blurred(on_grid(slope, known)) / typical for slope in fit.slopes])
    log_spread = np.clip(slopes, -_MOST_SPREAD, _MOST_SPREAD).astype(np.float32)
    return replace(normative, adjustment=replace(own, log_spread=log_spread))
