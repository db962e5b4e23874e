"""Numbers of a training that are not finite end it, with the names of the scans they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medgen.errors import TrainingError


@dataclass
class Watch:
    """Looks at loss and gradient of every step, several steps at once where a look makes a GPU wait.

    Attributes:
        what: Who trains, for messages.
        setting: Name of the learning rate in the configuration.
        pending: (step, its scans, loss, gradient) of the steps that nobody has looked at yet.
        last: Step and scans of the last step.
    """

    what: str
    setting: str
    pending: list[tuple[int, Sequence[str], Tensor, Tensor]] = field(default_factory=list)
    last: tuple[int, Sequence[str]] = (0, ())

    def add(self, step: int, names: Sequence[str], loss: Tensor, gradient: Tensor, look: bool) -> None:
        """Note a step, and look at all that are noted.

        Args:
            step: From 1.
            names: Ids of the scans of the step.
            loss: A scalar without gradient.
            gradient: Its norm, a scalar.
            look: Whether to look now.

        Raises:
            TrainingError: Naming the first step with a number that is not finite, and its scans.
        """
        self.last = step, names
        self.pending.append((step, names, loss, gradient))
        if not look:
            return
        sound = torch.stack([loss + gradient for _, _, loss, gradient in self.pending]).isfinite().tolist()
        if not all(sound):
            step, names, loss, gradient = self.pending[sound.index(False)]
            raise TrainingError(
                f"{self.what}'s loss is {float(loss)}, its gradient {float(gradient)}, at step {step} with the cases "
                f"{_listed(names)}; check their intensities, or lower {self.setting}"
            )
        self.pending.clear()

    def check_weights(self, network: nn.Module) -> None:
        """Look at what a training has led to.

        Raises:
            TrainingError: If a weight is not finite.
        """
        if not all(bool(tensor.isfinite().all()) for tensor in network.parameters()):
            step, names = self.last
            raise TrainingError(
                f"{self.what}'s weights are not finite after step {step} with the cases {_listed(names)}; "
                f"lower {self.setting}"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
