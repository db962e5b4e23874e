"""Random draws that the batch transforms share; all from a CPU generator, so that devices give equal batches."""

from __future__ import annotations

import torch
from torch import Tensor

from medgen.seeds import numpy_rng


def partners(count: int, generator: torch.Generator) -> Tensor:
    """For each element of a batch another one, (count,) indices: a random cyclic permutation.

    A plain permutation would leave some elements alone; a batch of one has no other element.
    """
    order = torch.randperm(count, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


def beta(a: float, b: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(a, b), (count,) float32."""
    # torch's Beta knows the global stream only.
    rng = numpy_rng(number(generator), "beta")
    return torch.from_numpy(rng.beta(a, b, count)).float()


def number(generator: torch.Generator) -> int:
    """A 63-bit number from the generator, as the seed of a stream in another library."""
    return int(torch.randint(2**63 - 1, (1,), generator=generator))
