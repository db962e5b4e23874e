"""Where and how numbers are computed: device, autocast type and memory format, the same in training and scoring."""

from __future__ import annotations

import functools
import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from medgen.errors import ConfigError
from medgen.system.precision_names import PrecisionName

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """Device and number format of the forward passes; weights, losses and accumulations stay float32.

    Attributes:
        device: Where models and batches live.
        bf16: Whether convolutions and matrix products run in bfloat16 under autocast.
    """

    device: torch.device
    bf16: bool

    @property
    def name(self) -> Literal["bf16", "32"]:
        """The name it has in configurations and artifacts."""
        return "bf16" if self.bf16 else "32"

    @property
    def fabric(self) -> Literal["bf16-mixed", "32-true"]:
        """The name Lightning Fabric has for it."""
        return "bf16-mixed" if self.bf16 else "32-true"

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which forward passes run."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def place(self, module: nn.Module) -> None:
        """Move a module to the device, in place, channels innermost in memory.

        With a norm over channels that is faster in float32 as well as in bfloat16.
        """
        module.to(self.device)
        channels_innermost(module)


def channels_innermost(module: nn.Module) -> None:
    """Lay out the weights of 3D convolutions in the order of their activations, in place."""
    # Not `module.to(memory_format=...)`, which refuses a module that holds any tensor of four axes.
    for parameter in module.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def precision_of(name: PrecisionName, device: torch.device) -> Precision:
    """Resolve a precision setting for a device.

    ``auto`` is bfloat16 where the hardware multiplies it natively: CUDA from compute capability 8.0, and CPUs with
    AMX or AVX512-BF16 (a training step of ``vae`` takes 1.5 times less CPU time there than in float32); else float32.
    Wherever bfloat16 is chosen, one small convolution is compared with float32 first, since some driver and library
    pairs get it wrong: ``auto`` then falls back, and an explicit ``bf16`` is refused.

    Raises:
        ConfigError: If ``bf16`` is asked for and gives wrong numbers on this device.
    """
    if name == "32" or (name == "auto" and not _native_bf16(device.type)):
        return Precision(device, bf16=False)
    if bf16_works(str(device)):
        return Precision(device, bf16=True)
    if name == "bf16":
        raise ConfigError(f"training.precision: bf16 convolutions give wrong numbers on {device}; use 32")
    logger.warning("bfloat16 convolutions give wrong numbers on %s; float32 is used", device)
    return Precision(device, bf16=False)


def calibrated_precision(name: Literal["bf16", "32"], device: torch.device) -> Precision:
    """The precision that a model's scores were calibrated in, for scoring on a device that may be another one.

    Where bfloat16 gives wrong numbers scores are in float32, and a warning says that the calibration is not. Where it
    is right but slow, it is used: p-values are of the precision that they were counted in.
    """
    if name == "bf16" and not bf16_works(str(device)):
        logger.warning(
            "the calibration is of scores in bfloat16, which gives wrong numbers on %s; scores are in float32 here, "
            "and p-values and findings may differ a little",
            device,
        )
        return Precision(device, bf16=False)
    return Precision(device, bf16=name == "bf16")


@functools.lru_cache(maxsize=8)
def bf16_works(device: str) -> bool:
    """Whether a 3D convolution in bfloat16 agrees with float32 to 2 % of its standard deviation."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 16, 8, 8, 8), generator=generator).to(device, memory_format=torch.channels_last_3d)
    weight = torch.randn((16, 16, 3, 3, 3), generator=generator).to(device) / 20
    exact = functional.conv3d(x, weight, padding=1)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        rounded = functional.conv3d(x, weight, padding=1)
    error = (rounded.float() - exact).square().mean().sqrt() / exact.std()
    return bool(torch.isfinite(error)) and float(error) < 0.02


def _native_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if kind != "cpu":
        return False
    # Private in torch 2.8 to 2.13; without them float32 is the safe answer.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(check is not None and check() for check in checks)
