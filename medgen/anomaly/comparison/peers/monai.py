"""MONAI's autoencoders (Cardoso et al., 2022): what they cannot rebuild is the score.

They are trained as in MONAI's tutorials, shortened to the steps that medgen's own models get.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.anomaly.comparison.peers.base import Fitted, PeerSettings, left_out
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive

NAMES = ("monai-vae", "monai-akl")
_DOWN = 8


def missing(name: str) -> str | None:
    """Why an autoencoder cannot be run here, in a sentence; None if it can."""
    # MONAI itself is a dependency; the attention of its AutoencoderKL needs einops, which it does not bring.
    try:
        importlib.import_module("einops" if name == "monai-akl" else "monai")
    except ImportError as error:
        return left_out(name, error)
    return None


@dataclass(frozen=True, eq=False)
class _Residual:
    """|x − x̂| of an autoencoder, mean over channels, inside the foreground."""

    reconstruct: Callable[[Tensor], Tensor]

    def __call__(self, image: Tensor, foreground: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            x = (image * foreground)[None].float()
            i, j, k = x.shape[2:]
            rebuilt = self.reconstruct(_padded(x))[..., :i, :j, :k]
            residual = (x - rebuilt).abs().mean(dim=1)[0] * foreground[0]
        return np.asarray(residual.numpy(), dtype=np.float32)


def fit(name: str, development: Dataset, settings: PeerSettings, seed: int) -> Fitted:
    """Train one of the autoencoders on the development scans, on CPU.

    ``monai-vae``: ``VarAutoEncoder``, squared error and KL divergence per voxel, as in the tutorial on variational
    autoencoders, without its sigmoid since intensities here are not in [0, 1]. ``monai-akl``: ``AutoencoderKL`` with
    the widths of the 3D latent diffusion tutorial, absolute error and 10⁻⁶ KL; its perceptual term (which downloads a
    network) is left out, and its adversarial term starts after a warm-up that is longer than the training here.
    """
    x = _padded((development.images * development.foregrounds).float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "peers", name))
        network, loss, reconstruct = (_vae if name == "monai-vae" else _akl)(x)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
        network.train()
        start, done = time.monotonic(), 0
        while done < settings.steps and (done == 0 or time.monotonic() - start < settings.seconds):
            batch = x[torch.randint(len(x), (settings.batch_size,))]
            optimiser.zero_grad()
            value = loss(batch)
            value.backward()
            optimiser.step()
            done += 1
    network.eval()
    words = (
        f"{done} of {settings.steps} steps of {settings.batch_size} scans in {time.monotonic() - start:.0f} s, "
        f"Adam, lr {settings.lr:g}"
    )
    return Fitted(name, _Residual(reconstruct), words)


_Trainable = tuple[torch.nn.Module, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def _vae(x: Tensor) -> _Trainable:
    from monai.networks.nets import VarAutoEncoder

    network = VarAutoEncoder(
        spatial_dims=3,
        in_shape=tuple(x.shape[1:]),
        out_channels=x.shape[1],
        latent_size=32,
        channels=(16, 32, 64),
        strides=(2, 2, 2),
        use_sigmoid=False,
    )

    def loss(batch: Tensor) -> Tensor:
        rebuilt, mean, logvar, _ = network(batch)
        divergence = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum()
        return functional.mse_loss(rebuilt, batch) + divergence / batch.numel()

    return network, loss, lambda batch: network.decode_forward(network.encode_forward(batch)[0], use_sigmoid=False)


def _akl(x: Tensor) -> _Trainable:
    from monai.networks.nets import AutoencoderKL

    network = AutoencoderKL(
        spatial_dims=3,
        in_channels=x.shape[1],
        out_channels=x.shape[1],
        channels=(32, 64, 64),
        latent_channels=3,
        num_res_blocks=1,
        norm_num_groups=16,
        attention_levels=(False, False, True),
    )

    def loss(batch: Tensor) -> Tensor:
        rebuilt, mean, sigma = network(batch)
        divergence = 0.5 * (mean.square() + sigma.square() - sigma.square().log() - 1).sum(dim=(1, 2, 3, 4)).mean()
        return functional.l1_loss(rebuilt, batch) + 1e-6 * divergence

    return network, loss, network.reconstruct


def _padded(x: Tensor) -> Tensor:
    """Zeros at the upper ends, up to multiples of 8: the networks halve the grid three times at most."""
    extra = [-size % _DOWN for size in x.shape[2:]]
    return functional.pad(x, [value for more in reversed(extra) for value in (0, more)])
