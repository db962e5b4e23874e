"""PyOD's detectors of outliers (Zhao et al., JMLR 2019), on a table of voxels.

PyOD works on tables. A masked scan as one row has a hundred times more columns than there are scans, so, as its users
do, every voxel is a row of a few features and detectors are fitted on a sample of voxels.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medgen.anomaly.comparison.peers.base import Fitted, PeerSettings, left_out
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive, numpy_rng
from medgen.transforms.masked_smoothing import smooth

# Sigma in voxels of the local mean among the features of a voxel.
_LOCAL = 2.0
# Voxels per call of a detector: some build a table of all pairs of features and training voxels.
_ROWS = 50_000

# Name → module and class in PyOD, and settings that differ from its defaults. A mixture of one Gaussian, the default,
# would be a plain Mahalanobis distance.
DETECTORS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "pyod-pca": ("pyod.models.pca", "PCA", {}),
    "pyod-knn": ("pyod.models.knn", "KNN", {}),
    "pyod-gmm": ("pyod.models.gmm", "GMM", {"n_components": 8}),
    "pyod-ecod": ("pyod.models.ecod", "ECOD", {}),
}
NAMES = tuple(DETECTORS)


def missing(name: str) -> str | None:
    """Why a detector cannot be run here, in a sentence; None if it can."""
    try:
        importlib.import_module(DETECTORS[name][0])
    except ImportError as error:
        return left_out(name, error)
    return None


def features(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Per voxel of the mask: intensities, local means (Gaussian inside the mask, sigma 2), and its place.

    Args:
        image: (c, i, j, k).
        mask: (i, j, k) boolean with v voxels.

    Returns:
        (v, 2 c + 3); the place is the voxel's index along each axis of the model grid.
    """
    columns = [channel[mask] for channel in image]
    columns += [smooth(channel, mask, _LOCAL)[mask] for channel in image]
    columns += list(np.nonzero(mask))
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Table:
    """A PyOD detector on standardised voxel features."""

    detector: Any
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    def __call__(self, image: Tensor, foreground: Tensor) -> NDArray[np.float32]:
        mask = foreground[0].cpu().numpy().astype(bool)
        rows = (features(image.cpu().numpy(), mask) - self.mean) / self.sd
        parts = np.array_split(rows, max(1, -(-len(rows) // _ROWS)))
        result = np.zeros(mask.shape, dtype=np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result[mask] = np.concatenate([self.detector.decision_function(part) for part in parts])
        return result


def fit(name: str, development: Dataset, settings: PeerSettings, seed: int) -> Fitted:
    """Fit a detector on voxels sampled evenly from all development scans.

    Raises:
        ImportError: If PyOD is not installed; see :func:`missing`.
    """
    module, kind, own = DETECTORS[name]
    each = max(1, settings.voxels // len(development))
    parts = []
    for case, image, foreground in zip(development.ids, development.images, development.foregrounds, strict=True):
        rows = features(image.cpu().numpy(), foreground[0].cpu().numpy().astype(bool))
        parts.append(rows[numpy_rng(seed, "peers", case).permutation(len(rows))[:each]])
    table = np.concatenate(parts)
    mean, sd = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-6)
    detector = getattr(importlib.import_module(module), kind)(**own)
    # Third-party code; what it warns of is not for the user of this library.
    with warnings.catch_warnings(), _numpy_state(derive(seed, "peers", name)):
        warnings.simplefilter("ignore")
        detector.fit((table - mean) / sd)
    given = ", ".join(f"{key}={value}" for key, value in own.items())
    words = f"{len(table)} voxels of {len(development)} scans, {table.shape[1]} features, {given or 'defaults'}"
    return Fitted(name, _Table(detector, mean, sd), words)


class _numpy_state:
    """NumPy's global generator seeded inside and as before outside: some detectors draw from it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed % (1 << 32)

    def __enter__(self) -> None:
        self._before = np.random.get_state()  # noqa: NPY002
        np.random.seed(self._seed)  # noqa: NPY002

    def __exit__(self, *_: object) -> None:
        np.random.set_state(self._before)  # noqa: NPY002
