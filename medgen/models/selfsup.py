"""A self-supervised head: a U-Net that marks places of a scan which were tampered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from medgen.models import blocks
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.corruptions import KINDS, corrupt
from medgen.models.unet import UNet

if TYPE_CHECKING:
    from medgen.dataset import Batch, Dataset

# Standardised intensities beyond this say nothing more.
_LIMIT = 5.0
# Scans' worth of the average variance at every voxel, as in the normative z.
_PRIOR = 10.0


class SelfSupSettings(ModelConfig):
    """Settings of :class:`SelfSup`.

    Attributes:
        widths: Channels per level of the U-Net, multiples of 16; the first level is at half the resolution.
        depth: Residual blocks per level, on either way.
        kinds: Corruptions to learn from; ``leave-one-type-out`` leaves some away.
        radius: Smallest and largest nominal radius of a corrupted region, in voxels.
        most: Most corrupted regions per scan.
    """

    family: Literal["selfsup"] = "selfsup"
    widths: tuple[int, ...] = (32, 64, 96)
    depth: int = Field(default=1, ge=1, le=4)
    kinds: tuple[str, ...] = tuple(KINDS)
    radius: tuple[float, float] = (1.3, 6.0)
    most: int = Field(default=4, ge=1, le=20)

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ValueError(f"expected some of {', '.join(KINDS)}, found {', '.join(unknown) or 'none'}")
        return kinds


class SelfSup(ScanModel):
    """U-Net trained to segment random corruptions of healthy scans (FPI, Tan et al. 2022, and its successors).

    It sees the scan, what the training scans show at that place (mean, and the scan's deviation in standard
    deviations), and where it is. It knows no lesion; it shares its idea with implanted test anomalies, though, so
    results on implants are reported with the alike corruptions left out as well.
    """

    family: ClassVar[str] = "selfsup"
    Settings: ClassVar[type[SelfSupSettings]] = SelfSupSettings
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 16), "most": 2}
    settings: SelfSupSettings

    def __init__(self, settings: SelfSupSettings) -> None:
        super().__init__(settings)
        channels = settings.in_channels
        self.network = UNet(3 * channels + 4, settings.widths, settings.depth, out=1)
        with torch.no_grad():
            # Anomalies are rare: start from odds of 1 in 50 rather than 1 in 1.
            nn.init.constant_(self.network.head.bias, -4.0)  # type: ignore[arg-type]  # there is one
        self.mean: Tensor
        self.sd: Tensor
        self.register_buffer("mean", torch.zeros((channels, *settings.shape)))
        self.register_buffer("sd", torch.ones((channels, *settings.shape)))
        axes = [torch.linspace(-1, 1, size) for size in settings.shape]
        self.position: Tensor
        self.register_buffer("position", torch.stack(torch.meshgrid(*axes, indexing="ij")), persistent=False)

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Mean and standard deviation of the training scans at every voxel, the latter shrunk to its average."""
        shown = dataset.foregrounds.float()
        count = shown.sum(0).clamp_min(1)
        mean = (dataset.images * shown).sum(0) / count
        square = ((dataset.images - mean).square() * shown).sum(0)
        pooled = square.sum() / shown.sum().clamp_min(1)
        self.mean.copy_(mean)
        self.sd.copy_(((square + _PRIOR * pooled) / (count + _PRIOR)).sqrt().clamp_min(1e-3))

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy in the foreground plus 1 − soft Dice, against where the scan was changed."""
        settings = self.settings
        # Coordinates of sampling points have no room in half precision.
        with torch.no_grad(), blocks.full_precision(batch.image.device):
            image, truth = corrupt(batch.image, batch.foreground, settings.kinds, settings.radius, settings.most)
        logits = self._logits(image, batch.foreground)
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        entropy = (entropy * batch.foreground).sum() / batch.foreground.sum().clamp_min(1)
        marked = torch.sigmoid(logits) * batch.foreground
        dice = (2 * (marked * truth).sum() + 1) / (marked.sum() + truth.sum() + 1)
        # Cross-entropy is small where positives are rare: in the same range as the Dice term.
        return {"loss": 10 * entropy + 1 - dice, "entropy": entropy.detach(), "dice": dice.detach()}

    @torch.no_grad()
    def anomaly_logits(self, x: Tensor, foreground: Tensor) -> Tensor:
        """Log-odds that a voxel was tampered with, (b, 1, i, j, k) float32."""
        return self._logits(x, foreground.float())

    def _logits(self, x: Tensor, foreground: Tensor) -> Tensor:
        deviation = ((x - self.mean) / self.sd).clamp(-_LIMIT, _LIMIT) / 2 * foreground
        b = len(x)
        fixed = [self.mean.expand(b, *self.mean.shape), self.position.expand(b, *self.position.shape)]
        logits: Tensor = self.network(torch.cat([x, deviation, foreground, *fixed], dim=1))
        return logits.float()
