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


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """Signed distances to the border of the field of view, regressed on codes of the anatomy.

    d(z) = b + W z, at half of the resolution, by ridge regression on the training scans; the ridge is the one that
    does best on scans left out (generalised cross-validation; Golub, Heath and Wahba 1979). A view that does not follow
    from the anatomy, such as a box that was cut out, comes out as the average one.

    Attributes:
        offset: b, distances in units of their truncation, positive inside, (i/2, j/2, k/2) float32.
        weights: W, (d, i/4, j/4, k/4) float32.
        shape: Voxels (i, j, k) of the grid.
    """

    offset: Tensor
    weights: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def fit(cls, codes: Tensor, foregrounds: Tensor) -> FieldOfView:
        """Learn from training scans.

        Args:
            codes: Codes of their anatomies, (n, d).
            foregrounds: Where they show anything, (n, 1, i, j, k) bool.
        """
        from sklearn.linear_model import RidgeCV

        _, _, i, j, k = foregrounds.shape
        small = [_small(losses.signed_distance(view.long()[None], 1, _TRUNCATION)) for view in foregrounds]
        distances = torch.cat(small)[:, 0]
        z = codes.double().numpy()
        ridge = RidgeCV(alphas=_RIDGES * max(float(z.var(axis=0).mean()), 1e-12))
        ridge.fit(z, distances.flatten(1).double().numpy())
        offset, weights = (torch.from_numpy(np.asarray(item, np.float32)) for item in (ridge.intercept_, ridge.coef_.T))
        return cls(offset.reshape(distances.shape[1:]), weights.reshape(-1, *distances.shape[1:]), (i, j, k))

    def of(self, code: Tensor, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The field of view of an anatomy, (i, j, k) bool; its labels are always in it.

        Args:
            code: (1, d).
            labels: Its label map, (i, j, k).
        """
        distance = self.offset + torch.tensordot(code[0].float(), self.weights, dims=1)
        size = [steps * _COARSE for steps in distance.shape]
        full = functional.interpolate(distance[None, None], size=size, mode="trilinear", align_corners=False)[0, 0]
        i, j, k = self.shape
        inside: NDArray[np.bool_] = (full[:i, :j, :k] > 0).numpy() | (labels > 0)
        return inside

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays that :meth:`from_arrays` reads back."""
        shape = np.array(self.shape, dtype=np.int64)
        return {"view.offset": self.offset.numpy(), "view.weights": self.weights.numpy(), "view.shape": shape}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FieldOfView:
        """Inverse of :meth:`to_arrays`; raises KeyError if one is missing."""
        offset, weights = (torch.from_numpy(arrays[f"view.{name}"].copy()) for name in ("offset", "weights"))
        i, j, k = (int(size) for size in arrays["view.shape"])
        return cls(offset, weights, (i, j, k))


def _small(x: Tensor) -> Tensor:
    return functional.avg_pool3d(x, _COARSE, ceil_mode=True, count_include_pad=False)
