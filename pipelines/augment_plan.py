"""What an augment run would do and cost, measured on a few steps (``--dry-run``)."""

from __future__ import annotations

import math
import time

import torch

from medgen.dataset import Dataset
from medgen.layouts import load_cohort
from medgen.metrics.msssim import pairwise_ms_ssim
from medgen.recipe import fit_preprocess
from medgen.segmentation import train_segmenter
from medgen.synthesis.backends.joint import joint_settings
from medgen.synthesis.svf import register

from .augment_settings import AugmentRunConfig
from .augment_stages import split
from .planning import describe_memory, describe_training, estimate_training, minutes


def plan(config: AugmentRunConfig) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``."""
    manifest = load_cohort(config.data, config.cohort)
    parts = split(config, manifest)
    preprocess = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    channels = len(next(iter(parts.labelled)).read_image().data)
    labels = len(manifest.labels) or 1
    shape = preprocess.shape
    lines = [
        f"cohort: {len(parts.labelled.subjects)} labelled subjects, {len(parts.unlabelled)} unlabelled scans, "
        f"{len(parts.test.subjects)} test subjects",
        f"grid: {' x '.join(map(str, shape))} voxels of {preprocess.spacing} mm, align: {preprocess.align}",
        describe_memory((channels + 1) * len(manifest) * math.prod(shape)),
    ]
    image = torch.rand(2, channels, *shape, generator=torch.Generator().manual_seed(0))
    target = (image[:, :1] * (labels + 1)).floor().to(torch.uint8)
    sizes = len(config.value.subjects or (0,))
    settings = getattr(config.generators, "deform", None)
    if settings is not None:
        short = settings.registration.model_copy(update={"iterations": 2})
        start = time.perf_counter()
        register(image, image.flip(0), short)
        each = (time.perf_counter() - start) / 2 / 2 * settings.registration.iterations
        lines.append(f"deform: {settings.pairs} registrations, about {minutes(each * settings.pairs * sizes)}")
    joint = getattr(config.generators, "joint", None)
    if joint is not None:
        estimate = estimate_training(
            joint_settings(joint, channels, shape, labels), joint.training, config.device, labels
        )
        lines.append(describe_training("joint", estimate, sizes))
    if config.fidelity.enabled:
        lines.append(f"comparison with real scans: about {minutes(_likeness_seconds(config, image))}")
    if config.value.enabled:
        data = Dataset(("a", "b"), ("a", "b"), image, torch.ones_like(target, dtype=torch.bool), target)
        cells = sizes * len(config.value.arms) * config.value.seeds
        seconds = _segmenter_step(config, data, range(1, labels + 1)) * config.value.segmenter.steps * cells
        lines.append(f"value study: {cells} segmenters, about {minutes(seconds)}")
    return [*lines, f"output: {config.out}"]


def _likeness_seconds(config: AugmentRunConfig, image: torch.Tensor) -> float:
    """Seconds that structural similarity takes in all: training, held-out and synthetic scans, pair by pair."""
    seconds = []
    for _ in range(2):  # the first one imports
        start = time.perf_counter()
        pairwise_ms_ssim(image, 1.0)
        seconds.append(time.perf_counter() - start)
    backends = len(config.generators.names)
    return seconds[1] * math.comb(config.fidelity.similar, 2) * (2 + backends + (backends > 1))


def _segmenter_step(config: AugmentRunConfig, data: Dataset, labels: range) -> float:
    """Seconds of one training step: of a longer training less a shorter one, which leaves the start-up out."""
    seconds = []
    for steps in (2, 2, 8):
        short = config.value.segmenter.model_copy(update={"steps": steps})
        start = time.perf_counter()
        train_segmenter(data, short, 0, labels=labels, augmentation=config.value.augment, device=config.device)
        seconds.append(time.perf_counter() - start)
    return max(seconds[2] - seconds[1], 0.0) / 6
