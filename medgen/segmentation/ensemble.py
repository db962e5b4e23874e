"""An ensemble of segmenters that labels scans together, and how it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.config import parse_config
from medgen.errors import ArtifactError
from medgen.metrics.neighbourhood import connected_parts
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig
from medgen.system.precision import precision_of
from medgen.training.trainer import device_of

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class SegmenterEnsemble:
    """Segmenters of the same classes.

    Attributes:
        config: Network and training of each.
        segmenters: At least one.
        channels: Image channels they take.
        whole: Labels of which only the largest connected part is kept: those in one piece in every scan they learnt
            from.
    """

    config: SegmenterConfig
    segmenters: tuple[Segmenter, ...]
    channels: int
    whole: tuple[int, ...] = ()

    @property
    def numbers(self) -> Tensor:
        """Label number of each class, (classes,) uint8."""
        return torch.tensor(self.segmenters[0].classes, dtype=torch.uint8)

    def vote(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Label scans (n, c, i, j, k) by the mean of the members' probabilities.

        Returns:
            Label numbers and, in 255ths, the mean probability of that label, both (n, 1, i, j, k) uint8; and each
            member's own labels.
        """
        total: Tensor | None = None
        own = []
        for segmenter in self.segmenters:
            probability = segmenter.probabilities(images)
            own.append(self.numbers[probability.argmax(dim=1, keepdim=True)])
            total = probability if total is None else total + probability
        if total is None:
            raise ValueError("expected at least one member")
        confidence, winner = (total / len(self.segmenters)).max(dim=1, keepdim=True)
        labels = in_one_piece(self.numbers[winner], self.whole)
        return labels, (confidence * 255).round().to(torch.uint8), own

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Weights by name, and the plain data that :meth:`from_arrays` needs with them."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, segmenter in enumerate(self.segmenters):
            arrays |= segmenter_to_arrays(f"member{number}.", segmenter)
        return arrays, {
            "count": len(self.segmenters),
            "config": self.config.model_dump(mode="json"),
            "classes": list(self.segmenters[0].classes),
            "channels": self.channels,
            "whole": list(self.whole),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, about: Mapping[str, Any], device: str) -> SegmenterEnsemble:
        """Rebuild what :meth:`to_arrays` gave; no code in it is run.

        Raises:
            ArtifactError: If something is missing or does not fit.
        """
        config = parse_config(SegmenterConfig, about["config"], source="members")
        classes, channels = [int(value) for value in about["classes"]], int(about["channels"])
        segmenters = tuple(
            segmenter_from_arrays(f"member{number}.", arrays, config, channels, classes, device)
            for number in range(int(about["count"]))
        )
        return cls(config, segmenters, channels, tuple(int(value) for value in about["whole"]))


def in_one_piece(labels: Tensor, whole: Sequence[int]) -> Tensor:
    """Only the largest connected part (26 neighbours) of each label in ``whole``; the rest becomes background.

    Args:
        labels: (n, 1, i, j, k), on the CPU.
        whole: Label numbers.

    Returns:
        A new tensor.
    """
    result = labels.clone()
    for scan in result[:, 0].numpy():
        for label in whole:
            parts, count = connected_parts(scan == label)
            if count > 1:
                largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
                scan[(parts > 0) & (parts != largest)] = 0
    return result


def one_piece_labels(labels: Tensor, values: Sequence[int]) -> tuple[int, ...]:
    """Those of some label numbers that are in one connected piece in every scan (n, 1, i, j, k) that has them."""

    def pieces(value: int) -> int:
        return max(connected_parts(scan == value)[1] for scan in labels[:, 0].numpy())

    return tuple(value for value in values if pieces(value) == 1)


def segmenter_to_arrays(prefix: str, segmenter: Segmenter) -> dict[str, NDArray[Any]]:
    """A segmenter's weights as arrays, by name."""
    weights = segmenter.network.state_dict()
    return {f"{prefix}{key}": value.detach().cpu().numpy() for key, value in weights.items()}


def segmenter_from_arrays(
    prefix: str, arrays: Arrays, config: SegmenterConfig, channels: int, classes: Sequence[int], device: str
) -> Segmenter:
    """The segmenter whose weights are the arrays that start with ``prefix``.

    Raises:
        ArtifactError: If weights are missing or of another shape.
    """
    network = config.network(channels, len(classes))
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    try:
        network.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in own.items()})
    except RuntimeError as error:
        raise ArtifactError(f"weights {prefix}* do not fit the network ({str(error).splitlines()[0]})") from None
    precision = precision_of(config.precision, device_of(device))
    network.to(precision.device).eval()
    return Segmenter(network, tuple(classes), precision)
