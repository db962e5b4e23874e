"""No training step makes the host wait for the device: run on ``meta``, where nothing can come back.

``meta`` tensors have no contents, so whatever asks for one (``.item()``, ``float(...)``, ``.cpu()``, ``nonzero``, a
branch) raises; ordinary copies to the device, and fields that are made on the CPU, are recorded.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medgen.models.base import ModelConfig, ScanModel
from medgen.models.catalogue import available, build, family_class
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.system.precision import Precision
from medgen.training.config import TrainingConfig
from medgen.training.loop import Loop
from medgen.training.ranks import connect
from medgen.transforms import augmentation
from medgen.transforms.augmentation_config import AugmentConfig

META = torch.device("meta")
SHAPE = (24, 24, 24)
# A CPU tensor of so many values in a step is a field that the device should have made.
LARGE = 24**3 // 2
# Everything that the augmentation can do, to every scan.
ALL = AugmentConfig(spatial=1.0, intensity=1.0, elastic=1.0, noise=0.1, blur=(0.5, 1.0), bias=0.2, flip=(0.5, 0.5, 0.5))


class Waits(TorchDispatchMode):
    """Records what a GPU would make the host wait for, with the line of medgen that does it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        results = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in (*given, *results)}
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_") and len(devices) > 1:
            blocking = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            if not blocking:
                self._note(f"a copy that is waited for ({name})")
        elif any(tensor.device.type == "cpu" and tensor.numel() >= LARGE for tensor in results):
            self._note(f"a field on the CPU ({name})")
        return made

    def _note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/medgen/" in frame.filename]
        self.found.append(f"{what}: {frames[-1].name if frames else 'test'}")


class Built(TorchFunctionMode):
    """Records tensors that are made of Python's numbers on the device: a copy that is waited for, below dispatch."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        numbers = not any(isinstance(given, Tensor) for given in args[int(func is Tensor.new_tensor) :])
        if numbers and func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and made.device.type == "meta":
            self.waits._note("a tensor made of numbers")
        return made


def loop(model: ScanModel, monkeypatch: pytest.MonkeyPatch, labels: int) -> Loop:
    """A training on the device that has no memory."""
    monkeypatch.setattr(_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cuda", "meta"])
    # Not by its dotted name: torch.optim hides the module.
    optimisers = sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(optimisers, "_get_fused_kernels_supported_devices", lambda: ["cuda", "meta"])
    # There is no generator of numbers without contents.
    monkeypatch.setattr(augmentation, "generator_on", lambda generator, device: None)
    names = tuple("abcd")
    shape = (4, 1, *SHAPE)
    data = Dataset(
        names,
        names,
        torch.empty(shape, device=META),
        torch.empty(shape, dtype=torch.bool, device=META),
        torch.empty(shape, dtype=torch.uint8, device=META) if labels else None,
    )
    precision = Precision(META, bf16=False)
    return Loop(
        model.to(META).train(),
        data,
        None,
        TrainingConfig(steps=2, batch_size=2, precision="32", augment=ALL),
        0,
        replace(connect(Precision(torch.device("cpu"), bf16=False)), device=META),
        precision,
        None,
        None,
    )


def waits(model: ScanModel, monkeypatch: pytest.MonkeyPatch, labels: int = 0) -> list[str]:
    """What one step of every stage of a training waits for."""
    training = loop(model, monkeypatch, labels)
    with Waits() as mode, Built(mode):
        try:
            for place in range(len(training.stages)):
                # What happens between two stages happens once, and may wait.
                training._enter(place)
                training.start = training.step
                training.average = [tensor.detach().clone() for tensor in training.live]
                training.update()
        except (RuntimeError, NotImplementedError) as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/medgen/" in frame.filename]
            return [*mode.found, f"{error}: {frames[-1].name}"]
    return mode.found


def tiny(family: str) -> ScanModel:
    return build({"family": family, "shape": SHAPE, "in_channels": 1, **family_class(family).tiny}, seed=0)


# Adaptive augmentation asks how likely it is to augment, once for each look at the discriminator.
KNOWN = {"spade": ["Tensor.item() cannot be called on meta tensors: forward"]}


@pytest.mark.parametrize("family", available())
def test_a_step_never_waits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(family)
    assert waits(model, monkeypatch, getattr(model.settings, "n_labels", 0)) == KNOWN.get(family, [])


def asks(image: Tensor) -> Tensor:
    return image * float(image.mean())


def branches(image: Tensor) -> Tensor:
    return -image if bool(image.mean() > 0) else image


def fetches(image: Tensor) -> Tensor:
    return image.cpu().to(image.device)


def picks(image: Tensor) -> Tensor:
    return image[image > 0]


def sends(image: Tensor) -> Tensor:
    return image * torch.tensor([2.0]).to(image.device)


def builds(image: Tensor) -> Tensor:
    return image * torch.tensor([2.0], device=image.device)


def draws(image: Tensor) -> Tensor:
    return image + torch.randn(image.shape).to(image.device, non_blocking=True)


@pytest.mark.parametrize("mistake", [asks, branches, fetches, picks, sends, builds, draws])
def test_every_way_to_wait_is_noticed(mistake: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    class Mistaken(ScanModel):
        family = "mistaken"

        def __init__(self) -> None:
            super().__init__(ModelConfig(family="mistaken", shape=SHAPE))
            self.weight = nn.Parameter(torch.ones(()))

        def phases(self) -> dict[str, list[nn.Parameter]]:
            return {"all": [self.weight]}

        def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
            return {"loss": self.weight * mistake(batch.image).mean()}

    assert waits(Mistaken(), monkeypatch)
