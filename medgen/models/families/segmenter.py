"""Segmenter: the U-Net that labels scans in value studies, as a model that is kept and that others start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medgen.errors import TrainingError
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.losses import dice_cross_entropy
from medgen.models.networks.unet import SegmenterUNet

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch

Width = Annotated[int, Field(ge=1)]


class SegmenterSettings(ModelConfig):
    """Settings of :class:`ScanSegmenter`.

    Attributes:
        n_labels: Largest label number; filled in from the data.
        channels: Width of each level; every level after the first halves the resolution.
        residual_units: Convolutions per residual block; 0 for plain blocks.
    """

    family: Literal["segmenter"] = "segmenter"
    n_labels: int = Field(ge=1, le=255)
    channels: tuple[Width, ...] = Field(default=(16, 32, 64), min_length=2)
    residual_units: int = Field(default=0, ge=0, le=4)


class ScanSegmenter(ScanModel):
    """A U-Net trained by cross-entropy and soft Dice, the network of :mod:`medgen.segmentation.segmenter`.

    Source: Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015.

    Trained on painted label maps (``medgen pretrain segmenter``) it has met any contrast (Billot et al., "SynthSeg:
    Segmentation of brain MRI scans of any contrast and resolution without retraining", Medical Image Analysis 2023),
    and is where the segmenters of a value study can start: ``value.init``. It is no detector of anomalies.
    """

    family: ClassVar[str] = "segmenter"
    Settings: ClassVar[type[SegmenterSettings]] = SegmenterSettings
    tiny: ClassVar[dict[str, Any]] = {"channels": (8, 16), "n_labels": 2}
    settings: SegmenterSettings

    def __init__(self, settings: SegmenterSettings) -> None:
        super().__init__(settings)
        classes = settings.n_labels + 1
        self.network = SegmenterUNet(settings.channels, settings.residual_units, settings.in_channels, classes)

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + 1 − soft Dice over all voxels, see :func:`medgen.models.losses.dice_cross_entropy`.

        Raises:
            TrainingError: If the scans have no label maps.
        """
        if batch.labels is None:
            raise TrainingError("the segmenter family learns from label maps, and these scans have no masks")
        return {"loss": dice_cross_entropy(self.network(batch.image), batch.labels[:, 0])}

    @torch.no_grad()
    def label_probabilities(self, x: Tensor) -> Tensor:
        """Probability of background and of each label number, (b, n_labels + 1, i, j, k) float32; they sum to 1."""
        scores: Tensor = self.network(x)
        return scores.float().softmax(dim=1)
