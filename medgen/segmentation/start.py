"""What segmenters take from a trained model of the family ``segmenter`` that they start from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medgen.segmentation.segmenter import SegmenterConfig
from medgen.training.config import InitConfig
from medgen.training.transfer.start import Start


def segmenter_start(init: InitConfig, config: SegmenterConfig, images: Tensor, labels: Sequence[int]) -> Start:
    """Read the source and match its tensors, by name and shape, with those of a segmenter.

    Class k of a segmenter is the k-th of its labels, label number k of the source: where they are equally many, the
    last layer is taken as well.

    Args:
        init: Which model, and what of it.
        config: Network of the segmenters.
        images: Scans on their grid, (n, c, i, j, k); only the shape matters.
        labels: Label numbers that they will learn, without 0.

    Returns:
        For :func:`medgen.segmentation.segmenter.train_segmenter`; its record says what was taken and what was not.

    Raises:
        ArtifactError: If the source cannot be read.
        ConfigError: If it holds no segmenter, no weight of it fits, a pattern fits nothing, or nothing would be left to
            train.
    """
    return Start.of(config.model(images.shape[1:], len(labels) + 1), init)
