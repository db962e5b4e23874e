"""How far a batch of samples is from a batch of scans, by fixed features: what validation of a GAN looks at.

A GAN's losses say how well one player does against the other, and a distance between a scan and its reconstruction is
least for a blurred one. Energy distances between samples and scans (Székely and Rizzo 2013) have neither fault. The
features are what scans are made of: their coarse anatomy, the strength of detail at three sizes, and what intensities
labels have. Nothing is trained, so that the values of two steps can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medgen.models.losses import one_hot
from medgen.models.networks.blocks import full_precision, pad_to_multiple
from medgen.models.networks.haar import haar

# Sizes of detail: differences of neighbours, of means of 2³ voxels, and of means of 4³.
_LEVELS = 3


@torch.no_grad()
def sample_distance(
    sample: Tensor, real: Tensor, labels: tuple[Tensor, Tensor] | None = None, n_labels: int = 0
) -> Tensor:
    """Mean over kinds of features of the energy distance of two batches, relative to the size of the real ones.

    0 is no difference. Where samples and scans of a kind do not overlap at all it is twice their relative distance.

    Args:
        sample: (b, c, i, j, k).
        real: (b, c, i, j, k). The n-th sample may have been made for the n-th scan, such as for its labels.
        labels: Label maps of samples and of scans, (b, 1, i, j, k) each with numbers 0 to ``n_labels``, where images
            have to fit labels.
        n_labels: Labels besides the background.

    Returns:
        A scalar; below 0 by chance only.
    """
    with full_precision(real.device):
        pairs = list(zip(band_features(sample), band_features(real), strict=True))
        if labels is not None:
            made, given = labels
            pairs.append((label_features(sample, made, n_labels), label_features(real, given, n_labels)))
        relative = [energy_distance(x, y) / y.square().mean().sqrt().clamp_min(1e-6) for x, y in pairs]
        return torch.stack(relative).mean()


def band_features(x: Tensor) -> list[Tensor]:
    """Coarse anatomy and strength of detail, a list of (b, f) float32: detail from fine to coarse, then the image.

    From a Haar pyramid: the root mean square of the seven bands of differences of each level, in blocks of 8³ voxels,
    and the means of these blocks.
    """
    side = 2**_LEVELS
    coarse, found = pad_to_multiple(x.float(), side), []
    for level in range(_LEVELS):
        bands = haar(coarse).unflatten(1, (x.shape[1], 8))
        power = bands[:, :, 1:].square().mean(2)
        found.append(functional.avg_pool3d(power, side >> (level + 1)).sqrt().flatten(1))
        # Of 2³ voxels the first band is √8 times the mean.
        coarse = bands[:, :, 0] / 8**0.5
    return [*found, coarse.flatten(1)]


def label_features(image: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """Mean and standard deviation of every channel in every label, background too, (b, 2 c (n_labels + 1)) float32.

    Both are 0 for a label that is not there.
    """
    regions = one_hot(labels, n_labels + 1).float()
    mass = regions.sum((2, 3, 4))[:, :, None].clamp_min(1)
    mean = torch.einsum("bnijk,bcijk->bnc", regions, image.float()) / mass
    square = torch.einsum("bnijk,bcijk->bnc", regions, image.float().square()) / mass
    return torch.cat([mean, (square - mean.square()).clamp_min(0).sqrt()], dim=2).flatten(1)


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖ of two batches of features (b, f), in root mean squares, a scalar.

    Means go over pairs of different rows, of x and y, too, so that it does not depend on the size of the batch, nor on
    x having been made for y. A batch of one has no such pairs: 2 ‖x − y‖ is what it can say.
    """
    distance = (torch.cat([x, y])[:, None] - torch.cat([x, y])[None]).square().mean(2).sqrt()
    b = len(x)
    across, own, others = distance[:b, b:], distance[:b, :b], distance[b:, b:]
    if b == 1:
        return 2 * across.mean()
    # The distances within a batch are 0 on the diagonal.
    pairs = b * (b - 1)
    return (2 * (across.sum() - across.diagonal().sum()) - own.sum() - others.sum()) / pairs
