"""Benchmark of reconstruction: families on scans of subjects that they have not seen, beside principal components."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgen.config import load_config
from medgen.data.cases import split_subjects
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError, DataError
from medgen.metrics.reconstruction import psnr, ssim
from medgen.models.base import HasLikelihood, Reconstructs
from medgen.models.catalogue import available, build, family_class, settings_for
from medgen.models.linear_gaussian import LinearGaussian
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.parts import prepare_parts
from medgen.progress import bars
from medgen.runs.folder import RunSummary
from medgen.seeds import derive, torch_rng
from medgen.system.files import read_json, sha256_json, write_json, write_text
from medgen.training.trainer import fit
from medgen.transforms.affine_registration import register_affine

from ..sources import check_sources
from ..train_settings import TrainRunConfig

# Share of the subjects that is held out, numbers of principal components, draws behind a bound, scans at a time.
_TEST, _COMPONENTS, _SAMPLES, _CHUNK = 0.28, (12, 24, 64), 8, 4
_COLUMNS = ("psnr", "ssim", "nats")


def run(
    out: Path,
    *,
    data: Path,
    families: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    device: str | None = None,
    progress: bool = False,
) -> RunSummary:
    """Train families under every seed, measure them on held-out subjects; ``reconstruction.md`` and ``.json``.

    What a family has reached under a seed is kept in ``cells/`` and not computed again with the same settings.

    Args:
        out: Folder of the results.
        data: A cohort.
        families: Families that reconstruct, each with its shipped configuration ``train/<family>.yaml``.
        seeds: Seeds of split, weights and training.
        overrides: ``key=value`` of these configurations, for all alike.
        device: Where to train.
        progress: Show progress bars.

    Raises:
        ConfigError: If a family is unknown, or does not reconstruct.
        DataError: If the cohort has too few subjects.
    """
    able = [name for name in available() if issubclass(family_class(name), Reconstructs) and shipped(name).is_file()]
    if wrong := [name for name in families if name not in able]:
        raise ConfigError(f"--families: expected some of {able}, found {wrong[0]!r}")
    own = [f"data={data}", f"out={out}", *([f"device={device}"] if device else []), *overrides]
    configs = {name: load_config(TrainRunConfig, shipped(name), own) for name in families}
    cells: list[dict[str, Any]] = []
    for seed in dict.fromkeys(seeds):
        cells += _seed(configs, seed, out, progress)
    command = " ".join(
        [
            f"medgen bench reconstruction OUT --data DATA --families {','.join(families)}",
            f"--seeds {','.join(str(seed) for seed in dict.fromkeys(seeds))}",
            *(f"--set {item}" for item in overrides),
        ]
    )
    write_json(out / "reconstruction.json", {"command": command, "cells": cells})
    write_text(out / "reconstruction.md", table(cells, command))
    return RunSummary(out, 0, (table(cells, command), f"written: {out / 'reconstruction.md'}"))


def table(cells: Sequence[dict[str, Any]], command: str) -> str:
    """The results as a page in Markdown: the mean over seeds, and every seed's own."""
    lines = [
        "# Reconstruction and likelihood",
        "",
        f"`{command}`: every method learns from the same scans, and is measured on scans of subjects that it has not "
        "seen. PSNR in dB and SSIM in the foreground, for a range of intensities of 1 (1st to 99th percentile); "
        f"nats: log-likelihood per voxel of the foreground, higher is better, exact for pca-k (the Gaussian of k "
        f"components and of what they leave per voxel), for families the importance-weighted bound with {_SAMPLES} "
        "draws. Seconds of processor time for training.",
        "",
        "| method | seed | scans | PSNR | SSIM | nats | seconds | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(cell["method"] for cell in cells))
    for name in names:
        rows = [cell for cell in cells if cell["method"] == name]
        means = {column: float(np.mean([row[column] for row in rows])) for column in (*_COLUMNS, "seconds")}
        shown = [*rows] if len(rows) == 1 else [*rows, {**rows[0], **means, "seed": "mean"}]
        for row in shown:
            nats = "" if np.isnan(row["nats"]) else f"{row['nats']:.4f}"
            lines.append(
                f"| {name} | {row['seed']} | {row['training']} + {row['test']} | {row['psnr']:.2f} | "
                f"{row['ssim']:.3f} | {nats} | {row['seconds']:.0f} | {row['parameters']} |"
            )
    return "\n".join(lines) + "\n"


def shipped(family: str) -> Path:
    """The shipped training configuration of a family; need not exist."""
    return Path(str(files("medgen.configs"))) / "train" / f"{family}.yaml"


def _seed(configs: dict[str, TrainRunConfig], seed: int, out: Path, progress: bool) -> list[dict[str, Any]]:
    """The cells of one seed; scans are prepared once for families with one preprocessing, if they are needed at all."""
    cells: list[dict[str, Any]] = []
    ready: dict[str, tuple[Dataset, Dataset, tuple[int, ...]]] = {}
    for name, config in configs.items():
        key = config.preprocess.model_dump_json()

        def parts(config: TrainRunConfig = config, key: str = key) -> tuple[Dataset, Dataset, tuple[int, ...]]:
            if key not in ready:
                ready[key] = read_scans(config, seed, progress)
            return ready[key]

        def linear(count: int, parts: Callable[[], Any] = parts) -> dict[str, Any]:
            train, test, _ = parts()
            start = time.process_time()
            model = LinearGaussian.fit(train, count)
            seconds = time.process_time() - start
            return measured(model, train, test, seconds, sum(b.numel() for b in model.linear.buffers()), seed)

        def family(
            name: str = name, config: TrainRunConfig = config, parts: Callable[[], Any] = parts
        ) -> dict[str, Any]:
            train, test, labels = parts()
            start = time.process_time()
            settings = settings_for(config.model, train.shape, train.channels, len(labels))
            model = fit(
                build(settings, seed=derive(seed, "reconstruction", "weights")),
                train,
                config.training,
                seed=derive(seed, "reconstruction"),
                device=config.device,
                title=f"{name}, seed {seed}",
                progress=progress,
            ).model.eval()
            return measured(model, train, test, time.process_time() - start, model.parameter_count, seed)

        common = {"seed": seed, "data": str(config.data), "preprocess": config.preprocess.model_dump(mode="json")}
        for count in _COMPONENTS:
            said = {"method": f"pca-{count}", **common}
            if not any(cell["key"] == sha256_json(said) for cell in cells):
                cells.append(kept(out, said, partial(linear, count)))
        said = {"method": name, **common, "model": config.model, "training": config.training.model_dump(mode="json")}
        cells.append(kept(out, said, family))
    return cells


def kept(out: Path, said: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A cell from its file where the settings are the same, else computed and written."""
    key = sha256_json(said)
    path = out / "cells" / f"{said['method']}-{said['seed']}-{key[:12]}.json"
    if path.is_file():
        # What is no number, such as nats of a family without a likelihood, has no other form in JSON.
        return {name: float("nan") if value is None else value for name, value in read_json(path).items()}
    cell = {"method": said["method"], "seed": said["seed"], "key": key, **compute()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, cell)
    return cell


def measured(model: Any, train: Dataset, test: Dataset, seconds: float, parameters: int, seed: int) -> dict[str, Any]:
    """What a trained model reaches on the held-out scans: means over scans."""
    device = next(iter(model.parameters())).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    generator = torch_rng(seed, "reconstruction", "draws")
    rows: list[tuple[float, float, float]] = []
    for first in range(0, len(test), _CHUNK):
        batch = test.batch(range(first, min(first + _CHUNK, len(test)))).to(device)
        with torch.no_grad():
            made: Tensor = model.reconstruct(batch.image).cpu()
        nats = _nats(model, batch.image, batch.foreground, generator)
        masks = batch.foreground[:, 0].cpu().numpy() > 0
        images = batch.image.cpu().numpy()
        for row, mask in enumerate(masks):
            x, y = images[row], made[row].numpy()
            rows.append((psnr(x, y, mask), ssim(x, y, mask), float(nats[row])))
    means = dict(zip(_COLUMNS, np.mean(rows, axis=0).tolist(), strict=True))
    return {**means, "seconds": seconds, "parameters": parameters, "training": len(train), "test": len(test)}


def _nats(model: Any, images: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
    """Log-likelihood per voxel of the foreground, (b,); NaN for a model without one."""
    voxels = masks.flatten(1).sum(1) * images.shape[1]
    if isinstance(model, LinearGaussian):
        return model.log_likelihood(images, masks) / voxels
    if isinstance(model, HasLikelihood):
        return (model.log_likelihood(images, masks, samples=_SAMPLES, generator=generator) / voxels).cpu()
    return torch.full((len(images),), torch.nan)


def read_scans(
    config: TrainRunConfig, seed: int, progress: bool, others: Sequence[TrainRunConfig] = ()
) -> tuple[Dataset, Dataset, tuple[int, ...]]:
    """Training and held-out scans, disjoint by subject, and the labels of the first.

    Args:
        config: The cohort and its preprocessing.
        seed: Of the split.
        progress: Show progress bars.
        others: Configurations of further trainings on these scans, whose sources must not know a held-out one either.

    Raises:
        DataError: If the cohort has too few subjects.
        AuditError: If a source has learnt from a held-out scan.
    """
    manifest = load_cohort(config.data, config.cohort)
    if "n_labels" in family_class(str(config.model["family"])).Settings.model_fields:
        # A family of labels learns nothing from a scan without a mask.
        manifest = manifest.subset([case.id for case in manifest if case.mask is not None])
    if len(manifest.subjects) < 8:
        raise DataError(f"{config.data}: {len(manifest.subjects)} subjects; expected at least 8")
    shares = {"training": 1 - _TEST, "held-out": _TEST}
    parts = split_subjects(manifest, shares, derive(seed, "reconstruction", "split"))
    for own in (config, *others):
        check_sources(own, manifest, {"the benchmark": parts["held-out"]}, config.workers)
    with bars(progress) as tick:
        prepared = prepare_parts(
            parts, parts["training"], config.preprocess, workers=config.workers, register=register_affine, tick=tick
        )
    train, test = prepared.data["training"], prepared.data["held-out"]
    labels = () if train.labels is None else tuple(int(value) for value in train.labels.unique() if value)
    return train, test, labels
