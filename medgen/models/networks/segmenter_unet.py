"""The U-Net of segmenters, on scans of any shape and intensity scale."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medgen.models.networks.blocks import crop_to, pad_to_multiple


class SegmenterUNet(nn.Module):
    """MONAI's U-Net with instance norm, on scans of any shape and intensity scale.

    MONAI's UNet takes a third of the time of its BasicUNet per step at equal Dice (40×56×40, two CPU cores).

    Args:
        channels: Width of each level; every level after the first halves the resolution.
        residual_units: Convolutions per residual block; 0 for plain blocks.
        in_channels: Image channels of a scan.
        n_classes: Scores per voxel.
    """

    def __init__(self, channels: Sequence[int], residual_units: int, in_channels: int, n_classes: int) -> None:
        super().__init__()
        from monai.networks.nets import UNet

        strides = (2,) * (len(channels) - 1)
        self.factor = 2 ** len(strides)
        self.body = UNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=n_classes,
            channels=tuple(channels),
            strides=strides,
            num_res_units=residual_units,
            norm="instance",
        )

    def forward(self, image: Tensor) -> Tensor:
        """Scores (b, classes, i, j, k) of images (b, c, i, j, k); every scan and channel is standardised first."""
        mean = image.mean(dim=(2, 3, 4), keepdim=True)
        spread = image.std(dim=(2, 3, 4), keepdim=True).clamp_min(1e-6)
        return crop_to(self.body(pad_to_multiple((image - mean) / spread, self.factor)), image.shape[2:])
