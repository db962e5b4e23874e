"""The two trainings of the lesion backend: forms of lesions, and intensities in a hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from medgen.errors import DataError
from medgen.models.artifact import TrainedModel
from medgen.models.base import ModelConfig
from medgen.models.catalogue import build, parse_settings
from medgen.models.families.inpaint import Inpaint
from medgen.models.families.vaegan import VaeGan
from medgen.models.losses import signed_distance
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive, numpy_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.backends.lesion import forms as lesions
from medgen.synthesis.backends.lesion.bank import Bank, Labels, LesionConfig
from medgen.synthesis.networks import start_facts
from medgen.synthesis.sources import Sources
from medgen.training.trainer import TrainingConfig, fit

Records = list[dict[str, float]]


def shape_settings(config: LesionConfig, crop: lesions.Shape, labels: int) -> ModelConfig:
    """Settings of the network that draws forms.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """
    return parse_settings({**config.shapes, "family": VaeGan.family, "in_channels": labels, "shape": crop})


def inpaint_settings(config: LesionConfig, crop: lesions.Shape, channels: int, labels: int) -> ModelConfig:
    """Settings of the network that draws intensities.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """
    known = {"family": Inpaint.family, "in_channels": channels, "shape": crop, "n_labels": labels}
    return parse_settings({**config.inpaint, **known})


def train_shapes(
    sources: Sources, bank: Bank, config: LesionConfig, context: FitContext
) -> tuple[TrainedModel | None, Records]:
    """The VAE-GAN of forms over truncated signed distances; None where there are too few lesions for one.

    It learns from warped copies too: tens of forms are few, and a lesion has no left or right.
    """
    if len(bank.forms) < config.shapes_from:
        return None, []
    forms, names = [], []
    for row, form in enumerate(bank.forms):
        for copy in range(config.variants):
            rng = numpy_rng(context.seed, "lesion", "variant", row, copy)
            changed = lesions.deformed(form, config.warp, rng) if copy else form
            if np.count_nonzero(changed) >= config.smallest:
                forms.append(changed)
                names.append(f"{row}-{copy}")
    labels = torch.from_numpy(np.stack(forms))[:, None]
    distance = signed_distance(labels, len(bank.labels), config.truncation)
    # Voxels that are far outside of every lesion count little.
    near = (distance > -1).any(dim=1, keepdim=True)
    data = Dataset(tuple(names), tuple(names), distance, near)
    settings = shape_settings(config, bank.crop, len(bank.labels))
    return _train("shapes", settings, data, config.shapes_training, sources, context)


def train_inpainting(
    sources: Sources, bank: Bank, config: LesionConfig, context: FitContext
) -> tuple[TrainedModel, Records]:
    """The GAN that fills holes, on crops around real lesions and on crops of healthy anatomy, as many of each.

    Crops without lesion come from labelled and unlabelled scans alike: they teach anatomy and texture.
    """
    parts = [_lesion_crops(sources.labelled, bank)]
    datasets = [sources.labelled, *([] if sources.unlabelled is None else [sources.unlabelled])]
    parts += [_healthy_crops(data, bank, config, context.seed) for data in datasets]
    healthy = sum(len(part) for part in parts[1:])
    # A training that meets every crop equally often would hardly see the lesions.
    repeats = max(1, round(healthy / max(len(parts[0]), 1)))
    parts = [_renamed(parts[0], f"-{turn}") for turn in range(repeats)] + [part for part in parts[1:] if len(part)]
    data = Dataset(
        ids=tuple(name for part in parts for name in part.ids),
        subjects=tuple(name for part in parts for name in part.subjects),
        images=torch.cat([part.images for part in parts]),
        foregrounds=torch.cat([part.foregrounds for part in parts]),
        labels=torch.cat([part.labels for part in parts if part.labels is not None]),
    )
    settings = inpaint_settings(config, bank.crop, data.channels, len(bank.labels))
    trained, history = _train("inpaint", settings, data, config.inpaint_training, sources, context)
    return trained, history


def _train(
    name: str,
    settings: ModelConfig,
    data: Dataset,
    training: TrainingConfig,
    sources: Sources,
    context: FitContext,
) -> tuple[TrainedModel, Records]:
    model = build(settings, seed=derive(context.seed, "lesion", name, "weights"))

    def log(numbers: Mapping[str, float], step: int) -> None:
        if context.log is not None:
            context.log({f"{name}/{key}": value for key, value in numbers.items()}, step)

    result = fit(
        model,
        data,
        training,
        seed=derive(context.seed, "lesion", name),
        device=context.device,
        out=None if context.out is None else context.out / name,
        resume=context.resume,
        log=log,
        title=f"lesion, {name}",
        progress=context.progress,
    )
    recipe = context.preprocess
    meta = {"kind": "synthesis", "part": name, "steps": result.steps, "crops": len(data)}
    meta |= start_facts(result, sources)
    trained = TrainedModel([result.model.to("cpu")], recipe, meta=meta)
    return trained, [_prefixed(record, name) for record in result.history]


def _prefixed(record: Mapping[str, float], name: str) -> dict[str, float]:
    return {key if key == "step" else f"{name}/{key}": value for key, value in record.items()}


def _lesion_crops(data: Dataset, bank: Bank) -> Dataset:
    windows = [
        (int(row), lesions.window(np.array(centre), bank.crop, data.shape), f"{data.ids[row]}/lesion-{number}")
        for number, (row, *centre) in enumerate(bank.centres.tolist())
    ]
    return _crops(data, bank, windows)


def _healthy_crops(data: Dataset, bank: Bank, config: LesionConfig, seed: int) -> Dataset:
    windows = []
    for row, name in enumerate(data.ids):
        foreground = data.foregrounds[row, 0].numpy()
        for number in range(config.healthy_crops):
            box = lesions.random_window(foreground, bank.crop, seed, "lesion", "healthy", name, number)
            windows.append((row, box, f"{name}/healthy-{number}"))
    return _crops(data, bank, windows)


def _crops(data: Dataset, bank: Bank, windows: Sequence[tuple[int, tuple[slice, ...], str]]) -> Dataset:
    """Windows of scans with lesion indices as labels; those without labels have none anywhere."""
    shape = (0, data.channels, *bank.crop)
    images = [data.images[row][(slice(None), *box)] for row, box, _ in windows]
    foregrounds = [data.foregrounds[row][(slice(None), *box)] for row, box, _ in windows]
    labels = [torch.from_numpy(_indices(data, row, box, bank))[None] for row, box, _ in windows]
    return Dataset(
        ids=tuple(name for _, _, name in windows),
        subjects=tuple(data.subjects[row] for row, _, _ in windows),
        images=torch.stack(images) if images else torch.zeros(shape),
        foregrounds=torch.stack(foregrounds) if images else torch.zeros((0, 1, *bank.crop), dtype=torch.bool),
        labels=torch.stack(labels) if images else torch.zeros((0, 1, *bank.crop), dtype=torch.uint8),
    )


def _indices(data: Dataset, row: int, box: tuple[slice, ...], bank: Bank) -> Labels:
    if data.labels is None:
        return np.zeros(bank.crop, dtype=np.uint8)
    return lesions.lesion_indices(data.labels[row, 0][box].numpy(), bank.labels)


def _renamed(data: Dataset, suffix: str) -> Dataset:
    if not len(data):
        raise DataError("there is no crop with a lesion")
    return replace(data, ids=tuple(name + suffix for name in data.ids))
