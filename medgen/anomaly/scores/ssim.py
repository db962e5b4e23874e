"""The score ``ssim``: structure that a reconstruction does not share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from medgen.anomaly.scores.base import Inputs, State, score
from medgen.models.base import Reconstructs
from medgen.models.networks import blocks

# Model intensities: the 1st and 99th percentile of a scan's foreground are 0 and 1.
_DATA_RANGE = 1.0


def structural_dissimilarity(x: NDArray[np.float32], y: NDArray[np.float32], scales: int = 2) -> NDArray[np.float32]:
    """1 − SSIM of two images (i, j, k), averaged over ``scales`` resolutions, each half the one before.

    Windows are cubes of 7 voxels (less where the grid is smaller): at half resolution they span 14.

    Returns:
        (i, j, k) float32 in [0, 2]; 0 where the images agree.
    """
    from skimage.metrics import structural_similarity

    total = np.zeros(x.shape, dtype=np.float32)
    both = torch.from_numpy(np.stack([x, y])[:, None].astype(np.float32))
    for level in range(scales):
        factor = 2**level
        padded = blocks.pad_to_multiple(both, factor)
        coarse = functional.avg_pool3d(padded, factor)[:, 0].numpy()
        side = min(coarse.shape[1:])
        _, similarity = structural_similarity(
            *coarse, win_size=min(7, side - 1 + side % 2), data_range=_DATA_RANGE, full=True
        )
        map_ = torch.from_numpy(np.asarray(similarity, dtype=np.float32))[None, None]
        fine = functional.interpolate(map_, size=tuple(padded.shape[2:]), mode="trilinear", align_corners=False)
        total += 1 - blocks.crop_to(fine, x.shape)[0, 0].numpy()
    return total / np.float32(scales)


@score("ssim", order=21, needs=Reconstructs)
def ssim(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Structural dissimilarity 1 − SSIM of scan and reconstruction at full and half resolution, mean over channels.

    It looks at local mean, contrast and pattern together and so sees changes of texture that keep the intensity.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004;
    Bergmann et al., "Improving unsupervised defect segmentation by applying structural similarity to autoencoders",
    VISAPP 2019.
    """
    guesses = (inputs.reconstruction * inputs.foreground).cpu().numpy()
    maps = [
        np.mean([structural_dissimilarity(x, y) for x, y in zip(scan, guess, strict=True)], axis=0)
        for scan, guess in zip(inputs.voxels, guesses, strict=True)
    ]
    return np.stack(maps)
