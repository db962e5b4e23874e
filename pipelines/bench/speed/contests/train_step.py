"""A training step of the VAE against MONAI's ``AutoencoderKL`` at equal parameters, and what equal steps lead to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from medgen.preprocessing.dataset import Dataset
from medgen.system.precision import Precision

from .. import training_steps as steps
from ..clock import now
from ..contest import Contender, Contest, Entry, Growth, Rows, Settings, Work
from ..peers import absent

# 2.291 M parameters, the shipped widths and two levels below them; MONAI's tutorial network has 2.299 M.
MODEL = {"family": "vae", "widths": (32, 64, 96, 128), "latent": 24, "codes": ((4, 16),)}
_TRAINING = {"lr": 1e-3}
_GOAL = 17.0
_PEER = "MONAI AutoencoderKL"
# Steps after which quality is compared.
_STEPS, _FEW = 20, 3
_SIDES, _FEW_SIDES = (32, 48, 64, 96, 128, 160), (16, 32)


def entries(settings: Settings) -> Iterator[Entry]:
    """Each precision against MONAI; then how a step grows with the number of voxels."""
    train, test = steps.scans(settings)
    for precision in steps.precisions(settings):
        yield _contest(settings, precision, train, test)
    yield Growth(
        "VAE training step",
        "voxels",
        tuple(float(side**3) for side in (_FEW_SIDES if settings.quick else _SIDES)),
        partial(_cube, steps.precisions(settings)[-1]),
        notes=("The network of the contest with scans of noise, one in a batch, side 32 to 160.",),
    )


def _contest(settings: Settings, precision: Precision, train: Dataset, test: Dataset) -> Contest:
    loop = steps.own_loop(train, precision, MODEL, _TRAINING)
    peer = akl_loop(train, precision)
    # Its attention needs einops, which MONAI does not bring.
    gone = absent("einops", _PEER)
    voxels = math.prod(train.shape)
    own = sum(weights.numel() for weights in loop.model.parameters())
    return Contest(
        f"VAE training step, {'bf16' if precision.bf16 else 'float32'}",
        (Contender("medgen", loop.update), *([] if gone else [Contender(_PEER, peer.step, _GOAL)])),
        demand=steps.demand_of(loop.update, own, voxels, precision),
        equal=dict if gone else partial(_equal, settings, precision, train, test, own, peer.parameters),
        without=gone,
        notes=(
            "medgen's step is that of its training loop, without augmentation: clipping, AdamW, averaging of weights. "
            "MONAI's is that of its tutorials without the perceptual term: absolute error, KL divergence, Adam. "
            "PSNR is of eight held-out simulated heads, in the foreground. medgen's VAE starts from the linear model "
            "of its training scans; the time for that counts.",
        ),
    )


def _equal(settings: Settings, precision: Precision, train: Dataset, test: Dataset, own: int, other: int) -> Rows:
    same = steps.sizes(precision, train, own, _PEER, other)
    if precision != steps.precisions(settings)[-1]:
        # Once is enough: what is learnt differs between number formats by less than between seeds.
        return same
    count = _FEW if settings.quick else _STEPS
    start = now(precision.device)
    loop = steps.own_loop(train, precision, MODEL, _TRAINING)
    for _ in range(count):
        loop.update()
    own_seconds = now(precision.device) - start
    averages = list(zip(loop.live, loop.average, strict=True))
    own_after = steps.own_quality(loop.model, averages, test, precision)
    peer = akl_loop(train, precision)
    start = now(precision.device)
    early, looked = float("nan"), 0.0
    for _ in range(count):
        peer.step()
        # Once, after the step in which it has had the same time.
        if math.isnan(early) and now(precision.device) - start >= own_seconds:
            before = now(precision.device)
            early = akl_quality(peer, test, precision)
            looked += now(precision.device) - before
    peer_seconds = now(precision.device) - start - looked
    peer_after = akl_quality(peer, test, precision)
    steps.for_seconds(loop.update, peer_seconds - own_seconds, precision.device)
    own_late = steps.own_quality(loop.model, averages, test, precision)
    return {
        **same,
        f"PSNR after {count} steps, dB": {"medgen": own_after, _PEER: peer_after},
        f"PSNR after {own_seconds:.0f} s, dB": {"medgen": own_after, _PEER: early},
        f"PSNR after {peer_seconds:.0f} s, dB": {"medgen": own_late, _PEER: peer_after},
    }


def akl_network(channels: int) -> torch.nn.Module:
    """MONAI's autoencoder with the widths of its tutorial on 3D latent diffusion."""
    from monai.networks.nets import AutoencoderKL

    torch.manual_seed(0)
    network: torch.nn.Module = AutoencoderKL(
        spatial_dims=3,
        in_channels=channels,
        out_channels=channels,
        channels=(32, 64, 64),
        latent_channels=3,
        num_res_blocks=1,
        norm_num_groups=16,
        attention_levels=(False, False, True),
    )
    return network.train()


def akl_loss(network: torch.nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute error and 10⁻⁶ KL divergence, as in the tutorial; and what was rebuilt."""
    rebuilt, mean, sigma = network(image)
    divergence = 0.5 * (mean.square() + sigma.square() - sigma.square().log() - 1).sum(dim=(1, 2, 3, 4)).mean()
    return functional.l1_loss(rebuilt.float(), image) + 1e-6 * divergence, rebuilt


def akl_loop(data: Dataset, precision: Precision) -> steps.PeerLoop:
    """The tutorial's training of the autoencoder."""
    network = akl_network(data.images.shape[1]).to(precision.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def update(image: Tensor, _: Tensor | None) -> None:
        optimiser.zero_grad(set_to_none=True)
        with precision.autocast():
            loss, _rebuilt = akl_loss(network, image)
        loss.backward()
        optimiser.step()

    return steps.PeerLoop((network,), update, precision, data.images)


@torch.no_grad()
def akl_quality(loop: steps.PeerLoop, data: Dataset, precision: Precision) -> float:
    """PSNR of what MONAI's autoencoder rebuilds of held-out scans, from the mean of its code."""
    network = loop.networks[0].eval()
    rebuild: Callable[[Tensor], Tensor] = network.reconstruct  # type: ignore[assignment]
    with precision.autocast():
        rebuilt = [rebuild(data.images[row : row + 1].to(precision.device)).float().cpu() for row in range(len(data))]
    network.train()
    return steps.peak_ratio(torch.cat(rebuilt), data)


def _cube(precision: Precision, voxels: float) -> Work:
    return steps.own_loop(steps.cube_of_noise(voxels), precision, MODEL, _TRAINING).update
