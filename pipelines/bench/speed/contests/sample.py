"""A painted scan by flow matching against MONAI's network at as many passes, and how that grows with voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from medgen.models.families.flow import Flow

from .. import training_steps as steps
from ..contest import Contender, Contest, Entry, Growth, Settings, Work
from ..peers import absent
from .flow_step import MODEL, PEER, flow_loop, label_maps, painted

_SIDES, _FEW_SIDES = (32, 48, 64, 96, 128), (16, 32)


def entries(settings: Settings) -> Iterator[Entry]:
    """One scan in float32; then growth, in the precision that samples are drawn in."""
    train, test = steps.scans(settings)
    labels = int(label_maps(train).max())
    precision = steps.precisions(settings)[0]
    scan = test.subset(test.ids[:1])
    model = steps.own_loop(train, precision, {**MODEL, "n_labels": labels}, {}).model.eval()
    assert isinstance(model, Flow)
    # Heun's rule asks twice in every step but the last.
    passes = 2 * model.sampling.solver_steps - 1
    peer = flow_loop(train, precision, labels)
    gone = absent("einops", PEER)
    yield Contest(
        "scan painted by a flow, float32",
        (
            Contender("medgen", partial(_paint, model, label_maps(scan).to(precision.device))),
            *([] if gone else [Contender(PEER, partial(painted, peer, scan, labels, passes))]),
        ),
        equal=lambda: {
            "parameters": {"medgen": model.parameter_count, PEER: peer.parameters},
            "voxels": {"medgen": math.prod(scan.shape), PEER: math.prod(scan.shape)},
            "passes of the network": {"medgen": passes, PEER: passes},
        },
        without=gone,
        notes=("The networks of the benchmark flow-step, untrained: what they paint costs the same.",),
    )
    yield Growth(
        "scan painted by a flow",
        "voxels",
        tuple(float(side**3) for side in (_FEW_SIDES if settings.quick else _SIDES)),
        partial(_cube, settings),
        notes=("The same network on cubes of side 32 to 128.",),
    )


@torch.no_grad()
def _paint(model: Flow, labels: Tensor) -> Tensor:
    labels = labels.long()
    generator = torch.Generator().manual_seed(0)
    return model.paint(labels, model.draw_style(labels, generator), model.draw_noise(1, generator))


def _cube(settings: Settings, voxels: float) -> Work:
    data = steps.cube_of_noise(voxels)
    precision = steps.precisions(settings)[0]
    model = steps.own_loop(data, precision, {**MODEL, "n_labels": 2}, {}).model.eval()
    assert isinstance(model, Flow)
    return partial(_paint, model, label_maps(data)[:1].to(precision.device))
