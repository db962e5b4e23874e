"""What a peer is: a detector of another library, fitted on the same scans and asked for maps of the same test scans.

Each library has a file here with ``NAMES``, ``missing`` and ``fit``;
:mod:`medgen.anomaly.comparison.peers.catalogue` has their list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from medgen.config import Config
from medgen.transforms.masked_smoothing import smooth


class PeerSettings(Config):
    """How much data, time and training other libraries' detectors (the peers) get.

    Attributes:
        voxels: Rows that PyOD detectors are fitted on.
        patches: Patches of slices that PatchCore's memory bank is chosen from.
        steps: Training steps of MONAI's autoencoders.
        seconds: Wall time after which their training stops, whatever the steps.
        batch_size: Scans per step.
        lr: Learning rate of Adam.
    """

    voxels: int = Field(default=200_000, ge=100)
    patches: int = Field(default=20_000, ge=100)
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


def score(
    fitted: Fitted, image: Tensor, foreground: Tensor, region: NDArray[np.bool_], smoothing: float
) -> NDArray[np.float32]:
    """The peer's map of one test scan (c, i, j, k), smoothed inside the region as all raw scores are; (i, j, k)."""
    return smooth(fitted.peer(image, foreground), region, smoothing)


def left_out(name: str, reason: object) -> str:
    """The sentence about a peer whose libraries are not there."""
    return f"{name} is left out: {reason}; install the extra: pip install 'medgen[peers]'"
