"""Scans that get lesions: labelled ones, and unlabelled ones whose labels are known well enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset, join
from medgen.synthesis.lesions.focal import Focal
from medgen.synthesis.lesions.forms import Lesion, find_lesions
from medgen.synthesis.sources import Sources

Hosts = Literal["consensus", "healthy", "none"]


def choose_hosts(
    sources: Sources, focal: Focal, unlabelled: Hosts, confidence: float, smallest: int
) -> tuple[Dataset, tuple[int, ...]]:
    """Scans that get lesions, all with labels, and how many lesions each has.

    Args:
        sources: Training scans.
        focal: The lesions of the labelled ones.
        unlabelled: Which unlabelled scans are hosts, too: those with credible inferred labels (``consensus``), all, as
            they are known to be ``healthy``, or ``none``.
        confidence: Mean confidence in the foreground that a scan with inferred labels must have.
        smallest: Voxels below which a connected component is no lesion.

    Raises:
        DataError: If unlabelled scans are declared healthy though there are labels that are not focal.
    """
    parts, counts = [sources.labelled], _counts(focal.found, len(sources.labelled))
    if unlabelled == "healthy" and sources.unlabelled is not None:
        if organs := sorted(set(sources.labels) - set(focal.labels)):
            raise DataError(
                f"lesion.unlabelled_hosts=healthy: label {organs[0]} is no lesion label, and unlabelled scans would "
                "teach it as background; use consensus or none"
            )
        empty = torch.zeros_like(sources.unlabelled.foregrounds, dtype=torch.uint8)
        parts.append(replace(sources.unlabelled, labels=empty, confidence=None))
        counts += [0] * len(sources.unlabelled)
    elif unlabelled == "consensus" and sources.consensus is not None:
        chosen = sources.consensus.subset(_trusted(sources.consensus, confidence))
        parts.append(replace(chosen, confidence=None))
        counts += _counts(find_lesions(chosen, focal.labels, smallest), len(chosen))
    return join(parts), tuple(counts)


def _counts(found: Sequence[Lesion], scans: int) -> list[int]:
    counts: list[int] = np.bincount([lesion.row for lesion in found], minlength=scans).tolist()
    return counts


def _trusted(data: Dataset, least: float) -> list[str]:
    """Ids of the scans whose mean confidence in the foreground is at least ``least``."""
    if data.confidence is None:
        return []
    inside = data.foregrounds.float()
    mean = (data.confidence.float() / 255 * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp_min(1)
    return [name for name, value in zip(data.ids, mean.tolist(), strict=True) if value >= least]
