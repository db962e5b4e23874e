"""How anatomy and appearance vary between scans: registrations between subjects, and Gaussians on their components."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.errors import DataError
from medgen.seeds import numpy_rng
from medgen.synthesis.sources import Sources
from medgen.transforms.fields import expand, exponentiate, warp

# Added to intensities (about 0 to 1) before the logarithm, so that dark noise does not become a large ratio.
FLOOR = 0.1
# How much more often a scan with a rare label is moved than one without, at most.
_RARE = 4.0


def choose_pairs(sources: Sources, pairs: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows of moving scans in ``sources.pairs``, and of fixed ones among labelled and then unlabelled scans.

    Every scan with labels gets the same number of targets of other subjects, different ones as far as there are.

    Raises:
        DataError: If all scans are of one subject.
    """
    subjects = sources.owners
    parents = sources.pairs
    each = max(pairs // len(parents), 1)
    moving: list[int] = []
    fixed: list[int] = []
    for row, own in enumerate(parents.subjects):
        others = [index for index, subject in enumerate(subjects) if subject != own]
        if not others:
            raise DataError(
                "deformations are learnt between subjects, and the training part has only one; add subjects"
            )
        order = numpy_rng(seed, "deform", "targets", parents.ids[row]).permutation(others)
        fixed += [int(target) for target in order[:each]]
        moving += [row] * min(each, len(others))
    return moving, fixed


def chances(labels: Tensor) -> NDArray[np.float64]:
    """Probability of each scan (n, 1, i, j, k) to be moved: as its rarest label is rare, at most fourfold.

    Where every scan has every label, all are equal.
    """
    flat = labels.flatten(1)
    values = [int(value) for value in torch.unique(flat) if value]
    if not values:
        return np.full(len(flat), 1 / len(flat))
    has = torch.stack([(flat == value).any(dim=1) for value in values], dim=1).numpy()
    rarity = len(flat) / has.sum(axis=0)
    weight = np.where(has, rarity, 1.0).max(axis=1).clip(1, _RARE)
    return weight / weight.sum()


def ways_and_components(velocities: Tensor, moving: list[int], count: int, variance: float) -> tuple[Tensor, Tensor]:
    """Per labelled scan the way to the average anatomy (n, 3, p, q, r), and the components of the rest."""
    rows = torch.tensor(moving)
    ways = torch.zeros(count, *velocities.shape[1:])
    rest = velocities.clone()
    for row in range(count):
        own = velocities[rows == row]
        # A mean over few targets is shrunk towards "stay where you are".
        ways[row] = own.mean(0) * len(own) / (len(own) + 1)
        rest[rows == row] -= ways[row]
    components = components_of(rest.flatten(1), variance)
    return ways, components.reshape(len(components), *velocities.shape[1:])


def components_of(data: Tensor, variance: float) -> Tensor:
    """Principal components (m, d), each times its standard deviation, that keep a share of the variance."""
    centred = data - data.mean(0)
    # Rows are few and columns many: the small Gram matrix has the same spectrum. In double precision, so that the
    # order of the components does not hang on rounding.
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    total = values.sum()
    if float(total) <= 0:
        return torch.zeros(1, data.shape[1])
    kept = int((torch.cumsum(values, 0) < variance * total).sum()) + 1
    kept = min(kept, len(data) - 1) or 1
    # V = Xᵀ u / √λ has unit length, and the standard deviation along it is √(λ / (n − 1)).
    return (vectors[:, :kept].T.float() @ centred) / max(len(data) - 1, 1) ** 0.5


def intensity_changes(
    moving: Tensor,
    fixed: Tensor,
    velocities: Tensor,
    points: tuple[int, int, int],
    device: torch.device,
) -> Tensor:
    """Low-frequency log-intensity changes between aligned scans, as control points (pairs, c, p, q, r)."""
    shape = tuple(moving.shape[2:])
    results = []
    for row in range(len(moving)):
        displacement = exponentiate(expand(velocities[row][None].to(device), shape))
        moved, wanted = warp(moving[row][None].to(device), displacement), fixed[row][None].to(device)
        weight = ((moved > 0) & (wanted > 0)).float()
        ratio = (torch.log(wanted.clamp_min(0) + FLOOR) - torch.log(moved.clamp_min(0) + FLOOR)) * weight
        # The outermost control points lie outside of the scan and repeat their neighbours.
        inside = (points[0] - 2, points[1] - 2, points[2] - 2)
        sums = functional.adaptive_avg_pool3d(ratio, inside)
        mass = functional.adaptive_avg_pool3d(weight, inside)
        # A prior weight of a tenth: cells without anatomy say nothing.
        results.append(functional.pad(sums / (mass + 0.1), (1,) * 6, mode="replicate").cpu())
    return torch.cat(results)
