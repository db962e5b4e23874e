"""What is kept of a case after looking at its files, also as plain data: a case may be looked at by another process."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from medgen.data.cases import Case
from medgen.data.content import Traits
from medgen.faults import Fault
from medgen.volume import Grid


@dataclass(frozen=True)
class CheckedCase:
    """What was found of one case.

    Attributes:
        id: Its id.
        subject: Whose scan it is.
        shape: Voxels along (i, j, k); empty if the image cannot be read.
        spacing: Their sizes in mm.
        axes: Where i, j and k lead, such as ``RAS``.
        channels: Number of contrasts; 0 if the image cannot be read.
        contrasts: Their names, where the cohort says them.
        masked: Whether it has a mask.
        labels: Label numbers of the mask without 0, ascending.
    """

    id: str
    subject: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axes: str
    channels: int
    contrasts: tuple[str, ...]
    masked: bool
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Looked:
    """What is kept of a case after looking at its files.

    Attributes:
        case: The case, with the hashes of its files as they are now.
        faults: What is wrong with its files.
        content: Hash of its voxels; empty if the image cannot be read.
        channels: Number of contrasts; 0 if the image cannot be read.
        notes: What to know of it and is no fault.
        traits: What is compared with other cases; None if the image cannot be read.
        values: Label numbers of the mask without 0, ascending.
    """

    case: Case
    faults: tuple[Fault, ...]
    content: str
    channels: int
    notes: tuple[str, ...]
    traits: Traits | None = None
    values: tuple[int, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Plain data, from which :meth:`from_plain` makes the same again to the last bit."""
        own = self.traits
        return {
            "sha256": dict(self.case.sha256),
            "faults": [asdict(fault) for fault in self.faults],
            "content": self.content,
            "channels": self.channels,
            "notes": list(self.notes),
            "values": list(self.values),
            "traits": None
            if own is None
            else {
                "shape": list(own.grid.shape),
                "affine": own.grid.affine.tolist(),
                "labels": own.labels,
                "body": [int(size) for size in own.shape],
                "sample": base64.b64encode(own.sample.astype("<f8").tobytes()).decode("ascii"),
                "whole": own.whole,
            },
        }

    @classmethod
    def from_plain(cls, case: Case, data: Mapping[str, Any]) -> Looked:
        """What another process has found of a case.

        Args:
            case: The case.
            data: As :meth:`to_plain` gives it.
        """
        own = data["traits"]
        traits = own and Traits(
            Grid(tuple(own["shape"]), np.array(own["affine"])),
            own["labels"],
            tuple(own["body"]),
            np.frombuffer(base64.b64decode(own["sample"]), "<f8").astype(np.float64),
            own["whole"],
        )
        return cls(
            replace(case, sha256=data["sha256"]),
            tuple(Fault(**fault) for fault in data["faults"]),
            data["content"],
            data["channels"],
            tuple(data["notes"]),
            traits,
            tuple(data["values"]),
        )
