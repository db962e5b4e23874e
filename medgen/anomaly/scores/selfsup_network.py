"""The score ``selfsup_network``: how much a place looks tampered with to a network that also sees its surroundings.

``selfsup`` weighs the descriptors of one voxel. Tissue that was moved has ordinary descriptors at every voxel and an
odd arrangement of them: that takes a look at the surroundings. The network starts from the weights of ``selfsup`` and
learns on the same corrupted copies what these miss, so that some hundred steps are enough.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medgen.anomaly.scores.base import SCORES, Inputs, State, score
from medgen.anomaly.scores.corrupted_copies import SIDE, Patch, corrupted_copies
from medgen.anomaly.scores.descriptors import NAMES, Rows, descriptors_of, standardised_scans, standardised_without
from medgen.anomaly.scores.selfsup import KNOTS
from medgen.seeds import derive, numpy_rng

# Channels, and the dilations of the convolutions; how many voxels away the farthest one is that is seen.
_WIDTH, _DILATIONS = 24, (1, 2, 4)
_REACH = sum(_DILATIONS)
# Cubes of a step; largest learning rate, the steps in which it rises, decay of weights, and largest norm of a gradient.
_BATCH, _RATE, _RISE, _DECAY, _NORM = 2, 3e-3, 30, 1e-2, 1.0
# Voxels that pass through the network at a time.
_CHUNK = 1 << 20


class Network(nn.Module):
    """Log-odds that a voxel was tampered with, from standardised descriptors.

    The sum of what ``selfsup`` says of the voxel and of what three dilated convolutions say of it and its surroundings,
    15 voxels across. Full resolution throughout: at half of it noise and fine shifts are lost.

    Args:
        channels: Number of descriptors, c · d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.additive = nn.Conv3d((2 + len(KNOTS)) * channels, 1, 1)
        self.first = nn.Conv3d(2 * channels, _WIDTH, 1)
        self.context = nn.ModuleList([nn.Conv3d(_WIDTH, _WIDTH, 3, padding=step, dilation=step) for step in _DILATIONS])
        self.last = nn.Conv3d(_WIDTH, 1, 1, bias=False)
        # It begins as what :meth:`start` is given, whatever the other weights are.
        nn.init.zeros_(self.last.weight)

    @torch.no_grad()
    def start(self, weight: NDArray[np.float32], bias: float) -> None:
        """Take over the weights of ``selfsup``, (4 c · d,), and a bias."""
        self.additive.weight.copy_(torch.from_numpy(weight).view_as(self.additive.weight))
        nn.init.constant_(self.additive.bias, bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        """Standardised descriptors (b, c · d, i, j, k), 0 where nothing is known, to log-odds (b, i, j, k)."""
        size = z.abs()
        shapes = torch.cat([z, size, *((size - knot).clamp_min(0) for knot in KNOTS)], dim=1)
        hidden = functional.gelu(self.first(torch.cat([z, size], dim=1) / 2))
        for layer in self.context:
            hidden = hidden + functional.gelu(layer(hidden))
        return (self.additive(shapes).float() + self.last(hidden).float())[:, 0]


def _fit_network(training: Inputs) -> dict[str, NDArray[Any]]:
    """Weights of a network trained on corrupted copies of the training scans, by name."""
    # Asked for first: whoever learns from corrupted copies next finds them in the memo.
    copies = corrupted_copies(training, patches=True)
    linear = SCORES["selfsup"].fit(training)
    patches = [(row, patch) for row, own in enumerate(copies) for copy in own for patch in copy.patches]
    examples = _Examples(training, SCORES["descriptors"].fit(training))
    changed = np.concatenate([copy.changed for own in copies for copy in own])
    device, rng = training.image.device, numpy_rng(0, "selfsup_network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "selfsup_network", "weights"))
        network = Network(len(linear["weight"]) // (2 + len(KNOTS)))
    shift = _log_odds(examples.share(patches)) - _log_odds(float(changed.mean()))
    network.start(linear["weight"], float(linear["bias"][0]) + shift)
    network.to(device)
    steps = int(training.settings.get("network_steps", 400))
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / _RISE) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    order = _without_end(len(patches), rng)
    for _ in range(steps):
        batch = [_turned(examples.of(*patches[next(order)]), rng) for _ in range(_BATCH)]
        z, target, weight = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*batch, strict=True))
        _step(network, optimiser, z, target, weight, training)
        schedule.step()
    return {name.replace(".", "_"): np.asarray(value.cpu().numpy()) for name, value in network.state_dict().items()}


def _step(
    network: Network, optimiser: torch.optim.Optimizer, z: Tensor, target: Tensor, weight: Tensor, given: Inputs
) -> None:
    """One optimiser step on cross-entropy, averaged over the known voxels."""
    with given.autocast():
        odds = network(z.contiguous(memory_format=torch.channels_last_3d))
    loss = functional.binary_cross_entropy_with_logits(odds.float(), target, weight, reduction="sum")
    optimiser.zero_grad(set_to_none=True)
    (loss / weight.sum().clamp_min(1)).backward()
    nn.utils.clip_grad_norm_(network.parameters(), _NORM)
    optimiser.step()


class _Examples:
    """Patches as standardised descriptors, the scan's own part taken out of the mean it is compared with."""

    def __init__(self, training: Inputs, state: State) -> None:
        self._masks, self._own, self._state = training.mask, descriptors_of(training), state
        self._count = training.mask.sum(axis=0, dtype=np.float32)
        self._at = _indices(state["region"])

    def share(self, patches: list[tuple[int, Patch]]) -> float:
        """Share of changed voxels among the known ones."""
        inside = [self._known(row, patch) for row, patch in patches]
        marked = sum(int((patch.changed & known).sum()) for (_, patch), known in zip(patches, inside, strict=True))
        return marked / max(1, sum(int(known.sum()) for known in inside))

    def _known(self, row: int, patch: Patch) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self._masks[row][patch.place] & self._state["region"][patch.place]
        return known

    def of(self, row: int, patch: Patch) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Descriptors (c · d, p, q, r), whether voxels were changed, and whether they are known, (p, q, r) each."""
        known = self._known(row, patch)
        at = self._at[patch.place][known]
        z = np.zeros(patch.values.shape, dtype=np.float32)
        z[:, known] = standardised_without(
            patch.values[:, known],
            self._own[row][:, _indices(self._masks[row])[patch.place][known]],
            self._count[patch.place][known],
            self._state["mean"][:, at],
            self._state["sd"][:, at],
        )
        return z, patch.changed.astype(np.float32), known.astype(np.float32)


def _indices(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """At every voxel of a mask its number among the mask's voxels, (i, j, k)."""
    return np.cumsum(mask, dtype=np.int32).reshape(mask.shape) - 1


def _without_end(number: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(number).tolist()


def _turned(example: tuple[NDArray[np.float32], ...], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Mirrored and with axes exchanged, where all are as long: a descriptor has no direction in the cube."""
    shape = example[-1].shape
    mirrored = tuple(axis - 3 for axis in range(3) if rng.random() < 0.5)
    axes = rng.permutation(3) if len(set(shape)) == 1 else np.arange(3)
    return [
        np.ascontiguousarray(np.flip(part, mirrored).transpose(*range(part.ndim - 3), *(axes + part.ndim - 3)))
        for part in example
    ]


def _log_odds(share: float) -> float:
    inside = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))


def _fit_seconds(channels: int, device: torch.device, settings: Mapping[str, Any]) -> float:
    """Seconds that the training in one fold takes, measured on two steps; making corrupted copies comes on top."""
    network = Network(channels * len(NAMES)).to(device)
    given = Inputs(torch.zeros(1, channels, 1, 1, 1, device=device), torch.ones(1, 1, 1, 1, 1, dtype=torch.bool))
    z = torch.randn(_BATCH, channels * len(NAMES), SIDE, SIDE, SIDE, device=device)
    target, weight = (z[:, 0] > 1).float(), torch.ones_like(z[:, 0])
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0)
    took = []
    for _ in range(2):
        start = time.perf_counter()
        _step(network, optimiser, z, target, weight, given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - start)
    return min(took) * int(settings["network_steps"])


def _loaded(state: State, device: torch.device) -> Network:
    network = Network(state["first_weight"].shape[1] // 2)
    names = {name.replace(".", "_"): name for name in network.state_dict()}
    network.load_state_dict({name: torch.from_numpy(np.array(state[key])) for key, name in names.items()})
    return network.to(device).eval()


def _odds(network: Network, z: Tensor, chunk: int = _CHUNK) -> Tensor:
    """Log-odds (i, j, k) of one scan's descriptors (c · d, i, j, k), in slabs that see all that they need to see."""
    length = z.shape[1]
    thick = max(1, chunk // math.prod(z.shape[2:]))
    parts = []
    for first in range(0, length, thick):
        low, last = max(0, first - _REACH), min(length, first + thick)
        slab = z[None, :, low : min(length, last + _REACH)].contiguous(memory_format=torch.channels_last_3d)
        parts.append(network(slab)[0, first - low : last - low])
    return torch.cat(parts)


def _dense(values: Rows, where: NDArray[np.bool_]) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Values (n, m) at the m voxels of a mask as a box (n, p, q, r) around them, and where the box lies."""
    rows = [np.flatnonzero(where.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(own[0]), int(own[-1]) + 1) for own in rows)
    dense = np.zeros((len(values), *where[box].shape), dtype=np.float32)
    dense[:, where[box]] = values
    return dense, box


@score(
    "selfsup_network",
    order=21,
    fit=_fit_network,
    fit_seconds=_fit_seconds,
    shares="descriptors",
    costly=True,
    from_corruptions=True,
)
def selfsup_network(inputs: Inputs, state: State) -> NDArray[np.float32]:
    """Nats against "untouched": −log(1 − p) of a network's probability p that a place was tampered with.

    The network sees the standardised descriptors of a place and of its surroundings, and is trained in every fold on
    synthetic corruptions of the training scans, starting from ``selfsup``. That takes about two minutes per fold on a
    core, so it is computed only where a configuration names it.

    Source: Tan et al., "Detecting outliers with foreign patch interpolation" (FPI), MELBA 2022; Zimmerer et al., "MOOD
    2020", IEEE TMI 2022 (networks trained on synthetic anomalies); Yu and Koltun, "Multi-scale context aggregation by
    dilated convolutions", ICLR 2016.
    """
    result = np.zeros(inputs.mask.shape, dtype=np.float32)
    device = inputs.image.device
    network = _loaded(state, device)
    for target, (z, both) in zip(result, standardised_scans(inputs, state), strict=True):
        if not both.any():
            continue
        dense, box = _dense(z, both)
        with torch.inference_mode(), inputs.autocast():
            odds = _odds(network, torch.from_numpy(dense).to(device))
            surprise = functional.softplus(odds.float()).cpu().numpy()
        target[both] = surprise[both[box]]
    return result
