"""What filter and sampling will cost, before anything is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from medgen.synthesis.estimates import FLOAT_BYTES, Outline, segmenter_estimate
from medgen.training.cost import Estimate, minutes, stand_in

if TYPE_CHECKING:
    from medgen.synthesis.filtering.filter import FilterConfig


def filter_estimate(config: FilterConfig, outline: Outline, device: str) -> Estimate:
    """What fitting the filter costs; its ``sample_seconds`` are those of judging one scan."""
    auditors = segmenter_estimate("filter", config.auditor, outline, device, trainings=2)
    compare = gallery_seconds(outline)
    # Every real scan is compared with every other one once.
    scans = outline.labelled + outline.unlabelled
    return Estimate(
        auditors.seconds + scans * compare, auditors.bytes, auditors.lines, 2 * auditors.sample_seconds + compare
    )


def gallery_seconds(outline: Outline) -> float:
    """Comparing one scan with all training scans, measured on a few small ones."""
    from medgen.synthesis.filtering.copies import Gallery

    shape, count = stand_in(outline.shape), 4
    images = torch.rand(count, outline.channels, *shape, generator=torch.Generator().manual_seed(0))
    gallery = Gallery(images, [str(n) for n in range(count)], [str(n) for n in range(count)])
    start = time.perf_counter()
    gallery.correlations(images[0])
    seconds = time.perf_counter() - start
    ratio = outline.voxels / math.prod(shape) * (outline.labelled + outline.unlabelled) / count
    return seconds * max(ratio, 1.0)


def sampling_estimate(
    scans: int, attempts: float, backends: Mapping[str, Estimate], judge: Estimate, outline: Outline
) -> Estimate:
    """What sampling and judging cost if a third of the samples is refused; if more are, up to ``attempts`` per scan."""
    pool = scans * len(backends) * outline.voxels * (FLOAT_BYTES * outline.channels + 1)
    once = sum(scans * (own.sample_seconds + judge.sample_seconds) for own in backends.values())
    typical, worst = once * min(1.5, attempts), once * attempts
    line = f"sampling: {scans} scans of each backend, about {minutes(typical)}, at most {minutes(worst)}"
    return Estimate(typical, float(pool), (line,))


def total_seconds(estimates: Sequence[Estimate]) -> float:
    """Sum of the seconds of several estimates."""
    return sum(item.seconds for item in estimates)
