"""What every way of making labelled scans has in common: sources, samples, and the guard against leaks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from medgen.config import Config
from medgen.models.sampling import Options, SamplingConfig
from medgen.progress import Log, Progress
from medgen.synthesis.estimates import Outline, config_estimate
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability
from medgen.training.cost import Estimate
from medgen.training.gan_alarms import Alarm
from medgen.training.transfer.source import Lineage

if TYPE_CHECKING:
    from medgen.preprocessing.recipe import Preprocess


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

    Three scans with a bright cube (label 1), and a new one that is one of them, deformed towards another:

    >>> import torch
    >>> from medgen.preprocessing.dataset import Dataset
    >>> from medgen.preprocessing.recipe import Preprocess
    >>> from medgen.synthesis.backends import backend_class
    >>> labels = torch.zeros(3, 1, 12, 12, 12, dtype=torch.uint8)
    >>> for scan, end in enumerate((8, 9, 10)):
    ...     labels[scan, 0, 3:end, 3:9, 3:9] = 1
    >>> cohort = Dataset(("a", "b", "c"), ("ann", "bob", "cem"), labels.float(), labels > 0, labels)
    >>> deform = backend_class("deform")
    >>> config = deform.Config.model_validate({"pairs": 6, "registration": {"spacing": 6, "iterations": 3}})
    >>> context = FitContext(Preprocess(shape=(12, 12, 12), spacing=(2, 2, 2)), seed=0, device="cpu")
    >>> new = deform.fit(Sources(cohort, None, labels=(1,)), config, context).sample(seed=7)
    >>> new.image.shape, new.labels.shape, set(new.parents) <= set(cohort.ids)
    ((1, 12, 12, 12), (12, 12, 12), True)

    Attributes:
        name: Name in configurations and provenance records.
        derived: Whether each sample is a transformed patient scan, or shows a patient's anatomy: it cannot be
            anonymous.
        derivation: What its samples are where that is so, in the words of the audit.
        Config: Class of its settings.
        Sampling: Class of those of them that can be chosen anew at sampling.
        sampling: Those that it samples by, at first the ones that it was fitted with.
        families: Model family of each group of network settings, for networks that the training loop trains; a group
            that is not there has the backend's own name as its family.
        tiny: Settings that make fitting it a test of seconds.
        turn: When ``generators: auto`` asks and trains it: lower numbers come first, equal ones by name.
        stands_in_for: Name of a backend in whose place ``auto`` asks this one, where an installation has none of it.
    """

    name: ClassVar[str]
    derived: ClassVar[bool]
    derivation: ClassVar[str] = "its scans are transformed patient scans"
    Config: ClassVar[type[BackendConfig]]
    Sampling: ClassVar[type[Options]] = SamplingConfig
    families: ClassVar[Mapping[str, str]] = {}
    tiny: ClassVar[Mapping[str, Any]] = {}
    turn: ClassVar[int] = 100
    stands_in_for: ClassVar[str] = ""
    sampling: Options = SamplingConfig()

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """Whether ``generators: auto`` takes this backend, and why; None where there is nothing to say of it.

        The default says nothing: such a backend is trained only where a configuration names it.

        Args:
            outline: The cohort, with the facts of its labels.
            machine: What the run may use.
            cared_for: Labels that backends with an earlier turn care for by themselves.
        """
        del outline, machine, cared_for
        return None

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

    def sampled_by(self, sampling: Any) -> Self:
        """The same generator, digest and all, that samples by other options of its ``Sampling``."""
        other = copy.copy(self)
        other.sampling = sampling
        return other

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
    def starts(self) -> Mapping[str, Mapping[str, Any]]:
        """What networks started from, by their names, where those were trained models; kept with the generator."""
        return {}

    @property
    def lineages(self) -> Mapping[str, Lineage | None]:
        """From whom networks have learnt that started from trained models, these models included, by the same names.

        None where such a model does not say.
        """
        return {}

    @property
    def alarms(self) -> Sequence[Alarm]:
        """What went wrong in training, such as mode collapse; kept with the generator."""
        return ()


@dataclass(frozen=True)
class FitContext:
    """How a backend is fitted, apart from its own settings.

    Attributes:
        preprocess: The recipe of the sources' grid and intensities.
        seed: Seed of every random draw; equal seeds train equal generators.
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
