"""A network over a whole volume in one pass against MONAI's sliding window with the same network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from medgen.models.networks.unet import UNet

from ..contest import Contender, Contest, Demand, Entry, Growth, Rows, Settings, Work

_WIDTHS, _DEPTH = (16, 32, 64), 2
_SHAPE, _FEW = (96, 112, 96), (48, 48, 48)
# Overlaps of MONAI's tutorials: a quarter by default, a half for segmentation. Not their window of 64: sides that are
# powers of two can cost oneDNN four times as much per voxel, which is no fault of theirs.
_WINDOW, _SMALL_WINDOW, _OVERLAPS = 72, 40, (0.25, 0.5)
_SIDES, _FEW_SIDES = (32, 48, 64, 96, 128), (16, 32)
_GOAL = 1.5


def entries(settings: Settings) -> Iterator[Entry]:
    """One volume, then growth with its voxels; float32, batch 1, as scans are scored on a CPU."""
    from monai.inferers.utils import sliding_window_inference

    shape, window = (_FEW, _SMALL_WINDOW) if settings.quick else (_SHAPE, _WINDOW)
    network, volume = _network(settings), _volume(shape, settings)

    def slid(overlap: float) -> Tensor:
        with torch.inference_mode():
            made = sliding_window_inference(volume, (window,) * 3, 1, network, overlap=overlap, mode="gaussian")
        assert isinstance(made, Tensor)
        return made

    peers = {f"MONAI sliding window, overlap {overlap:g}": partial(slid, overlap) for overlap in _OVERLAPS}
    whole = partial(_whole, network, volume)
    yield Contest(
        "a volume by one network",
        (Contender("medgen", whole), *(Contender(name, work, goal=_GOAL) for name, work in peers.items())),
        demand=_demand(network, shape),
        equal=partial(_equal, network, shape, {"medgen": whole, **peers}),
        notes=(
            f"A U-Net with a norm per voxel over {' x '.join(map(str, shape))} voxels. medgen passes the whole volume, "
            f"the window has side {window} and Gaussian weights. The difference is the mean "
            "over voxels in units of the mean size of the output.",
        ),
    )
    sides = _FEW_SIDES if settings.quick else _SIDES
    amounts = tuple(float(side**3) for side in sides)
    yield Growth("a volume by one network", "voxels", amounts, partial(_cube, settings))


def _network(settings: Settings) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(1, _WIDTHS, _DEPTH, 1)
        for parameter in network.parameters():
            # Blocks begin as the identity, which sees no neighbours: a trained network does.
            if parameter.dim() > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return network.eval().to(settings.device)


def _volume(shape: tuple[int, ...], settings: Settings) -> Tensor:
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0)).to(settings.device)


def _whole(network: UNet, volume: Tensor) -> Tensor:
    with torch.inference_mode():
        made: Tensor = network(volume)
    return made


def _cube(settings: Settings, voxels: float) -> Work:
    side = round(voxels ** (1 / 3))
    return partial(_whole, _network(settings), _volume((side,) * 3, settings))


def _demand(network: UNet, shape: tuple[int, ...]) -> Demand:
    """Every convolution and product once at its resolution."""
    sizes: list[float] = []

    def count(layer: torch.nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        sizes.append(2.0 * math.prod(made.shape) * weight[0].numel())

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv3d | torch.nn.Linear)
    ]
    _whole(network, torch.zeros((1, 1, *shape), device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()

    return Demand(
        sum(sizes), 2 * 4.0 * math.prod(shape), "convolutions and products of one pass; the volume in and out"
    )


def _equal(network: UNet, shape: tuple[int, ...], works: dict[str, Callable[[], Tensor]]) -> Rows:
    reference = works["medgen"]()
    size = float(reference.abs().mean())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "parameters": dict.fromkeys(works, parameters),
        "voxels": dict.fromkeys(works, math.prod(shape)),
        "difference to one pass": {
            name: float((work() - reference).abs().mean()) / size for name, work in works.items()
        },
    }
