"""Benchmark of families: rebuilt scans, likelihood, new scans and heatmaps on unseen subjects, beside linear models."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medgen.config import load_config
from medgen.errors import ConfigError
from medgen.models.base import ScanModel
from medgen.models.catalogue import available, build, parse_sampling, settings_for
from medgen.models.likelihoods.linear_gaussian import LinearGaussian
from medgen.preprocessing.dataset import Dataset
from medgen.runs.folder import RunSummary
from medgen.seeds import derive
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.cohort.training_pairs import numbered
from medgen.system.files import sha256_json, write_json, write_text
from medgen.training.peak_memory import step_memory
from medgen.training.trainer import fit
from medgen.transforms.augmentation import AugmentConfig

from ..train_settings import TrainRunConfig
from . import family_measures
from .cells import kept, read_scans, shipped
from .family_measures import NOTHING, RECONSTRUCTION, SAMPLES

# Numbers of principal components, and steps of the segmenter that judges new scans.
_COMPONENTS, _JUDGE_STEPS = (12, 24, 64), 400
# Steps of the two trainings that tell how long a step takes.
_PROBES = (12, 36)
# Column, its title and digits.
_COLUMNS = (
    ("psnr", "PSNR", 2),
    ("ssim", "SSIM", 3),
    ("nats", "nats", 3),
    ("kid", "KID", 1),
    ("mmd", "MMD²", 1),
    ("density", "density", 2),
    ("coverage", "coverage", 2),
    ("ms_ssim", "MS-SSIM", 2),
    ("detail", "detail", 2),
    ("nearest", "nearest", 3),
    ("dice", "Dice", 3),
    ("ap", "AP", 3),
    ("seconds", "seconds", 0),
    ("parameters", "parameters", 0),
    ("mebibytes", "MiB", 0),
)


def run(
    out: Path,
    *,
    data: Path,
    families: Sequence[str],
    seeds: Sequence[int],
    seconds: float | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    progress: bool = False,
) -> RunSummary:
    """Train families under every seed, measure them on held-out subjects; ``families.md`` and ``.json``.

    What a family has reached under a seed is kept in ``cells/`` and not computed again with the same settings.

    Args:
        out: Folder of the results.
        data: A cohort.
        families: Families with a shipped configuration ``train/<family>.yaml``.
        seeds: Seeds of split, weights, training and samples.
        seconds: Processor time that each training gets, instead of the steps of its configuration: two short trainings
            tell how many steps that are.
        overrides: ``key=value`` of these configurations, for all alike.
        device: Where to train.
        progress: Show progress bars.

    Raises:
        ConfigError: If no family is named, or one is unknown or has no shipped configuration.
        DataError: If the cohort has too few subjects.
    """
    able = [name for name in available() if shipped(name).is_file()]
    if not families:
        raise ConfigError(f"--families: expected some of {able}, found none")
    if wrong := [name for name in families if name not in able]:
        raise ConfigError(f"--families: expected some of {able}, found {wrong[0]!r}")
    own = [f"data={data}", f"out={out}", *([f"device={device}"] if device else []), *overrides]
    configs = {name: load_config(TrainRunConfig, shipped(name), own) for name in families}
    cells: list[dict[str, Any]] = []
    for seed in dict.fromkeys(seeds):
        cells += _seed(configs, seed, seconds, out, progress)
    command = " ".join(
        [
            f"medgen bench families OUT --data DATA --families {','.join(families)}",
            f"--seeds {','.join(str(seed) for seed in dict.fromkeys(seeds))}",
            *([] if seconds is None else [f"--seconds {seconds:g}"]),
            *(f"--set {item}" for item in overrides),
        ]
    )
    text = table(cells, command)
    write_json(out / "families.json", {"command": command, "cells": cells})
    write_text(out / "families.md", text)
    return RunSummary(out, 0, (text, f"written: {out / 'families.md'}"))


def table(cells: Sequence[Mapping[str, Any]], command: str) -> str:
    """The results as a page in Markdown: every seed's own, and their mean; a column that nobody has is left out."""
    shown = [column for column in _COLUMNS if any(np.isfinite(cell[column[0]]) for cell in cells)]
    lines = [
        "# Families on unseen subjects",
        "",
        f"`{command}`: every method learns from the same scans, and is measured on scans of subjects that it has not "
        "seen. An empty cell: the family does not offer it.",
        "",
        "* PSNR in dB and SSIM of rebuilt scans, in the foreground, for a range of intensities of 1 (1st to 99th "
        "percentile).",
        "* nats: log-likelihood per voxel of the foreground, higher is better; exact for pca-k (the Gaussian of k "
        f"components and of what they leave per voxel), for families what they say of themselves, with "
        f"{family_measures.DRAWS} draws.",
        "* KID, MMD², MS-SSIM of as many new scans as there are held-out ones, as multiples of what halves of the "
        "held-out scans differ by (1 is as good as real); density and coverage likewise by features of a segmenter "
        "that learnt from the training scans. Families that paint get the label maps of the held-out scans; Dice is "
        "what that segmenter sees on them.",
        "* detail: standard deviation of what a mean over 3³ voxels takes away, over that of real scans. nearest: mean "
        "largest correlation with a training scan; the line `real` says what other people's scans have.",
        "* AP: average precision over the voxels of implants in the held-out scans, by the family's own map as it is.",
        "* Seconds of processor time for training; MiB: what a training step takes at most, counted.",
        "",
        "| method | seed | scans | " + " | ".join(title for _, title, _ in shown) + " |",
        "|---|---|---|" + "---|" * len(shown),
    ]
    for name in dict.fromkeys(cell["method"] for cell in cells):
        rows = [cell for cell in cells if cell["method"] == name]
        mean = {**rows[0], **family_measures.means(rows, [key for key, _, _ in shown]), "seed": "mean"}
        for row in rows if len(rows) == 1 else [*rows, mean]:
            values = ["" if np.isnan(row[key]) else f"{row[key]:.{digits}f}" for key, _, digits in shown]
            lines.append(f"| {name} | {row['seed']} | {row['training']} + {row['test']} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, eq=False)
class _Scans:
    """Scans of one seed and preprocessing, and the segmenter that learnt from them.

    Attributes:
        config: A configuration with this preprocessing.
        train, test: The scans, labels numbered 1, 2, ...
        labels: These numbers.
        seed: The seed.
    """

    config: TrainRunConfig
    train: Dataset
    test: Dataset
    labels: tuple[int, ...]
    seed: int
    _judges: list[Segmenter] = field(default_factory=list)

    @classmethod
    def read(cls, config: TrainRunConfig, seed: int, progress: bool) -> _Scans:
        train, test, found = read_scans(config, seed, progress, with_masks=True)
        if found:
            train, test = numbered(train, found), numbered(test, found)
        return cls(config, train, test, tuple(range(1, len(found) + 1)), seed)

    @property
    def spacing(self) -> Sequence[float]:
        return self.config.preprocess.spacing

    @property
    def judge(self) -> Segmenter | None:
        """Trained when it is first asked for; None without masks."""
        if not self.labels:
            return None
        if not self._judges:
            self._judges.append(
                train_segmenter(
                    self.train,
                    SegmenterConfig(steps=_JUDGE_STEPS),
                    derive(self.seed, "families", "judge"),
                    labels=self.labels,
                    augmentation=AugmentConfig(),
                    device=self.config.device,
                )
            )
        return self._judges[0]

    def measured(self, model: Any) -> dict[str, Any]:
        """What a model reaches; columns of training apart."""
        train, test, seed = self.train, self.test, self.seed
        found: dict[str, Any] = family_measures.reconstruction(model, test, seed)
        if self.judge is None:
            found |= dict.fromkeys(SAMPLES, NOTHING)
        else:
            found |= family_measures.samples(model, train, test, self.judge, self.labels, self.spacing, seed)
        found |= family_measures.anomaly_ap(model, train, test, self.spacing, seed)
        return {**found, "training": len(train), "test": len(test)}

    def real(self) -> dict[str, Any]:
        """Training scans of as many people as there are held-out scans, in the place of new ones."""
        train, test = self.train, self.test
        rows = list(range(0, len(train), max(len(train) // len(test), 1)))[: len(test)]
        found: dict[str, Any] = dict.fromkeys((*RECONSTRUCTION, *SAMPLES, "ap", "prevalence"), NOTHING)
        if self.judge is not None:
            images = train.images[rows]
            found |= family_measures.sampled(
                images, train, test, self.judge, self.labels, self.spacing, self.seed, painted=False
            )
            found["dice"] = family_measures.judged_dice(self.judge, test.images, _masks(test), self.labels)
        found["nearest"] = float(family_measures.nearest(test.images, train.images).mean())
        sizes = {"seconds": 0.0, "parameters": 0, "mebibytes": NOTHING}
        return {**found, **sizes, "training": len(train), "test": len(test)}


def _masks(data: Dataset) -> Any:
    if data.labels is None:
        raise ValueError("expected scans with masks")
    return data.labels


def _seed(
    configs: Mapping[str, TrainRunConfig], seed: int, seconds: float | None, out: Path, progress: bool
) -> list[dict[str, Any]]:
    """The cells of one seed; scans are prepared once for families with one preprocessing, if they are needed at all."""
    cells: list[dict[str, Any]] = []
    ready: dict[str, _Scans] = {}
    for name, config in configs.items():
        common = {"seed": seed, "data": str(config.data), "preprocess": config.preprocess.model_dump(mode="json")}
        scans = partial(_ready, ready, sha256_json(common), config, seed, progress)
        plain: list[tuple[str, Callable[[], dict[str, Any]]]] = [("real", partial(_real, scans))]
        plain += [(f"pca-{count}", partial(_linear, scans, count)) for count in _COMPONENTS]
        for method, compute in plain:
            said = {"method": method, **common}
            if not any(cell["key"] == sha256_json(said) for cell in cells):
                cells.append(kept(out, said, compute))
        training = config.training.model_dump(mode="json", exclude={"steps"} if seconds is not None else set())
        said = {"method": name, **common, "model": config.model, "training": training, "seconds": seconds}
        said["sampling"] = config.sampling
        cells.append(kept(out, said, partial(_family, scans, config, seconds, progress)))
    return cells


def _ready(ready: dict[str, _Scans], key: str, config: TrainRunConfig, seed: int, progress: bool) -> _Scans:
    if key not in ready:
        ready[key] = _Scans.read(config, seed, progress)
    return ready[key]


def _real(scans: Callable[[], _Scans]) -> dict[str, Any]:
    return scans().real()


def _linear(scans: Callable[[], _Scans], count: int) -> dict[str, Any]:
    own = scans()
    start = time.process_time()
    model = LinearGaussian.fit(own.train, count)
    seconds = time.process_time() - start
    parameters = sum(buffer.numel() for buffer in model.linear.buffers())
    return {**own.measured(model), "seconds": seconds, "parameters": parameters, "mebibytes": NOTHING}


def _family(
    scans: Callable[[], _Scans], config: TrainRunConfig, seconds: float | None, progress: bool
) -> dict[str, Any]:
    own = scans()
    steps = config.training.steps
    if seconds is not None:
        (few, cost), (more, higher) = ((number, _trained(own, config, number, False)[1]) for number in _PROBES)
        each = max(higher - cost, 1e-3) / (more - few)
        steps = max(int(few + (seconds - cost) / each), few)
    model, spent = _trained(own, config, steps, progress)
    settings = settings_for(config.model, own.train.shape, own.train.channels, len(own.labels))
    memory = step_memory(settings, config.training, len(own.labels)).peak / 2**20
    sizes = {"seconds": spent, "parameters": model.parameter_count, "mebibytes": memory, "steps": steps}
    return {**own.measured(model), **sizes}


def _trained(own: _Scans, config: TrainRunConfig, steps: int, progress: bool) -> tuple[ScanModel, float]:
    """A family's model after so many steps, in evaluation mode, and the processor time that took."""
    start = time.process_time()
    settings = settings_for(config.model, own.train.shape, own.train.channels, len(own.labels))
    untrained = build(settings, seed=derive(own.seed, "reconstruction", "weights"))
    untrained.sampling = parse_sampling(settings.family, config.sampling)
    model = fit(
        untrained,
        own.train,
        config.training.model_copy(update={"steps": steps}),
        seed=derive(own.seed, "reconstruction"),
        device=config.device,
        title=f"{settings.family}, seed {own.seed}",
        progress=progress,
    ).model.eval()
    return model, time.process_time() - start
