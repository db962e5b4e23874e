"""Multi-atlas labels: labelled scans registered onto an unlabelled one vote on its labels, voxel by voxel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medgen.errors import DataError
from medgen.segmentation.ordinary.registrations import atlas_pairs, displacements, velocities
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import LabelledSet
from medgen.training.trainer import device_of
from medgen.transforms.fields import warp, warp_shares


def multi_atlas_labels(setting: Setting, atlases: int = 10) -> LabelledSet:
    """Labels of every unlabelled scan, with the winner's share of the votes as confidence.

    Args:
        setting: Labelled scans are the atlases; kept in its memo.
        atlases: Most similar labelled scans that vote on one unlabelled scan.

    Returns:
        The unlabelled scans in their order.

    Raises:
        DataError: If there are no unlabelled scans.
    """
    key = f"multi-atlas labels {atlases} {setting.labels}"
    if key not in setting.memo:
        setting.memo[key] = _label(setting, atlases)
    pool: LabelledSet = setting.memo[key]
    return pool


def _label(setting: Setting, atlases: int) -> LabelledSet:
    real, unlabelled, device = setting.real, setting.unlabelled, device_of(setting.device)
    if unlabelled is None or real.labels is None:
        raise DataError("multi-atlas labels need unlabelled scans, and the training part has none")
    pairs = atlas_pairs(setting, atlases)
    control = velocities(setting, pairs)
    values = (0, *setting.labels)
    labels = torch.zeros((len(unlabelled), 1, *unlabelled.shape), dtype=torch.uint8)
    confidence = torch.zeros_like(labels)
    for row in range(len(unlabelled)):
        mine = [index for index, (_, fixed) in enumerate(pairs) if fixed == len(real) + row]
        moving = [pairs[index][0] for index in mine]
        field = displacements(control[mine].to(device), unlabelled.shape)
        moved = warp(real.images[moving].to(device), field)
        shares = warp_shares(real.labels[moving].to(device), field, values)
        # Labels that are not to be segmented are background.
        shares[:, 0] += 1 - shares.sum(1)
        votes = (vote_weights(moved, unlabelled.images[row : row + 1].to(device)) * shares).sum(0)
        best, winner = votes.max(0)
        labels[row, 0] = torch.tensor(values, device=device)[winner].to(torch.uint8).cpu()
        confidence[row, 0] = (best.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return LabelledSet(unlabelled.images, labels, confidence, unlabelled.ids)


def vote_weights(moved: Tensor, fixed: Tensor, radius: int = 2, chunk: int = 65536) -> Tensor:
    """Weight of each atlas at every voxel by joint label fusion.

    Wang et al., "Multi-atlas segmentation with joint label fusion", IEEE TPAMI 2013: with
    M(m, n) = (Σ |I − Iₘ| |I − Iₙ|)² over a patch, the expected joint error of atlases m and n, the weights
    w = (M + α)⁻¹ 1 / 1ᵀ (M + α)⁻¹ 1 minimise the expected error of the vote and count atlases that err together less.
    α is a tenth of the mean of M's diagonal. Negative weights are set to zero, so that votes stay shares.

    Args:
        moved: Atlases on the grid of the scan, (n, c, i, j, k).
        fixed: The scan, (1, c, i, j, k).
        radius: Radius of the cubic patches that are compared, in voxels: a side has 2 · radius + 1.
        chunk: Voxels whose equations are solved together.

    Returns:
        (n, 1, i, j, k), summing to 1 over the atlases.
    """
    count, _, *shape = moved.shape
    error = (moved - fixed).abs().sum(1)
    joint = torch.empty(count, count, *shape, device=moved.device)
    for m in range(count):
        products = (error[m] * error[m:])[:, None]
        joint[m, m:] = joint[m:, m] = functional.avg_pool3d(
            products, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False
        )[:, 0]
    matrices = joint.square().reshape(count, count, -1).permute(2, 0, 1)
    weights = []
    for part in matrices.split(chunk):
        # A floor for places where all atlases fit exactly.
        level = 0.1 * part.diagonal(dim1=1, dim2=2).mean(1) + 1e-8
        ridge = level[:, None, None] * torch.eye(count, device=part.device)
        solved = torch.linalg.solve(part + ridge, torch.ones(len(part), count, 1, device=part.device))
        solved = solved[..., 0].clamp_min(0)
        weights.append(solved / solved.sum(1, keepdim=True).clamp_min(1e-12))
    return torch.cat(weights).T.reshape(count, 1, *shape)
