"""Numbers of a training that are not finite end it, with the names of the scans they came from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medgen.errors import TrainingError


@dataclass
class FiniteWatch:
    """Looks at the numbers of every step, such as loss and gradient, without making a GPU wait.

    Attributes:
        setting: Name of the learning rate in the configuration.
        whose: Who trains, for messages: nothing, or a possessive and a space.
        pending: (step from 1, ids of its scans, its numbers) of the steps that were not taken yet.
        last: Step and scans of the last step.
    """

    setting: str
    whose: str = ""
    pending: list[tuple[int, Sequence[str], Mapping[str, Tensor]]] = field(default_factory=list)
    last: tuple[int, Sequence[str]] = (0, ())
    _flag: tuple[torch.cuda.Event, Tensor] | None = None

    def add(self, step: int, names: Sequence[str], numbers: Mapping[str, Tensor]) -> None:
        """Note a step, and look whether its numbers are finite.

        On a CPU they are read at once. A GPU copies one flag per step while it goes on, and the flag of a step is read
        after the next one has been handed over: at most one further step is done in vain.

        Args:
            step: From 1.
            names: Ids of the scans of the step.
            numbers: Scalars without gradient.

        Raises:
            TrainingError: As :meth:`take`.
        """
        self.last = step, names
        self.pending.append((step, names, numbers))
        finite = torch.stack([n.float() for n in numbers.values()]).isfinite().all()
        if finite.device.type == "cpu":
            if not finite:
                self.take()
            return
        if self._flag is not None:
            done, finite_before = self._flag
            done.synchronize()
            if not finite_before:
                self.take()
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(finite, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(finite.device))
        self._flag = (copied, flag)

    def take(self) -> dict[str, list[float]]:
        """The numbers of the steps since the last call, brought to the CPU all at once; a list for each name.

        Raises:
            TrainingError: Naming the first step with a number that is not finite, and its scans.
        """
        taken: dict[str, list[float]] = {}
        for step, names, numbers in self.pending:
            for name, value in zip(numbers, torch.stack([n.float() for n in numbers.values()]).tolist(), strict=True):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{self.whose}{name} is {value} at step {step} with the cases {listed(names)}; "
                        f"check their intensities, or lower {self.setting}"
                    )
                taken.setdefault(name, []).append(value)
        self.pending.clear()
        return taken

    def check_weights(self, weights: Iterable[Tensor]) -> None:
        """Look at what a training has led to.

        Raises:
            TrainingError: If a weight is not finite.
        """
        if not all_finite(weights):
            step, names = self.last
            raise TrainingError(
                f"{self.whose}weights are not finite after step {step} with the cases {listed(names)}; "
                f"lower {self.setting}"
            )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of the floating-point tensors is finite."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]).all())


def listed(names: Sequence[str]) -> str:
    """Ids of scans for a message, each once."""
    return ", ".join(dict.fromkeys(names))
