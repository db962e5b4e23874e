"""Where a scan of a drawn anatomy would show anything: there is no parent whose field of view could be taken over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.models import losses

# Voxels along an axis that become one, and voxels at which distances are cut off.
_COARSE, _TRUNCATION = 2, 5
# Ridges that are tried, in units of the variance of a code.
_RIDGES = 10.0 ** np.arange(-2, 5)
# Labels tell the border if the squared error with them is below this share of that without: no work of chance.
_TOLD = 0.9


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """Signed distances to the border of the field of view, regressed on codes of the anatomy.

    d(z) = b + W z, at half of the resolution, by ridge regression on the training scans; the ridge is the one that
    does best on scans left out (generalised cross-validation; Golub, Heath and Wahba 1979). Where the labels tell the
    border of the view, as tissues of a brain whose skull is stripped do, d is what the view's distance adds to that of
    all labels together: drawn labels then bring the border along, to the voxel. Whether they do is told by the scans
    left out too. A view that follows from neither, such as a box that was cut out, comes out as the average one.

    Attributes:
        offset: b, distances in units of their truncation, positive inside, (i/2, j/2, k/2) float32.
        weights: W, (d, i/2, j/2, k/2) float32.
        shape: Voxels (i, j, k) of the grid.
        by_labels: Whether d is added to the distance of the labels.
    """

    offset: Tensor
    weights: Tensor
    shape: tuple[int, int, int]
    by_labels: bool

    @classmethod
    def fit(cls, codes: Tensor, foregrounds: Tensor, labels: Tensor) -> FieldOfView:
        """Learn from training scans.

        Args:
            codes: Codes of their anatomies, (n, d).
            foregrounds: Where they show anything, (n, 1, i, j, k) bool.
            labels: Their label maps, (n, 1, i, j, k), 0 for none.
        """
        from sklearn.linear_model import RidgeCV

        _, _, i, j, k = foregrounds.shape
        z = codes.double().numpy()
        alphas = _RIDGES * max(float(z.var(axis=0).mean()), 1e-12)
        views = torch.cat([_small(_distance(view)) for view in foregrounds])[:, 0]
        inner = [_small(_distance((drawn > 0) & view)) for view, drawn in zip(foregrounds, labels, strict=True)]
        fitted = []
        # Means over cubes are linear: what the view adds to the labels is the difference of the means.
        for by_labels, distances in ((False, views), (True, views - torch.cat(inner)[:, 0])):
            ridge = RidgeCV(alphas=alphas)
            ridge.fit(z, distances.flatten(1).double().numpy())
            offset, weights = (torch.from_numpy(np.asarray(x, np.float32)) for x in (ridge.intercept_, ridge.coef_.T))
            grid = distances.shape[1:]
            model = cls(offset.reshape(grid), weights.reshape(-1, *grid), (i, j, k), by_labels)
            # Minus the mean squared error of scans left out, of the view's distance in both cases.
            fitted.append((-float(ridge.best_score_), model))
        (alone, plain), (beside, labelled) = fitted
        return labelled if beside < _TOLD * alone else plain

    def of(self, code: Tensor, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The field of view of an anatomy, (i, j, k) bool; its labels are always in it.

        Args:
            code: (1, d).
            labels: Its label map, (i, j, k).
        """
        added = self.offset + torch.tensordot(code[0].float(), self.weights, dims=1)
        size = [steps * _COARSE for steps in added.shape]
        i, j, k = self.shape
        full = functional.interpolate(added[None, None], size=size, mode="trilinear", align_corners=False)
        distance = full[0, 0, :i, :j, :k]
        if self.by_labels:
            distance = distance + _distance(torch.from_numpy(labels > 0)[None])[0, 0]
        inside: NDArray[np.bool_] = (distance > 0).numpy() | (labels > 0)
        return inside

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays that :meth:`from_arrays` reads back."""
        shape = np.array(self.shape, dtype=np.int64)
        arrays = {"offset": self.offset.numpy(), "weights": self.weights.numpy(), "shape": shape}
        arrays["by_labels"] = np.array(self.by_labels)
        return {f"view.{name}": array for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FieldOfView:
        """Inverse of :meth:`to_arrays`; raises KeyError if one is missing."""
        offset, weights = (torch.from_numpy(arrays[f"view.{name}"].copy()) for name in ("offset", "weights"))
        i, j, k = (int(size) for size in arrays["view.shape"])
        return cls(offset, weights, (i, j, k), bool(arrays["view.by_labels"]))


def _distance(inside: Tensor) -> Tensor:
    """(1, 1, i, j, k) of (1, i, j, k) bool: to the border, positive inside, in units of the truncation."""
    return losses.signed_distance(inside.long()[None], 1, _TRUNCATION)


def _small(x: Tensor) -> Tensor:
    return functional.avg_pool3d(x, _COARSE, ceil_mode=True, count_include_pad=False)
