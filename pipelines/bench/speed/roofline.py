"""What this machine can do at most: operations a second in each precision, bytes a second from memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .clock import clock_for
from .contest import Demand, Work

# Matrices large enough to reach the peak and small enough to be done in a second; a copy larger than any cache.
_SIDE, _COPIED = 1536, 1 << 28
_TRIES = 5


@dataclass(frozen=True)
class Roofline:
    """Peaks measured here, with the threads that the benchmark has.

    Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
    architectures", Communications of the ACM 52, 2009.

    Attributes:
        fp32: Floating-point operations a second of a product of matrices in float32.
        bf16: The same in bfloat16.
        bytes: Bytes a second of a copy, read and written ones both counted.
    """

    fp32: float
    bf16: float
    bytes: float

    def floor(self, demand: Demand) -> float:
        """Seconds that no program can do the work in less: by arithmetic or by memory, whichever takes longer.

        >>> Roofline(100.0, 200.0, 10.0).floor(Demand(flops=400.0, bytes=10.0, of="", bf16=True))
        2.0
        """
        peak = max(self.bf16, self.fp32) if demand.bf16 else self.fp32
        return max(demand.flops / peak, demand.bytes / self.bytes)


def measure(device: str) -> Roofline:
    """Peaks of this machine: the best of several tries of a square product of matrices, and of a copy."""
    clock = clock_for(device)

    def operations(dtype: torch.dtype) -> float:
        side = _SIDE if torch.device(device).type == "cpu" else 8 * _SIDE
        left, right = (torch.ones((side, side), dtype=dtype, device=device) for _ in range(2))
        return 2 * side**3 / best(lambda: left @ right)

    def best(work: Work) -> float:
        work()
        return min(clock(work, 1) for _ in range(_TRIES))

    source = torch.ones(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Roofline(
        fp32=operations(torch.float32),
        bf16=operations(torch.bfloat16),
        bytes=2 * _COPIED / best(lambda: target.copy_(source)),
    )
