"""What an augment run would do and cost, measured on a few steps (``--dry-run``)."""

from __future__ import annotations

import math
import time

import torch

from medgen.layouts import load_cohort
from medgen.recipe import fit_preprocess
from medgen.svf import register
from medgen.synthesis.backends.joint import joint_settings

from .augment_intake import admit
from .augment_settings import AugmentRunConfig
from .augment_stages import split
from .augment_value import study_plan
from .planning import describe_memory, describe_training, estimate_training, minutes


def plan(config: AugmentRunConfig) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``."""
    manifest = load_cohort(config.data, config.cohort)
    manifest = admit(config, manifest).apply(manifest)
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
    if config.value.enabled:
        lines.append(study_plan(config, channels, shape, range(1, labels + 1)))
    return [*lines, f"output: {config.out}"]
