"""Walks through the codes of a model: from scan to scan, along principal directions and along what is known of people.

How far a step of a walk lies from where the training scans lie is the Mahalanobis distance of its code, compared with
the distances of training scans that were left out (Lee et al., "A simple unified framework for detecting
out-of-distribution samples", 2018, use the distance; the comparison is that of conformal prediction, Vovk et al. 2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.data.cases import Manifest
from medgen.errors import DataError
from medgen.models.base import Drawn, Interpolates, ScanCode
from medgen.preprocessing.dataset import Dataset

Array = NDArray[np.float64]

# Share of the training scans that are themselves called far; parts in which they are left out; fewest subjects.
FAR, _FOLDS, _FEWEST = 0.05, 10, 3
# Shuffles behind the p-value of a covariate.
_SHUFFLES = 999
# Voxels beyond which looks are compared on a coarser grid.
_VOXELS = 64**3
# What tables write where a value is missing.
_MISSING = {"", "n/a", "na", "nan", "none", "null"}


def between(a: ScanCode, b: ScanCode, share: float) -> ScanCode:
    """The place at ``share`` of the way from one scan to another: 0 is the first, 1 the second.

    Codes and maps go in a straight line. Noise goes along the sphere (White, "Sampling generative networks", 2016):
    halfway between two draws on the line it would be half as strong, and scans there blurred.
    """
    noise = tuple(_on_sphere(x, y, share) for x, y in zip(a.noise, b.noise, strict=True))
    maps = tuple(torch.lerp(x, y, share) for x, y in zip(a.maps, b.maps, strict=True))
    return ScanCode(torch.lerp(a.code, b.code, share), noise, maps)


def moved(place: ScanCode, shift: Array) -> ScanCode:
    """The same scan with another code: ``shift`` (d,) is added, and what the code leaves open is kept."""
    return place._replace(code=place.code + torch.from_numpy(shift).to(place.code))


def _on_sphere(a: Tensor, b: Tensor, share: float) -> Tensor:
    x, y = a.flatten(1).double(), b.flatten(1).double()
    length = (x.norm(dim=1) * y.norm(dim=1)).clamp_min(1e-12)
    angle = torch.acos(((x * y).sum(1) / length).clamp(-1, 1))[:, None]
    # (Nearly) the same or the opposite direction: there is no arc to go along.
    flat = angle.sin() < 1e-4
    sine = torch.where(flat, torch.ones_like(angle), angle.sin())
    first = torch.where(flat, torch.full_like(angle, 1 - share), ((1 - share) * angle).sin() / sine)
    second = torch.where(flat, torch.full_like(angle, share), (share * angle).sin() / sine)
    return (first * x + second * y).view_as(a).to(a)


def codes_of(model: Interpolates, dataset: Dataset, device: torch.device) -> Array:
    """The codes of all scans of a data set, (n, d)."""
    rows = [model.locate(dataset.batch([n]).to(device)).code for n in range(len(dataset))]
    return np.asarray(torch.cat(rows).double().cpu().numpy())


@dataclass(frozen=True, eq=False)
class Manifold:
    """Where the codes of the training scans lie: a Gaussian, and how far from it they are themselves.

    Attributes:
        mean: (d,).
        whitening: Matrix that turns differences from the mean into standard deviations, (d, d).
        distances: Distance of every training scan from the Gaussian of the others, (n,).
    """

    mean: Array
    whitening: Array
    distances: Array

    @classmethod
    def fit(cls, codes: Array, subjects: Sequence[str]) -> Manifold:
        """From the codes of the training scans, (n, d), and whom each shows.

        The covariance is shrunk (Ledoit and Wolf 2004), since there are often fewer scans than dimensions. Distances
        of training scans are measured without the scans of their subject (in at most ten parts): in their own Gaussian
        they are nearer than any new scan would be.

        Raises:
            DataError: If there are fewer than three subjects.
        """
        names = sorted(set(subjects))
        if len(names) < _FEWEST:
            raise DataError(
                f"the model's training scans here show {len(names)} subject(s); expected at least {_FEWEST} to say "
                "where codes usually lie; name the cohort that it was trained on with --data"
            )
        fold = {name: number % min(_FOLDS, len(names)) for number, name in enumerate(names)}
        part = np.array([fold[name] for name in subjects])
        distances = np.zeros(len(codes))
        for number in range(part.max() + 1):
            away = part == number
            distances[away] = _distance(codes[away], *_gaussian(codes[~away]))
        return cls(*_gaussian(codes), distances)

    def distance(self, codes: Array) -> Array:
        """Mahalanobis distance of codes (m, d), in standard deviations, (m,)."""
        return _distance(codes, self.mean, self.whitening)

    def p_value(self, distance: float) -> float:
        """Share of the training scans that lie at least as far, the scan itself counted: (1 + number) / (n + 1)."""
        return float((1 + (self.distances >= distance).sum()) / (len(self.distances) + 1))

    @property
    def limit(self) -> float:
        """The p-value up to which a place is called far: 0.05, or the smallest that so few scans allow."""
        return max(FAR, 1 / (len(self.distances) + 1))

    @property
    def reach(self) -> float:
        """The distance beyond which places are called far."""
        ordered = np.sort(self.distances)
        allowed = math.floor(self.limit * (len(ordered) + 1) + 1e-9) - 1
        return float(ordered[-1 - allowed])

    def is_far(self, distance: float) -> bool:
        """Whether a place lies farther out than all but a few of the training scans."""
        return self.p_value(distance) <= self.limit + 1e-12


def _gaussian(codes: Array) -> tuple[Array, Array]:
    """Mean, and the inverse of the Cholesky factor of the shrunk covariance."""
    from sklearn.covariance import LedoitWolf

    cover = LedoitWolf().fit(codes).covariance_
    # A code of which nothing varies has no spread at all: then no distance is finite, and any will do.
    cover = cover + 1e-9 * max(float(np.trace(cover)) / len(cover), 1e-9) * np.eye(len(cover))
    return codes.mean(0), np.linalg.inv(np.linalg.cholesky(cover))


def _distance(codes: Array, mean: Array, whitening: Array) -> Array:
    return np.asarray(np.linalg.norm((codes - mean) @ whitening.T, axis=1))


def looks(drawn: Drawn, inside: Tensor, n_labels: int = 0) -> Array:
    """What is drawn as one row of numbers to compare looks by: intensities, or labels one by one; coarse where large.

    Args:
        drawn: One scan.
        inside: The voxels that count, (i, j, k) bool: at the rim of the field of view scans differ most, and it is no
            anatomy.
        n_labels: Labels besides the background; needed where there is no image.
    """
    seen = drawn.image
    if seen is None:
        if drawn.labels is None or n_labels < 1:
            raise ValueError("expected an image, or labels and their number")
        seen = torch.cat([(drawn.labels == number).float() for number in range(1, n_labels + 1)], dim=1)
    step = max(1, math.ceil((seen[0, 0].numel() / _VOXELS) ** (1 / 3)))
    counted = seen.float() * inside.to(seen.device)
    return np.asarray(functional.avg_pool3d(counted, step, ceil_mode=True).flatten().double().cpu().numpy())


def principal_directions(codes: Array, drawn: Array, count: int) -> tuple[Array, Array]:
    """Directions of the code along which what is drawn varies most, (count, d), and their shares of that variance.

    Codes themselves say little of it: those of a variational autoencoder vary by about 1 along every direction,
    whether that moves an organ or a voxel. So the principal components are those of what the model draws, and a
    direction is the change of the code that goes with one standard deviation of a component's score, by least squares.

    Args:
        codes: (n, d).
        drawn: What is drawn at each of them, (n, m).
        count: Number of directions; there are at most n - 1, and at most d. The sign is such that the largest entry is
            positive.
    """
    n, d = codes.shape
    centred = drawn - drawn.mean(0)
    # By the Gram matrix: there are more voxels than scans.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(values)[::-1][: min(count, n - 1, d)]
    directions = vectors[:, order].T @ (codes - codes.mean(0)) / (n - 1) ** 0.5
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    return np.sign(largest) * directions, values[order] / max(float(values.clip(0).sum()), 1e-300)


@dataclass(frozen=True, eq=False)
class Covariate:
    """A column of the cohort's table as numbers.

    Attributes:
        name: The column.
        values: Case id → number, of the cases that have one.
        names: For a column of two texts: those that 0 and 1 stand for; else empty.
    """

    name: str
    values: Mapping[str, float]
    names: tuple[str, ...] = ()

    def words(self, value: float) -> str:
        """A value as captions write it: the text that it stands for, else the number."""
        if self.names and value in (0, 1):
            return self.names[int(value)]
        return f"{value:.3g}" if not self.names else f"{100 * value:.0f} % {self.names[1]}"


def covariate(manifest: Manifest, column: str) -> Covariate:
    """A column of a cohort: numbers, or two different texts, which become 0 and 1 in alphabetical order.

    Raises:
        DataError: If there is no such column, or it holds something else.
    """
    texts = {case.id: case.attributes.get(column, "").strip() for case in manifest}
    texts = {name: text for name, text in texts.items() if text.lower() not in _MISSING}
    if not texts:
        found = sorted({name for case in manifest for name in case.attributes})
        has = f"it has {', '.join(found)}" if found else "it has no further columns"
        raise DataError(f"{manifest.name}: no column {column!r} with values; {has}; correct --along")
    try:
        numbers = {name: float(text) for name, text in texts.items()}
    except ValueError:
        different = sorted(set(texts.values()))
        if len(different) != 2:
            raise DataError(
                f"{manifest.name}: column {column!r} holds {len(different)} different texts, the first "
                f"{different[0][:40]!r}; expected numbers, or two different texts; choose another column for --along"
            ) from None
        return Covariate(column, {name: float(text == different[1]) for name, text in texts.items()}, tuple(different))
    if not all(np.isfinite(value) for value in numbers.values()):
        raise DataError(f"{manifest.name}: column {column!r} holds a number that is not finite; correct the table")
    return Covariate(column, numbers)


@dataclass(frozen=True, eq=False)
class Regression:
    """How codes go with a covariate.

    Attributes:
        slope: Change of the code for one unit, (d,).
        explained: Share of the codes' variance that goes with it.
        p: Share of shuffled covariates that explain as much, the true one counted.
        subjects: Number of subjects that have a value.
    """

    slope: Array
    explained: float
    p: float
    subjects: int


def regress(codes: Array, values: Array, subjects: Sequence[str], seed: int) -> Regression | None:
    """Least squares of codes (n, d) on a covariate (n,), over subjects: scans of one are averaged.

    None if fewer than three subjects have a value, or all the same one.
    """
    names = sorted(set(subjects))
    rows = [np.array([subject == name for subject in subjects]) for name in names]
    z, v = (np.array([array[row].mean(0) for row in rows]) for array in (codes, values))
    if len(names) < _FEWEST or np.ptp(v) <= 1e-9 * max(1.0, float(np.abs(v).max())):
        return None
    z, v = z - z.mean(0), v - v.mean()
    slope = v @ z / (v @ v)
    generator = np.random.default_rng(seed)
    shuffled = np.stack([generator.permutation(v) for _ in range(_SHUFFLES)])
    by_chance = np.square(shuffled @ z).sum(1)
    found = float(np.square(v @ z).sum())
    explained = found / float((v @ v) * max(float(np.square(z).sum()), 1e-300))
    p = float((1 + (by_chance >= found * (1 - 1e-9)).sum()) / (_SHUFFLES + 1))
    return Regression(slope, explained, p, len(names))


def label_volumes(labels: Tensor, numbers: Sequence[int], voxel_volume: float) -> dict[int, float]:
    """Volume in ml of each of the labels ``numbers`` in a label map; ``voxel_volume`` is in mm³."""
    return {number: float((labels == number).sum()) * voxel_volume / 1000 for number in numbers}
