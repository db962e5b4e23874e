"""What both halves of a pair are: fitted to the sources, kept as arrays and networks, able to say what they cost."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from numpy.typing import NDArray

from medgen.config import Config
from medgen.errors import ArtifactError
from medgen.models.artifact import TrainedModel
from medgen.models.base import ScanModel
from medgen.models.sampling import SamplingConfig
from medgen.models.stored_arrays import Stored, load_stored
from medgen.synthesis.estimates import Outline, config_estimate
from medgen.synthesis.suitability import Hardware, Suitability
from medgen.system.precision import Precision, bf16_works
from medgen.training.cost import Estimate
from medgen.training.gan_alarms import Alarm
from medgen.training.trainer import device_of
from medgen.training.transfer.source import LINEAGE, Lineage

M = TypeVar("M", bound=ScanModel)


class Part(ABC):
    """A fitted half of a pair: its arrays and plain data, and the networks that it trained.

    Attributes:
        role: ``labels`` or ``painter``: the group of its settings, and its folder.
        name: Name in the names of pairs; that of its file.
        Config: Class of its settings.
        Sampling: Class of those of them that nothing fitted depends on, so that they can be chosen anew at sampling.
        tiny: Settings that make fitting it a test of seconds.
        families: Model family of each group of network settings, for networks that the training loop trains.
        turn: When ``generators: auto`` asks a pair with it; the later turn of both halves counts.

    Args:
        stored: From :meth:`record` or the disk.
        networks: Trained networks by name.
        history: Records of training, each with ``step``.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        ArtifactError: If the record is of something else.
    """

    role: ClassVar[str]
    name: ClassVar[str]
    Config: ClassVar[type[Config]]
    Sampling: ClassVar[type[SamplingConfig]] = SamplingConfig
    tiny: ClassVar[Mapping[str, Any]] = {}
    families: ClassVar[Mapping[str, str]] = {}
    turn: ClassVar[int] = 100

    def __init__(
        self,
        stored: Stored,
        networks: Mapping[str, TrainedModel] | None = None,
        history: Sequence[Mapping[str, float]] = (),
        device: str = "auto",
    ) -> None:
        if stored.kind != self.kind():
            raise ArtifactError(f"expected a record of {self.kind()!r}, found one of {stored.kind!r}")
        self.stored, self._networks = stored, dict(networks or {})
        kept = self.settings_in(stored)
        self.sampling = self.Sampling.model_validate(
            {key: kept[key] for key in self.Sampling.model_fields if key in kept}
        )
        self.device, self.history = device_of(device), tuple(history)
        self.sha256 = stored.sha256
        begun = {name: trained.meta.get("init") for name, trained in self._networks.items()}
        self.starts = {f"{self.name} ({name})": record for name, record in begun.items() if record is not None}
        self.lineages = {
            f"{self.name} ({name})": Lineage.of(self._networks[name].meta.get(LINEAGE))
            for name, record in begun.items()
            if record is not None
        }
        self.alarms = tuple(Alarm(**entry) for entry in stored.meta.get("alarms", ()))
        # Artifacts stay on the CPU until their hashes are known; networks in use may be elsewhere.
        for trained in self._networks.values():
            for model in trained.models:
                model.to(self.device).eval()
        self.prepare()

    def prepare(self) -> None:  # noqa: B027 - not every half has something to prepare
        """Get ready to be used, once record and networks are there; nothing to do by default.

        Raises:
            ArtifactError: If the record lacks something.
        """

    @classmethod
    def kind(cls) -> str:
        """What its record is called on the disk."""
        return f"{cls.role} {cls.name}"

    @classmethod
    def settings_in(cls, stored: Stored) -> Mapping[str, Any]:
        """Where in its record the settings are that it was fitted with; by default among all else."""
        return stored.meta

    def sampled_by(self, sampling: SamplingConfig) -> Self:
        """The same, fitted arrays and all, that samples by other options of its ``Sampling``."""
        other = copy.copy(self)
        other.sampling = sampling
        return other

    @classmethod
    def record(
        cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], networks: Mapping[str, TrainedModel]
    ) -> Stored:
        """Arrays and plain data with the digests of the networks that belong to them."""
        digests = {name: trained.sha256 for name, trained in networks.items()}
        return Stored(cls.kind(), arrays, {**meta, "parts": digests})

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """Whether ``generators: auto`` takes a pair with it, as far as it depends on this half; None for never.

        Arguments as for :meth:`medgen.synthesis.backend.Backend.suits`. The default says nothing: pairs with it are
        trained only where a configuration names them.
        """
        del outline, machine, cared_for
        return None

    @classmethod
    def estimate(cls, config: Any, outline: Outline, device: str, name: str) -> Estimate:
        """What fitting and using it costs; the default serves settings that pair networks with trainings.

        Args:
            config: Settings, of its ``Config``.
            outline: The cohort.
            device: ``auto``, ``cpu`` or ``cuda[:N]``.
            name: Name of the pair, which begins every line of the plan.
        """
        return config_estimate(name, cls.families, config, outline, device)

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: If a file is missing, altered, or not the one that belongs to the others.
        """
        stored = load_stored(folder)
        if stored.kind != cls.kind():
            raise ArtifactError(f"{folder}: expected a record of {cls.kind()!r}, found one of {stored.kind!r}")
        digests = stored.meta.get("parts")
        if not isinstance(digests, Mapping) or not all(Path(name).name == name for name in digests):
            raise ArtifactError(f"{folder}: its record does not name its networks; restore it from a copy")
        networks = {name: TrainedModel.load(folder / name) for name in sorted(digests)}
        stored.check_parts(folder, {name: trained.sha256 for name, trained in networks.items()})
        return cls(stored, networks, device=device)

    def save(self, folder: Path) -> None:
        """Write a folder for each network, and last the arrays and the record with their digests."""
        for name, trained in self._networks.items():
            trained.save(folder / name)
        self.stored.save(folder)

    def precision(self, name: str) -> Precision:
        """That in which a network was trained, where this machine computes it soundly; float32 otherwise.

        Sampling spends most of its time in forward passes, which are several times faster in bfloat16.
        """
        trained = self._networks.get(name)
        wanted = trained is not None and trained.meta.get("bf16") is True
        return Precision(self.device, bf16=wanted and bf16_works(str(self.device)))

    def network(self, name: str, kind: type[M]) -> M:
        """A trained network.

        Raises:
            ArtifactError: If there is none of this name and class.
        """
        trained = self._networks.get(name)
        model = None if trained is None else trained.models[0]
        if not isinstance(model, kind):
            raise ArtifactError(f"{self.kind()}: expected a network {name!r} of the family {kind.family!r}")
        return model
