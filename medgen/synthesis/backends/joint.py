"""Labelled scans from a generative model of image and labels together (family ``joint``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
from pydantic import Field

from medgen.errors import ArtifactError
from medgen.models.artifact import MANIFEST, TrainedModel
from medgen.models.families.joint import Joint
from medgen.models.sampling import GaussianSampling, Options
from medgen.seeds import torch_rng
from medgen.synthesis.backend import Backend, BackendConfig, FitContext, Synthetic
from medgen.synthesis.cohort.training_pairs import balanced_pairs
from medgen.synthesis.estimates import Outline
from medgen.synthesis.networks import build_network, start_facts, train_network
from medgen.synthesis.recipe import MILD, completed_by
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability, for_new_anatomies
from medgen.training.gan_alarms import Alarm, AlarmConfig, Watch, alarms
from medgen.training.trainer import TrainingConfig, device_of
from medgen.training.transfer.source import LINEAGE, Lineage

# The recipe of the spade backend; the family's own defaults are those of anomaly detection.
_RECIPE = {"discriminator_scales": 2, "ada_target": 0.6, "r1": 1.0}
_TRAINING: dict[str, Any] = {"lr_discriminator": 0.3, "augment": MILD}


class JointConfig(GaussianSampling, BackendConfig):
    """Settings of the joint backend; ``temperature`` and ``limit`` can be chosen anew at sampling.

    Attributes:
        model: Settings of the family ``joint``; ``shape``, ``in_channels`` and ``n_labels`` are filled in.
            Other than in ``medgen train``, two discriminator scales and adaptive augmentation are the default.
        training: How it is trained.
        labelled_share: Share of labelled scans among those drawn for training, where there are consensus labels too.
        alarms: When training raises an alarm.
    """

    model: dict[str, Any] = Field(default_factory=dict)
    training: Annotated[TrainingConfig, completed_by(_TRAINING)] = TrainingConfig(**_TRAINING)
    labelled_share: float = Field(default=0.4, ge=0, lt=1)
    alarms: AlarmConfig = AlarmConfig()


@final
class JointBackend(Backend):
    """A trained joint model with the label numbers of its channels."""

    name: ClassVar[str] = "joint"
    derived: ClassVar[bool] = False
    Config: ClassVar[type[BackendConfig]] = JointConfig
    Sampling: ClassVar[type[Options]] = GaussianSampling
    sampling: GaussianSampling
    tiny: ClassVar[Mapping[str, Any]] = {
        "model": {"widths": (16, 32), "latent": 4, "narrow": 4, "discriminator_widths": (16, 16)},
        "training": {"steps": 3, "batch_size": 2, "log_every": 1},
    }
    families: ClassVar[Mapping[str, str]] = {"model": Joint.family}
    turn: ClassVar[int] = 30
    stands_in_for: ClassVar[str] = "spade"

    def __init__(self, trained: TrainedModel, history: Sequence[Mapping[str, float]] = ()) -> None:
        if len(trained.models) != 1 or not isinstance(trained.models[0], Joint):
            raise ArtifactError("expected an artifact with one model of the family 'joint'")
        self._trained = trained
        self._model = trained.models[0]
        self.sampling = self._model.sampling
        self._numbers = torch.tensor([0, *trained.meta["labels"]], dtype=torch.uint8)
        self._high = float(trained.meta["highest_intensity"])
        self._history = tuple(history)
        self._sha256 = trained.sha256
        self._alarms = tuple(Alarm(**entry) for entry in trained.meta.get("alarms", ()))

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """For many scans and a GPU, where there is no ``spade``."""
        return for_new_anatomies(outline, machine, cared_for)

    @classmethod
    def fit(cls, sources: Sources, config: JointConfig, context: FitContext) -> JointBackend:
        """Train the joint model on labelled scans, and on unlabelled ones with consensus labels by their confidence.

        Raises:
            ConfigError: If a model setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        train = balanced_pairs(sources, config.labelled_share)
        model = build_network(Joint.family, {**_RECIPE, **config.model}, sources, context, cls.name)
        model.sampling = GaussianSampling.of(config)
        watch = Watch(config.training.steps, context.log, config.alarms)
        result = train_network(model, train, config.training, context, cls.name, log=watch)
        raised = alarms(result.history, config.training.steps, config.alarms)
        meta = {
            "kind": "synthesis",
            "labels": list(sources.labels),
            "learnt_from": list(sources.pairs.ids),
            "highest_intensity": float(train.images.max()),
            "steps": result.steps,
            **start_facts(result, sources),
            "alarms": [asdict(alarm) for alarm in raised],
        }
        trained = TrainedModel([result.model.to("cpu")], context.preprocess, meta=meta)
        return cls(trained, result.history)._on(device_of(context.device))

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the artifact's manifest, without a record of another kind beside it."""
        return (folder / MANIFEST).is_file()

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> JointBackend:
        """Read the artifact; see :meth:`medgen.models.artifact.TrainedModel.load` for the errors."""
        return cls(TrainedModel.load(folder))._on(device_of(device))

    def save(self, folder: Path) -> None:
        """Write the artifact."""
        self._trained.save(folder)

    @property
    def sha256(self) -> str:
        """Digest of the artifact."""
        return self._sha256

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Records of training; empty after loading."""
        return self._history

    @property
    def starts(self) -> Mapping[str, Any]:
        """As it says in the artifact."""
        record = self._trained.meta.get("init")
        return {} if record is None else {self.name: record}

    @property
    def lineages(self) -> Mapping[str, Lineage | None]:
        """As it says in the artifact."""
        return {name: Lineage.of(self._trained.meta.get(LINEAGE)) for name in self.starts}

    @property
    def alarms(self) -> Sequence[Alarm]:
        """What went wrong in training; kept with the weights."""
        return self._alarms

    def sampled_by(self, sampling: GaussianSampling) -> JointBackend:
        """The same model, which draws its codes by other options."""
        other = super().sampled_by(sampling)
        other._model = self._model.sampled_by(sampling)
        return other

    def sample(self, seed: int) -> Synthetic:
        """Image and labels decoded from one code of the aggregated posterior."""
        image, labels = self._model.sample_labelled(1, torch_rng(seed, "joint", "sample"))
        numbered = self._numbers[labels[0].cpu().long()]
        return Synthetic(
            image=image[0].float().clamp(0, self._high).cpu().numpy().astype(np.float32),
            labels=numbered.numpy(),
            backend=self.name,
            seed=seed,
            facts={"alarms": [alarm.name for alarm in self._alarms]} if self._alarms else {},
        )

    def _on(self, device: torch.device) -> JointBackend:
        self._model.to(device).eval()
        return self
