"""What a segmenter that does not look at the scan would reach: the bar above which one has learnt something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medgen.errors import DataError
from medgen.metrics.segmentation import dice
from medgen.preprocessing.dataset import Dataset
from medgen.synthesis.value.cells import TestSet, predict_native


@dataclass(frozen=True, eq=False)
class BlindGuess:
    """At each place of the model grid the label that most training scans have there.

    Attributes:
        classes: Label numbers, 0 first.
        shares: Share of the training scans with each class, (classes, i, j, k).
    """

    classes: tuple[int, ...]
    shares: Tensor

    @classmethod
    def of(cls, real: Dataset, labels: Sequence[int]) -> BlindGuess:
        """Count how often each label stands at each place of the training scans.

        Raises:
            DataError: If there are none.
        """
        if real.labels is None or not len(real):
            raise DataError("a guess at labels needs training scans with masks, found none")
        classes = (0, *labels)
        counts = torch.stack([(real.labels[:, 0] == value).sum(dim=0) for value in classes])
        # What is no label in use counts as background. Whole numbers, so that ties are ties.
        counts[0] = len(real) - counts[1:].sum(dim=0)
        return cls(classes, counts / len(real))

    def probabilities(self, images: Tensor) -> Tensor:
        """The same for every scan, (n, classes, i, j, k)."""
        return self.shares[None].expand(len(images), -1, -1, -1, -1)


def blind_dice(real: Dataset, test: TestSet, labels: Sequence[int]) -> float:
    """Mean Dice over test scans and labels of the blind guess, on each scan's own grid, as segmenters are tested.

    Args:
        real: Labelled training scans on the model grid.
        test: Held-out scans.
        labels: Label numbers, without 0.

    Raises:
        DataError: If ``real`` has no labels.
    """
    guess = BlindGuess.of(real, labels)
    found: dict[str, list[float]] = {}
    for index, truth in enumerate(test.masks):
        prediction = predict_native(guess, test, index)
        values = [dice(prediction, truth.data[0], label) for label in labels]
        found.setdefault(test.data.subjects[index], []).append(float(np.mean(values)))
    # Subjects count alike, however many scans they have.
    return float(np.mean([np.mean(values) for values in found.values()]))
