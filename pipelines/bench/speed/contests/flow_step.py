"""A step of flow matching in voxels against MONAI's diffusion U-Net with its rectified-flow scheduler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from medgen.models.families.flow import Flow
from medgen.preprocessing.dataset import Dataset
from medgen.system.precision import Precision

from ...family_measures import paint
from .. import training_steps as steps
from ..contest import Contender, Contest, Entry, Rows, Settings
from ..peers import absent

# 3.07 M parameters, the shipped widths and a level below them; MONAI's network has 2.92 M.
MODEL = {"family": "flow", "widths": (32, 64, 96, 128), "blocks": 2, "style": 24}
_TRAINING = {"lr": 2e-3}
_GOAL = 5.0
_STEPS, _FEW = 12, 2
# Passes of the peer's network for one scan; medgen's solver has its own number.
_SOLVER = 20
PEER = "MONAI DiffusionModelUNet + RFlowScheduler"


def entries(settings: Settings) -> Iterator[Entry]:
    """Each precision."""
    train, test = steps.scans(settings)
    labels = int(label_maps(train).max())
    model = {**MODEL, "n_labels": labels}
    gone = absent("einops", PEER)
    for precision in steps.precisions(settings):
        loop, peer = steps.own_loop(train, precision, model, _TRAINING), flow_loop(train, precision, labels)
        own, voxels = sum(weights.numel() for weights in loop.model.parameters()), math.prod(train.shape)
        yield Contest(
            f"flow training step, {'bf16' if precision.bf16 else 'float32'}",
            (Contender("medgen", loop.update), *([] if gone else [Contender(PEER, peer.step, _GOAL)])),
            demand=steps.demand_of(loop.update, own, voxels, precision),
            equal=dict if gone else partial(_equal, settings, precision, train, test, labels, own, peer.parameters),
            without=gone,
            notes=(
                "Both learn to paint a scan on a label map. MONAI's network gets the label map as further channels, as "
                "in its tutorials, and the velocity from scan to noise as its target. Painted scans are compared with "
                "the scans whose label maps they were painted on: mean absolute difference of means over 4³ voxels, "
                "in the foreground, smaller is better.",
            ),
        )


def flow_loop(data: Dataset, precision: Precision, labels: int) -> steps.PeerLoop:
    """Rectified flow as MONAI trains it, with the label map concatenated to what is denoised."""
    from monai.networks.nets import DiffusionModelUNet
    from monai.networks.schedulers import RFlowScheduler

    channels = data.images.shape[1]
    torch.manual_seed(0)
    network = DiffusionModelUNet(
        spatial_dims=3,
        in_channels=channels + labels,
        out_channels=channels,
        channels=(32, 64, 64),
        attention_levels=(False, False, True),
        num_head_channels=(0, 0, 64),
        num_res_blocks=1,
    )
    network = network.to(precision.device).train()
    scheduler = RFlowScheduler(num_train_timesteps=1000)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def update(image: Tensor, masks: Tensor | None) -> None:
        assert masks is not None
        optimiser.zero_grad(set_to_none=True)
        noise = torch.randn_like(image)
        times = scheduler.sample_timesteps(image)
        noisy = scheduler.add_noise(original_samples=image, noise=noise, timesteps=times)
        with precision.autocast():
            said = network(torch.cat([noisy, _classes(masks, labels)], dim=1), timesteps=times)
            loss = functional.mse_loss(said.float(), image - noise)
        loss.backward()
        optimiser.step()

    return steps.PeerLoop((network,), update, precision, data.images, data.labels)


@torch.no_grad()
def painted(loop: steps.PeerLoop, data: Dataset, labels: int, passes: int = _SOLVER) -> Tensor:
    """Scans (n, c, i, j, k) that the peer paints on label maps, by Euler's rule from noise at 1 to a scan at 0."""
    network, made = loop.networks[0].eval(), []
    generator = torch.Generator().manual_seed(0)
    for row in range(len(data)):
        at = torch.randn(data.images[row : row + 1].shape, generator=generator).to(loop.precision.device)
        classes = _classes(label_maps(data)[row : row + 1].to(at.device), labels)
        for number in range(passes):
            time = torch.tensor([1000.0 * (1 - number / passes)], device=at.device)
            with loop.precision.autocast():
                velocity = network(torch.cat([at, classes], dim=1), timesteps=time).float()
            # The network says scan minus noise.
            at = at + velocity / passes
        made.append(at.cpu())
    network.train()
    return torch.cat(made)


def _equal(
    settings: Settings, precision: Precision, train: Dataset, test: Dataset, labels: int, own: int, other: int
) -> Rows:
    same = steps.sizes(precision, train, own, PEER, other)
    if precision != steps.precisions(settings)[-1]:
        # Once is enough, see train_step.
        return same
    count = _FEW if settings.quick else _STEPS
    model = {**MODEL, "n_labels": labels}
    loop, peer = steps.own_loop(train, precision, model, _TRAINING), flow_loop(train, precision, labels)
    for _ in range(count):
        loop.update()
        peer.step()
    assert isinstance(loop.model, Flow)
    held = test.subset(test.ids[:4])
    with steps.exchanged(list(zip(loop.live, loop.average, strict=True))):
        loop.model.eval()
        made = paint(loop.model, held, torch.Generator().manual_seed(0), float(train.images.max()))
        loop.model.train()
    return {
        **same,
        f"painted after {count} steps, difference": {
            "medgen": _coarse_difference(made, held),
            PEER: _coarse_difference(painted(peer, held, labels), held),
        },
    }


def _coarse_difference(made: Tensor, data: Dataset) -> float:
    weight = data.foregrounds.float()
    coarse = functional.avg_pool3d((made.clamp(0, 1.5) - data.images) * weight, 4) / functional.avg_pool3d(
        weight, 4
    ).clamp_min(1e-3)
    inside = (functional.avg_pool3d(weight, 4) > 0.5).expand_as(coarse)
    return float(coarse.abs()[inside].mean())


def label_maps(data: Dataset) -> Tensor:
    """The label maps of scans that all have one, (n, 1, i, j, k)."""
    assert data.labels is not None
    return data.labels


def _classes(masks: Tensor, labels: int) -> Tensor:
    """One channel of 0 and 1 for each label but the background, (n, labels, i, j, k)."""
    shifted = functional.one_hot(masks[:, 0].long(), labels + 1).movedim(-1, 1)
    return shifted[:, 1:].float()
