"""From the CPU, where small numbers are drawn, to where the scans are, without waiting for the device.

An ordinary copy from the CPU to a GPU waits until all work that is queued there is done, and one back always does: a
training step with a single such copy leaves the GPU idle for as long as the next step takes to be queued.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; from the CPU to a GPU through page-locked memory, for which nobody has to wait."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def generator_on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """The generator itself on its own device; elsewhere one that a draw of it seeds, for numbers that are many."""
    if generator.device == device:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(device=device).manual_seed(seed)
