"""Label numbers as models want them, and labelled scans that are not drowned by those with consensus labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset, join
from medgen.synthesis.sources import Sources


def numbered(data: Dataset, labels: Sequence[int]) -> Dataset:
    """The data set with labels 1, 2, ... in place of the numbers given; other numbers become background.

    Raises:
        DataError: If it has no labels.
    """
    if data.labels is None:
        raise DataError("synthesis needs training scans with masks")
    changed = torch.zeros_like(data.labels)
    for index, label in enumerate(labels, start=1):
        changed[data.labels == label] = index
    return replace(data, labels=changed)


def balanced_pairs(sources: Sources, share: float) -> Dataset:
    """Labelled and consensus-labelled scans, labelled ones repeated so that batches hold about ``share`` of them.

    Labels are numbered 1, 2, ... in the order of ``sources.labels``. Repetitions have ids that end in
    ``#2``, ``#3``, ...

    Args:
        sources: The scans.
        share: In [0, 1); labelled scans are repeated a whole number of times, at least once.
    """
    labelled = numbered(sources.labelled, sources.labels)
    if sources.consensus is None:
        return labelled
    others = numbered(sources.consensus, sources.labels)
    times = max(1, round(share / (1 - share) * len(others) / len(labelled)))
    again = [replace(labelled, ids=tuple(f"{name}#{turn}" for name in labelled.ids)) for turn in range(2, times + 1)]
    return join([labelled, *again, others])
