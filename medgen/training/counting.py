"""Counts what a computation does and keeps, part by part, and what each part would be in a larger volume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# A part whose growth with the number of voxels has an exponent above this is quadratic, else linear.
_QUADRATIC = 1.5
# What a product of matrices is made of: two operations for each pair of numbers.
_MULTIPLY_ADD = 2


class KeptForBackward:
    """Counts what autograd keeps for the backward pass, every memory block once, parameters not at all.

    Attributes:
        parts: Bytes of every memory block, in the order in which they are kept.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        # The blocks themselves, too: none that has been counted may be freed and come again as another.
        blocks = [parameter.untyped_storage() for parameter in parameters]
        self.seen = {block.data_ptr(): block for block in blocks}
        self.parts: list[float] = []

    @property
    def total(self) -> float:
        """Bytes of all."""
        return sum(self.parts)

    def __call__(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd is about to keep, and hand it on."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen[storage.data_ptr()] = storage
            self.parts.append(float(storage.nbytes()))
        return tensor


def unchanged(tensor: Tensor) -> Tensor:
    """A kept tensor as the backward pass gets it back."""
    return tensor


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of convolutions, matrix products and attention.

    >>> with Operations() as counted:
    ...     product = torch.ones(2, 3) @ torch.ones(3, 5)
    >>> counted.parts
    [60.0]

    Attributes:
        parts: Operations of every call, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[float] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry out a call of torch and note what it takes."""
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
            # That of processors is not among those that torch counts.
            query, key = args[:2]
            self.parts.append(2.0 * _MULTIPLY_ADD * query.numel() * key.shape[-2])
        elif count := flop_registry.get(func._overloadpacket):
            self.parts.append(float(count(*args, **(kwargs or {}), out_val=made)))
        return made


def extrapolated(small: Sequence[float], large: Sequence[float], ratio: float, factor: float) -> float:
    """What parts counted in two volumes sum up to in a third one.

    Convolutions and what they leave grow with the number of voxels, attention between all pairs of places with its
    square. Each part follows the one that is nearer to what was counted.

    >>> round(extrapolated([1, 1], [8, 64], ratio=8, factor=10))
    6480

    Args:
        small: Parts in the first volume.
        large: The same parts in the second.
        ratio: Voxels of the second volume over those of the first, above 1.
        factor: Voxels of the third volume over those of the second.

    Returns:
        Their sum in the third volume; where the two do not have the same parts, as if all were linear.
    """
    if len(small) != len(large):
        return sum(large) * factor
    total = 0.0
    for less, more in zip(small, large, strict=True):
        quadratic = 0 < less < more and math.log(more / less) > _QUADRATIC * math.log(ratio)
        total += more * factor ** (2 if quadratic else 1)
    return total


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def timed_step(step: Callable[[], float], device: torch.device) -> tuple[float, float]:
    """Seconds of the second of two steps, and what they return; random streams are left as they were."""
    made = [0.0]

    def once() -> None:
        made[0] = step()

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        once()
        return timed(once, device), made[0]
