"""What every way of making labelled scans has in common: sources, samples, and the guard against leaks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.config import Config
from medgen.dataset import Dataset, join
from medgen.errors import AuditError, DataError
from medgen.synthesis.alarms import Alarm
from medgen.synthesis.estimates import Estimate, Outline, config_estimate

if TYPE_CHECKING:
    from medgen.preprocess import Preprocess
    from medgen.synthesis.members import Members

Log = Callable[[dict[str, float], int], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Sources:
    """The scans that generators may learn from.

    Attributes:
        labelled: Training scans with labels.
        unlabelled: Training scans of other subjects, used without labels; None if there are none.
        labels: Label numbers in use, without 0, ascending.
        hashes: SHA-256 of each case's files, by case id, for the provenance record.
        consensus: Those of the unlabelled scans that could be labelled credibly from the labelled ones, with these
            labels and a confidence per voxel (:mod:`medgen.synthesis.consensus`); None if there are none.
        members: The segmenters that labelled them together, trained on these sources only; None if there are none.
        faces: Cases that may show a face, see :mod:`medgen.faces`.

    Raises:
        DataError: If ``labelled`` has no labels, a label occurs in no scan, ``unlabelled`` carries labels, or
            ``consensus`` lacks labels or confidence or holds a case that is not among the unlabelled ones.
        AuditError: If a subject is in both parts.
    """

    labelled: Dataset
    unlabelled: Dataset | None
    labels: tuple[int, ...]
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    consensus: Dataset | None = None
    members: Members | None = None
    faces: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.labelled.labels is None or not len(self.labelled):
            raise DataError("synthesis needs training scans with masks, found none; check the masks of the cohort")
        for label in self.labels:
            if not bool((self.labelled.labels == label).any()):
                raise DataError(
                    f"label {label} is in no mask of the {len(self.labelled)} training scans; "
                    "add subjects that have it, or leave it out of the cohort's labels"
                )
        if self.unlabelled is not None:
            if self.unlabelled.labels is not None:
                raise DataError("unlabelled scans must not carry masks: labels that count as unknown could leak")
            both = set(self.labelled.subjects) & set(self.unlabelled.subjects)
            if both:
                raise AuditError(f"subject {min(both)!r} is both labelled and unlabelled; split by subject")
        if self.consensus is not None:
            known = set() if self.unlabelled is None else set(self.unlabelled.ids)
            strangers = sorted(set(self.consensus.ids) - known)
            if strangers:
                raise DataError(f"consensus labels for {strangers[0]!r}, which is not an unlabelled training case")
            if self.consensus.labels is None or self.consensus.confidence is None:
                raise DataError("consensus scans need labels and a confidence per voxel")

    @property
    def pairs(self) -> Dataset:
        """Every scan with labels: the labelled ones (confidence 1), then those with consensus labels."""
        return self.labelled if self.consensus is None else join([self.labelled, self.consensus])

    @property
    def images(self) -> Tensor:
        """Every image that is learnt from, (n, c, i, j, k), in the order of :attr:`ids`."""
        if self.unlabelled is None:
            return self.labelled.images
        return torch.cat([self.labelled.images, self.unlabelled.images])

    @property
    def owners(self) -> tuple[str, ...]:
        """Subject of every case, in the order of :attr:`ids`."""
        return (*self.labelled.subjects, *(() if self.unlabelled is None else self.unlabelled.subjects))

    @property
    def subjects(self) -> frozenset[str]:
        """Every subject whose scans are learnt from."""
        return frozenset(self.owners)

    @property
    def ids(self) -> tuple[str, ...]:
        """Every case that is learnt from, labelled ones first."""
        return (*self.labelled.ids, *(() if self.unlabelled is None else self.unlabelled.ids))


@dataclass(frozen=True, eq=False)
class Synthetic:
    """One synthetic labelled scan on the model grid.

    Attributes:
        image: Model intensities, (c, i, j, k) float32.
        labels: Label numbers, (i, j, k) uint8.
        backend: What made it.
        seed: Makes it again.
        parents: Ids of the training cases it was derived from directly; empty if it was drawn from a model only.
        facts: Further plain data for the provenance record.
        region: Where the scan may differ from its first parent, (i, j, k) bool; None for everywhere. Outside of it
            the scan is the parent's, voxel for voxel.
        made: Labels that were drawn inside ``region``; the others are the parent's own.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    backend: str
    seed: int
    parents: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    region: NDArray[np.bool_] | None = None
    made: tuple[int, ...] = ()


class BackendConfig(Config):
    """Settings that every backend has; each backend's own are documented with it."""


class Backend(ABC):
    """A trained generator of labelled scans. Subclasses are final, one per file.

    Attributes:
        name: Name in configurations and provenance records.
        derived: Whether each sample is a transformed patient scan, which cannot be anonymous.
        Config: Class of its settings.
        families: Model family of each group of network settings, for networks that the training loop trains; a group
            that is not there has the backend's own name as its family.
    """

    name: ClassVar[str]
    derived: ClassVar[bool]
    Config: ClassVar[type[BackendConfig]]
    families: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def estimate(cls, config: Any, outline: Outline, device: str) -> Estimate:
        """What :meth:`fit` and :meth:`sample` will cost, measured on a few small steps.

        The default serves every backend whose settings are named as
        :func:`~medgen.synthesis.estimates.config_estimate` says.

        Args:
            config: Settings, of the backend's ``Config``.
            outline: The cohort.
            device: ``auto``, ``cpu`` or ``cuda[:N]``.
        """
        return config_estimate(cls.name, cls.families, config, outline, device)

    @classmethod
    @abstractmethod
    def fit(cls, sources: Sources, config: Any, context: FitContext) -> Backend:
        """Learn from the sources, labelled and unlabelled, by the settings of the backend's ``Config``."""

    @abstractmethod
    def sample(self, seed: int) -> Synthetic:
        """The scan of this seed; equal seeds give equal scans."""

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder holds a saved backend of this kind, complete or not."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: str = "auto") -> Backend:
        """Read what :meth:`save` wrote; raises ArtifactError if it is incomplete or altered."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that :meth:`load` needs, as data with hashes."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Digest of the trained generator."""

    @property
    @abstractmethod
    def history(self) -> Sequence[Mapping[str, float]]:
        """Records of training, each with ``step``; empty if nothing was trained step by step."""

    @property
    def alarms(self) -> Sequence[Alarm]:
        """What went wrong in training, such as mode collapse; kept with the generator."""
        return ()


@dataclass(frozen=True)
class FitContext:
    """How a backend is fitted, apart from its own settings.

    Attributes:
        preprocess: The recipe of the sources' grid and intensities.
        seed: Of every draw.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        out: Folder for checkpoints; None writes none.
        resume: Go on from a checkpoint in ``out``.
        progress: Whether training shows a progress bar.
        log: Called with (numbers, step).
        tick: Called with (done, all) by backends that count something else than steps.
    """

    preprocess: Preprocess
    seed: int
    device: str = "auto"
    out: Path | None = None
    resume: bool = False
    progress: bool = False
    log: Log | None = None
    tick: Progress | None = None


def guard(parents: Collection[str], sources: Sources) -> None:
    """Refuse a scan whose parents are not all among the training cases.

    Raises:
        AuditError: Naming the case.
    """
    strangers = sorted(set(parents) - set(sources.ids))
    if strangers:
        raise AuditError(
            f"synthetic scan with the parent {strangers[0]!r}, which is not a training case: "
            "held-out data would leak into training; the scan is refused"
        )


def guard_split(sources: Sources, held_out: Collection[str]) -> None:
    """Refuse sources that share a subject with the held-out part.

    Raises:
        AuditError: Naming the subject.
    """
    shared = sorted(sources.subjects & set(held_out))
    if shared:
        raise AuditError(f"subject {shared[0]!r} is both learnt from and held out for testing; split by subject")
