"""A step of the VAE-GAN against the loop of MONAI's tutorials: its autoencoder, its discriminator, its loss."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from medgen.preprocessing.dataset import Dataset
from medgen.system.precision import Precision

from .. import training_steps as steps
from ..contest import Contender, Contest, Entry, Rows, Settings
from ..peers import absent
from .train_step import akl_loss, akl_network, akl_quality

# 5.11 M parameters with the discriminator, the shipped widths and a level below them; MONAI's two networks have 5.07 M.
MODEL = {"family": "vaegan", "widths": (32, 64, 128, 160), "latent": 64, "discriminator_widths": (32, 64, 128, 192)}
_TRAINING = {"lr": 5e-4, "betas": (0.5, 0.99)}
_GOAL = 10.0
_PEER = "MONAI AutoencoderKL + PatchDiscriminator"
_STEPS, _FEW = 12, 2
# Weight of the adversarial term in the tutorial.
_ADVERSARIAL = 0.01


def entries(settings: Settings) -> Iterator[Entry]:
    """Each precision."""
    train, test = steps.scans(settings)
    gone = absent("einops", _PEER)
    for precision in steps.precisions(settings):
        loop, peer = steps.own_loop(train, precision, MODEL, _TRAINING), gan_loop(train, precision)
        own, voxels = sum(weights.numel() for weights in loop.model.parameters()), math.prod(train.shape)

        def equal(precision: Precision = precision, own: int = own, other: int = peer.parameters) -> Rows:
            return _equal(settings, precision, train, test, own, other)

        yield Contest(
            f"VAE-GAN training step, {'bf16' if precision.bf16 else 'float32'}",
            (Contender("medgen", loop.update), *([] if gone else [Contender(_PEER, peer.step, _GOAL)])),
            demand=steps.demand_of(loop.update, own, voxels, precision),
            equal=dict if gone else equal,
            without=gone,
            notes=(
                "A step updates generator and discriminator once each, in both. MONAI's loop is that of its tutorial on"
                " 3D latent diffusion without the perceptual term: least-squares adversarial loss of weight 0.01, "
                "discriminator with 32 channels and three layers. PSNR is of held-out scans: it shows that the "
                "adversarial term has not spoilt what is rebuilt, not that samples are sharp (see families.md).",
            ),
        )


def gan_loop(data: Dataset, precision: Precision) -> steps.PeerLoop:
    """The tutorial's adversarial training of the autoencoder."""
    from monai.losses import PatchAdversarialLoss
    from monai.networks.nets import PatchDiscriminator

    channels = data.images.shape[1]
    generator = akl_network(channels).to(precision.device)
    critic = PatchDiscriminator(spatial_dims=3, num_layers_d=3, channels=32, in_channels=channels, out_channels=1)
    critic = critic.to(precision.device).train()
    adversarial = PatchAdversarialLoss(criterion="least_squares")
    first = torch.optim.Adam(generator.parameters(), lr=1e-4)
    second = torch.optim.Adam(critic.parameters(), lr=5e-4)

    def update(image: Tensor, _: Tensor | None) -> None:
        first.zero_grad(set_to_none=True)
        with precision.autocast():
            loss, rebuilt = akl_loss(generator, image)
            judged = critic(rebuilt.contiguous().float())[-1]
            loss = loss + _ADVERSARIAL * adversarial(judged, target_is_real=True, for_discriminator=False)
        loss.backward()
        first.step()
        second.zero_grad(set_to_none=True)
        with precision.autocast():
            made = critic(rebuilt.contiguous().detach())[-1]
            real = critic(image.contiguous().detach())[-1]
            both = adversarial(made, target_is_real=False, for_discriminator=True) + adversarial(
                real, target_is_real=True, for_discriminator=True
            )
        (_ADVERSARIAL * 0.5 * both).backward()
        second.step()

    return steps.PeerLoop((generator, critic), update, precision, data.images)


def _equal(settings: Settings, precision: Precision, train: Dataset, test: Dataset, own: int, other: int) -> Rows:
    same = steps.sizes(precision, train, own, _PEER, other)
    if precision != steps.precisions(settings)[-1]:
        # Once is enough, see train_step.
        return same
    count = _FEW if settings.quick else _STEPS
    loop, peer = steps.own_loop(train, precision, MODEL, _TRAINING), gan_loop(train, precision)
    for _ in range(count):
        loop.update()
        peer.step()
    averages = list(zip(loop.live, loop.average, strict=True))
    return {
        **same,
        f"PSNR after {count} steps, dB": {
            "medgen": steps.own_quality(loop.model, averages, test, precision),
            _PEER: akl_quality(peer, test, precision),
        },
    }
