"""Masked-context likelihood: how likely each voxel is, given what lies around it and not itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medgen.models import losses
from medgen.models.base import ModelConfig, ScanModel, VoxelMap, Widths
from medgen.models.facts import Fact
from medgen.models.networks.unet import UNet

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

# Limits of the predicted log-variance: standard deviations of 0.02 to 4.5 in model intensities.
_LOGVAR = (-7.8, 3.0)


class ContextSettings(ModelConfig):
    """Settings of :class:`Context`.

    Attributes:
        widths: Channels per level of the U-Net, multiples of 16; the first level is at half the resolution.
        depth: Residual blocks per level, on either way.
        block: Voxels along an axis of the cubes that are hidden together: what is larger is seen at its rim.
        every: Along each axis one cube in so many is hidden at a time; ``every``³ passes see the whole scan.
        shifts: Positions of the grid of cubes that a likelihood is averaged over, so that no voxel is always at a rim.
    """

    family: Literal["context"] = "context"
    widths: Widths = (32, 64, 96)
    depth: int = Field(default=1, ge=1, le=4)
    block: int = Field(default=4, ge=1, le=32)
    every: int = Field(default=2, ge=2, le=4)
    shifts: int = Field(default=2, ge=1, le=8)


class Context(ScanModel):
    """p(x_block | the rest of the scan) = N(μ, exp s) per voxel, with μ and s of a U-Net that cannot see the block.

    Source: Pathak et al., "Context encoders: feature learning by inpainting", CVPR 2016; Besag, "Statistical analysis
    of non-lattice data", The Statistician 1975.

    Cubes of a regular pattern are hidden, and predicted from what is left (Besag's pseudo-likelihood, "Statistical
    analysis of non-lattice data", 1975, with blocks; context encoders, Pathak et al., CVPR 2016). A voxel never sees
    itself, so that an anomaly cannot explain itself, as it can where a network copies what it is shown. Where many
    cubes are filled in, the pattern is moved until every voxel has been hidden.
    """

    family: ClassVar[str] = "context"
    Settings: ClassVar[type[ContextSettings]] = ContextSettings
    maps: ClassVar[dict[str, VoxelMap]] = {
        "context_z": VoxelMap(
            "How many predicted standard deviations a voxel is from what the cubes around its own lead to expect, mean "
            "over channels; ``nll`` is its square with the logarithm of these. Source: Pathak et al., CVPR 2016.",
            fused=False,
            costly=True,
        )
    }
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 16), "shifts": 1}
    settings: ContextSettings

    def __init__(self, settings: ContextSettings) -> None:
        super().__init__(settings)
        c = settings.in_channels
        self.network = UNet(c + 1, settings.widths, settings.depth, 2 * c, scale=0.1)
        # The mean scan, which the network adds to, and its log-variance.
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(c, *settings.shape))
        self.register_buffer("spread", torch.zeros(c, *settings.shape))

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Mean negative log-likelihood of hidden voxels of the foreground, in nats per voxel."""
        settings = self.settings
        period, device = settings.block * settings.every, batch.image.device
        hidden = self._pattern(torch.randint(period, (len(batch.image), 3), device=device)).to(batch.image)
        mean, logvar = self.predict(batch.image, hidden)
        weight = hidden * batch.foreground
        nll = losses.weighted_mean(losses.gaussian_nll(batch.image, mean, logvar), weight)
        with torch.no_grad():
            rmse = losses.weighted_mean((mean - batch.image).square(), weight).sqrt()
        return {"loss": nll, "rmse": rmse}

    def facts(self) -> Sequence[Fact]:
        """How many passes a map takes."""
        passes = self.settings.shifts * self.settings.every**3
        return (
            *super().facts(),
            Fact("passes", passes, "passes", "A map of all voxels takes {value} passes through the network."),
        )

    def predict(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (b, c, i, j, k) of scans whose voxels with ``hidden`` = 1, (b, 1, i, j, k), are unseen.

        Where nothing is hidden the two mean nothing.
        """
        seen = torch.cat([(x - self.mean) * (1 - hidden), hidden], dim=1)
        maps = self.network(seen).float()
        change, raw = maps.chunk(2, dim=1)
        low, high = _LOGVAR
        return self.mean + change, low + (high - low) * torch.sigmoid(raw + self.spread)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """What each voxel is expected to be by the rest of the scan, (b, c, i, j, k); deterministic."""
        return self._everywhere(x, lambda mean, logvar: mean)

    @torch.no_grad()
    def voxel_nll(self, x: Tensor) -> Tensor:
        """−log N(x; μ, exp s) of every voxel given the cubes around its own, in nats, (b, c, i, j, k); deterministic.

        Exact for the model's conditional of each voxel. Their sum is a pseudo-likelihood, no likelihood of the scan.
        """
        return self._everywhere(x, lambda mean, logvar: losses.gaussian_nll(x, mean, logvar))

    @torch.no_grad()
    def voxel_maps(self, x: Tensor) -> dict[str, Tensor]:
        """``context_z``, |x − μ| / exp(s / 2) of every voxel while it is hidden, (b, 1, i, j, k)."""
        z = self._everywhere(x, lambda mean, logvar: (x - mean).abs() * torch.exp(-0.5 * logvar))
        return {"context_z": z.mean(1, keepdim=True)}

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start from mean and variance of the training scans at every voxel."""
        foreground = dataset.foregrounds.float()
        count = foreground.sum(0).clamp_min(1)
        mean = (foreground * dataset.images).sum(0) / count
        variance = (foreground * (dataset.images - mean).square()).sum(0) / count
        self.mean.copy_(mean)
        low, high = _LOGVAR
        logvar = (variance + 0.1 * variance.mean() + 1e-6).log()
        self.spread.copy_(torch.logit(((logvar - low) / (high - low)).clamp(0.02, 0.98)))

    def _everywhere(self, x: Tensor, wanted: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """A map of every voxel while it is hidden, averaged over the positions of the grid."""
        total = torch.zeros_like(x, dtype=torch.float32)
        for hidden in self._patterns():
            shown = hidden[None].to(x)
            total += shown * wanted(*self.predict(x, shown.expand(len(x), -1, -1, -1, -1)))
        return total / self.settings.shifts

    def _patterns(self) -> Iterator[Tensor]:
        """Patterns (1, i, j, k) that together hide every voxel ``shifts`` times."""
        block, every = self.settings.block, self.settings.every
        for shift in range(self.settings.shifts):
            start = shift * block // self.settings.shifts
            for place in itertools.product(range(every), repeat=3):
                yield self._pattern(torch.tensor([[start + block * step for step in place]]))[0]

    def _pattern(self, offsets: Tensor) -> Tensor:
        """1 in every ``every``-th cube along each axis, from offsets (b, 3) in voxels, (b, 1, i, j, k)."""
        block, every = self.settings.block, self.settings.every
        i, j, k = (
            ((torch.arange(size, device=offsets.device) + start[:, None]) // block % every == 0).float()
            for size, start in zip(self.settings.shape, offsets.unbind(1), strict=True)
        )
        return (i[:, :, None, None] * j[:, None, :, None] * k[:, None, None, :])[:, None]
