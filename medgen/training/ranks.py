"""The processes of one training: started by ``torchrun`` or just this one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medgen.system.precision import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Ranks:
    """Lightning Fabric's processes and precision, as the training loop uses them.

    Attributes:
        fabric: Launched.
        device: This process's device.
        rank: This process's number, from 0.
        count: Number of processes.
    """

    fabric: Fabric
    device: torch.device
    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this process writes, logs and shows progress."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """Context manager in which forward passes compute in the training's precision."""
        return self.fabric.autocast()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; all must ask."""
        if self.count == 1:
            return flag
        total = self.fabric.all_reduce(torch.tensor(float(flag), device=self.device), reduce_op="sum")
        return bool(torch.as_tensor(total).item() > 0)

    def agree(self, value: float) -> float:
        """The first process's value, so that all take the same decision."""
        return value if self.count == 1 else float(self.fabric.broadcast(value))

    def average_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Mean of each buffer over all processes, in place."""
        if self.count > 1:
            for buffer in buffers:
                buffer.copy_(torch.as_tensor(self.fabric.all_reduce(buffer, reduce_op="mean")))

    def share_weights(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.count == 1:
            return
        state = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.fabric.broadcast(state))


def rank_of() -> int:
    """Number of this process under ``torchrun``, 0 otherwise; known before anything is connected."""
    return int(os.environ.get("RANK", "0"))


def connect(precision: Precision) -> Ranks:
    """Join the process group that ``torchrun`` announces in the environment, or stay alone."""
    # More than a second to import, which only a training needs.
    from lightning_fabric import Fabric

    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(count)))
    # Fabric tells every training which seed and precision it uses; the caller has chosen them.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = precision.device.type
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning_fabric")
        if count == 1:
            devices = 1 if precision.device.index is None else [precision.device.index]
            fabric = Fabric(accelerator=kind, devices=devices, precision=precision.fabric)
        else:
            fabric = Fabric(
                accelerator=kind,
                devices=local,
                num_nodes=count // local,
                strategy="ddp",
                precision=precision.fabric,
            )
        fabric.launch()
    return Ranks(fabric, fabric.device if count > 1 else precision.device, fabric.global_rank, fabric.world_size)


def average_gradients(ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
    """Mean of the gradients over all processes, in place, in one message.

    Done by hand, not by DistributedDataParallel: its hooks expect one backward pass over all parameters, while each
    phase here passes through some of them only.
    """
    if ranks.count == 1:
        return
    gradients: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    mean = torch.as_tensor(ranks.fabric.all_reduce(flat, reduce_op="mean"))
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
