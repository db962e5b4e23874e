"""Peers: what other libraries offer for the task, fitted on the same scans and asked for maps of the same test scans.

PyOD works on tables. A masked scan as one row has a hundred times more columns than there are scans, so, as its users
do, every voxel is a row of a few features and detectors are fitted on a sample of voxels. MONAI's autoencoders are
trained as in its tutorials, shortened to the steps that medgen's own models get; what they cannot rebuild is the score.
PyOD and einops are the optional extra ``peers``.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from medgen.config import Config
from medgen.errors import ConfigError
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive, numpy_rng
from medgen.transforms.masked_smoothing import smooth

# Sigma in voxels of the local mean among the features of a voxel.
_LOCAL = 2.0
# Voxels per call of a detector: some build a table of all pairs of features and training voxels.
_ROWS = 50_000
_DOWN = 8

# Name → module and class in PyOD, and settings that differ from its defaults. A mixture of one Gaussian, the default,
# would be a plain Mahalanobis distance.
PYOD: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "pyod-pca": ("pyod.models.pca", "PCA", {}),
    "pyod-knn": ("pyod.models.knn", "KNN", {}),
    "pyod-gmm": ("pyod.models.gmm", "GMM", {"n_components": 8}),
    "pyod-ecod": ("pyod.models.ecod", "ECOD", {}),
}
MONAI = ("monai-vae", "monai-akl")
NAMES = (*PYOD, *MONAI)


class PeerSettings(Config):
    """How much data, time and training other libraries' detectors (the peers) get.

    Attributes:
        voxels: Rows that PyOD detectors are fitted on.
        steps: Training steps of MONAI's autoencoders.
        seconds: Wall time after which their training stops, whatever the steps.
        batch_size: Scans per step.
        lr: Learning rate of Adam.
    """

    voxels: int = Field(default=200_000, ge=100)
    steps: int = Field(default=100, ge=1)
    seconds: float = Field(default=120.0, gt=0)
    batch_size: int = Field(default=2, ge=1)
    lr: float = Field(default=1e-3, gt=0)


class Peer(Protocol):
    """A fitted detector of another library: a function from a scan to a map of how unusual each voxel is."""

    def __call__(self, image: Tensor, foreground: Tensor) -> NDArray[np.float32]:
        """Map (i, j, k) of one scan (c, i, j, k) with its foreground (1, i, j, k); higher is more anomalous."""
        ...


@dataclass(frozen=True, eq=False)
class Fitted:
    """A detector of another library, fitted and with its name in tables.

    Attributes:
        name: Row name without its form.
        peer: The scorer.
        words: How it was fitted, for the table's notes.
    """

    name: str
    peer: Peer
    words: str


def missing(name: str) -> str | None:
    """Why a peer cannot be run here, in a sentence; None if it can.

    Raises:
        ConfigError: If there is no such peer.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown peer {name!r}; known peers: {', '.join(NAMES)}")
    # MONAI itself is a dependency; the attention of its AutoencoderKL needs einops, which it does not bring.
    needed = PYOD[name][0] if name in PYOD else "einops" if name == "monai-akl" else "monai"
    try:
        importlib.import_module(needed)
    except ImportError as error:
        return f"{name} is left out: {error}; install the extra: pip install 'medgen[peers]'"
    return None


def features(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Per voxel of the mask: intensities, local means (Gaussian inside the mask, sigma 2), and its place.

    Args:
        image: (c, i, j, k).
        mask: (i, j, k) boolean with v voxels.

    Returns:
        (v, 2 c + 3); the place is the voxel's index along each axis of the model grid.
    """
    columns = [channel[mask] for channel in image]
    columns += [smooth(channel, mask, _LOCAL)[mask] for channel in image]
    columns += list(np.nonzero(mask))
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Table:
    """A PyOD detector on standardised voxel features."""

    detector: Any
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    def __call__(self, image: Tensor, foreground: Tensor) -> NDArray[np.float32]:
        mask = foreground[0].cpu().numpy().astype(bool)
        rows = (features(image.cpu().numpy(), mask) - self.mean) / self.sd
        parts = np.array_split(rows, max(1, -(-len(rows) // _ROWS)))
        result = np.zeros(mask.shape, dtype=np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result[mask] = np.concatenate([self.detector.decision_function(part) for part in parts])
        return result


def fit_pyod(name: str, development: Dataset, settings: PeerSettings, seed: int) -> Fitted:
    """Fit a PyOD detector (Zhao et al., JMLR 2019) on voxels sampled evenly from all development scans.

    Raises:
        ImportError: If PyOD is not installed; see :func:`missing`.
    """
    module, kind, own = PYOD[name]
    each = max(1, settings.voxels // len(development))
    parts = []
    for case, image, foreground in zip(development.ids, development.images, development.foregrounds, strict=True):
        rows = features(image.cpu().numpy(), foreground[0].cpu().numpy().astype(bool))
        parts.append(rows[numpy_rng(seed, "peers", case).permutation(len(rows))[:each]])
    table = np.concatenate(parts)
    mean, sd = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-6)
    detector = getattr(importlib.import_module(module), kind)(**own)
    # Third-party code; what it warns of is not for the user of this library.
    with warnings.catch_warnings(), _numpy_seed(derive(seed, "peers", name)):
        warnings.simplefilter("ignore")
        detector.fit((table - mean) / sd)
    given = ", ".join(f"{key}={value}" for key, value in own.items())
    words = f"{len(table)} voxels of {len(development)} scans, {table.shape[1]} features, {given or 'defaults'}"
    return Fitted(name, _Table(detector, mean, sd), words)


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


def fit_monai(name: str, development: Dataset, settings: PeerSettings, seed: int) -> Fitted:
    """Train one of MONAI's autoencoders (Cardoso et al., 2022) on the development scans, on CPU.

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


def fit(name: str, development: Dataset, settings: PeerSettings, seed: int) -> Fitted:
    """Fit a peer on prepared development scans.

    Raises:
        ConfigError: If there is no such peer, or its library is not installed.
    """
    reason = missing(name)
    if reason is not None:
        raise ConfigError(reason)
    return (fit_monai if name in MONAI else fit_pyod)(name, development, settings, seed)


def score(
    fitted: Fitted, image: Tensor, foreground: Tensor, region: NDArray[np.bool_], smoothing: float
) -> NDArray[np.float32]:
    """The peer's map of one test scan (c, i, j, k), smoothed inside the region as all raw scores are; (i, j, k)."""
    return smooth(fitted.peer(image, foreground), region, smoothing)


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


class _numpy_seed:
    """NumPy's global generator seeded inside and as before outside: some detectors draw from it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed % (1 << 32)

    def __enter__(self) -> None:
        self._before = np.random.get_state()  # noqa: NPY002
        np.random.seed(self._seed)  # noqa: NPY002

    def __exit__(self, *_: object) -> None:
        np.random.set_state(self._before)  # noqa: NPY002
