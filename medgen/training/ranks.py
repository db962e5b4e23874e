"""The processes of one training: started by ``torchrun``, by ``srun``, or just this one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medgen.errors import ConfigError
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

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean of each number over all processes, which have the same names; all must ask."""
        if self.count == 1 or not values:
            return dict(values)
        own = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        mean = torch.as_tensor(self.fabric.all_reduce(own, reduce_op="mean"))
        return dict(zip(values, mean.tolist(), strict=True))

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


@dataclass(frozen=True)
class Started:
    """How this process was started, as its environment says; known before anything is connected.

    Attributes:
        by: ``torchrun``, ``srun``, or empty for a process that is alone.
        rank: Its number, from 0.
        count: Number of processes.
        local_rank: Its number among those of its machine, by which it takes a GPU.
        local_count: Number of processes of its machine.
    """

    by: str = ""
    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Started:
        """What an environment says. A job script of SLURM that was not started by ``srun`` is one process alone.

        >>> Started.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}).local_rank
        1
        >>> Started.of({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}).count
        1
        """
        if "WORLD_SIZE" in environment:
            count = int(environment["WORLD_SIZE"])
            own = [int(environment.get(name, "0")) for name in ("RANK", "LOCAL_RANK")]
            return cls("torchrun", own[0], count, own[1], int(environment.get("LOCAL_WORLD_SIZE", str(count))))
        # SLURM_NTASKS is there in the job script, too, which is no task of its own.
        count = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
        if count == 1:
            return cls()
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
        if count % nodes:
            raise ConfigError(
                f"srun has started {count} processes on {nodes} machines; expected as many on each; set "
                "--ntasks-per-node"
            )
        own = [int(environment[name]) for name in ("SLURM_PROCID", "SLURM_LOCALID")]
        return cls("srun", own[0], count, own[1], count // nodes)


def started() -> Started:
    """How this process was started.

    Raises:
        ConfigError: If ``srun`` has started more processes on one machine than on another.
    """
    return Started.of(os.environ)


def rank_of() -> int:
    """Number of this process under ``torchrun`` or ``srun``, 0 otherwise; known before anything is connected."""
    return started().rank


def connect(precision: Precision) -> Ranks:
    """Join the process group that ``torchrun`` or ``srun`` announces in the environment, or stay alone.

    Raises:
        ConfigError: As :func:`started`.
    """
    # More than a second to import, which only a training needs.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    own = started()
    # Fabric tells every training which seed and precision it uses; the caller has chosen them.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = precision.device.type
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning_fabric")
        if own.count == 1:
            devices = 1 if precision.device.index is None else [precision.device.index]
            # Named, since Fabric would take a job script for one of several processes.
            alone = LightningEnvironment()
            fabric = Fabric(accelerator=kind, devices=devices, precision=precision.fabric, plugins=[alone])
        else:
            # A job that SLURM ends is not put in its queue again: the next start goes on with --resume.
            by = TorchElasticEnvironment() if own.by == "torchrun" else SLURMEnvironment(auto_requeue=False)
            fabric = Fabric(
                accelerator=kind,
                devices=own.local_count,
                num_nodes=own.count // own.local_count,
                strategy="ddp",
                precision=precision.fabric,
                plugins=[by],
            )
        fabric.launch()
    count = own.count
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
