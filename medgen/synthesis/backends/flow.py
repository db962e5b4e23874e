"""Labels of training scans, moved by the learned deformations, on which a flow paints new images (family ``flow``).

Labels are right by construction: no label is inferred, the image is made for it. The anatomy is a patient's in another
shape, its intensities and all its detail are drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from pydantic import Field, field_validator

from medgen.errors import ArtifactError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build, parse_settings
from medgen.models.families.flow import Flow
from medgen.models.stored_arrays import Stored, load_stored, stored_kind
from medgen.seeds import derive, torch_rng
from medgen.synthesis.backend import Backend, BackendConfig, FitContext, Synthetic
from medgen.synthesis.backends.deform import Deform, DeformConfig
from medgen.synthesis.cohort.training_pairs import balanced_pairs
from medgen.synthesis.estimates import Outline, config_estimate
from medgen.synthesis.sources import Sources
from medgen.training.cost import Estimate
from medgen.training.trainer import TrainingConfig, device_of, fit

LABELS, IMAGE = "labels", "image"
# Without augmentation: linear resampling takes a fifth of the detail away that a painter is to learn.
_TRAINING: dict[str, Any] = {"steps": 1600, "lr": 2e-3, "ema": 0.998}


class FlowConfig(BackendConfig):
    """Settings of the flow backend.

    Attributes:
        labels: How training anatomies are moved, as in the backend ``deform``.
        model: Settings of the family ``flow``; ``shape``, ``in_channels`` and ``n_labels`` are filled in.
        training: How it is trained.
        labelled_share: Share of labelled scans among those drawn for training, where there are consensus labels too.
    """

    labels: DeformConfig = DeformConfig()
    model: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig(**_TRAINING)
    labelled_share: float = Field(default=0.4, ge=0, lt=1)

    @field_validator("training", mode="before")
    @classmethod
    def _recipe(cls, given: Any) -> Any:
        # Naming the steps must not take the rest of the recipe away.
        return {**_TRAINING, **given} if isinstance(given, Mapping) else given


@final
class FlowBackend(Backend):
    """A trained pair: the deformations that move labels, and the flow that paints them."""

    name: ClassVar[str] = "flow"
    derived: ClassVar[bool] = True
    Config: ClassVar[type[BackendConfig]] = FlowConfig
    families: ClassVar[Mapping[str, str]] = {"model": Flow.family}
    tiny: ClassVar[Mapping[str, Any]] = {
        "labels": Deform.tiny,
        "model": {"widths": (16, 32), "style": 2, "sampling_steps": 2},
        "training": {"steps": 3, "batch_size": 2, "log_every": 1},
    }

    def __init__(
        self, labels: Deform, image: TrainedModel, stored: Stored, history: Sequence[Mapping[str, float]] = ()
    ) -> None:
        painting = image.models[0]
        if not isinstance(painting, Flow):
            raise ArtifactError("expected a model of the family 'flow'")
        self._labels, self._image, self._painting, self._stored = labels, image, painting, stored
        self._numbers = list(stored.meta["labels"])
        self._history = tuple(history)

    @classmethod
    def estimate(cls, config: FlowConfig, outline: Outline, device: str) -> Estimate:
        """Cost of the registrations and of the training; a sample takes two passes for each step of the solver."""
        moved = Deform.estimate(config.labels, outline, device)
        painted = config_estimate(cls.name, cls.families, config, outline, device)
        passes = 2 * int(config.model.get("sampling_steps", Flow.Settings.model_fields["sampling_steps"].default)) - 1
        lines = tuple(f"flow, labels by {line}" for line in moved.lines)
        return replace(moved, lines=lines) + replace(painted, sample_seconds=passes * painted.sample_seconds)

    @classmethod
    def fit(cls, sources: Sources, config: FlowConfig, context: FitContext) -> FlowBackend:
        """Learn the deformations, then train the flow on all scans with labels.

        Raises:
            ConfigError: If a model setting is wrong.
            DataError: If there is no pair of different subjects.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        labels = Deform.fit(sources, config.labels, context)
        train = balanced_pairs(sources, config.labelled_share)
        known = {"in_channels": train.channels, "shape": train.shape, "n_labels": len(sources.labels)}
        settings = parse_settings({**config.model, "family": Flow.family, **known})
        fitted = fit(
            build(settings, seed=derive(context.seed, "flow", "weights")),
            train,
            config.training,
            seed=derive(context.seed, "flow"),
            device=context.device,
            out=None if context.out is None else context.out / IMAGE,
            resume=context.resume,
            log=context.log,
            title="flow",
            progress=context.progress,
        )
        pairs = sources.pairs
        facts = {"kind": "synthesis", "labels": list(sources.labels), "learnt_from": list(pairs.ids)}
        image = TrainedModel([fitted.model.to("cpu")], context.preprocess, meta={**facts, "steps": fitted.steps})
        parts = {LABELS: labels.sha256, IMAGE: image.sha256}
        meta = {
            "labels": list(sources.labels),
            "learnt_from": list(sources.ids),
            "highest_intensity": float(pairs.images.max()),
            "parts": parts,
            "contains_patient_scans": True,
        }
        return cls(labels, image, Stored(cls.name, {}, meta), fitted.history)._on(device_of(context.device))

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether the folder's record was written by this backend."""
        return stored_kind(folder) == cls.name

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> FlowBackend:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: If a part is missing, altered, or not the one that belongs to the others.
        """
        stored = load_stored(folder)
        labels, image = Deform.load(folder / LABELS, device), TrainedModel.load(folder / IMAGE)
        stored.check_parts(folder, {LABELS: labels.sha256, IMAGE: image.sha256})
        return cls(labels, image, stored)._on(device_of(device))

    def save(self, folder: Path) -> None:
        """Write ``labels/`` and ``image/``, and last the record with their hashes; it holds patients' scans."""
        self._labels.save(folder / LABELS)
        self._image.save(folder / IMAGE)
        self._stored.save(folder)

    @property
    def sha256(self) -> str:
        """Digest of the record, which covers both parts."""
        return self._stored.sha256

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Records of the flow's training; empty after loading."""
        return self._history

    @torch.no_grad()
    def sample(self, seed: int) -> Synthetic:
        """A training anatomy, moved, and painted in a style that is drawn for it."""
        moved = self._labels.sample(derive(seed, "flow", LABELS))
        painting, device = self._painting, self._painting.mean.device
        labels = torch.zeros((1, 1, *moved.labels.shape), dtype=torch.long)
        for index, number in enumerate(self._numbers, start=1):
            labels[0, 0][torch.from_numpy(moved.labels == number)] = index
        style = painting.draw_style(labels.to(device), torch_rng(seed, "flow", "style"))
        noise = painting.draw_noise(1, torch_rng(seed, "flow", "noise"))
        view = torch.from_numpy((moved.image > 0).any(0))[None, None].to(device)
        image = painting.paint(labels.to(device), style, noise, view)[0].clamp(
            0, self._stored.meta["highest_intensity"]
        )
        return Synthetic(
            image=image.cpu().numpy(),
            labels=moved.labels,
            backend=self.name,
            seed=seed,
            parents=moved.parents,
            facts={**moved.facts, "labels": "moved, and painted"},
        )

    def _on(self, device: torch.device) -> FlowBackend:
        self._painting.to(device).eval()
        return self
