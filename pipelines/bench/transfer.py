"""Benchmark of transfer: a family trained on few scans, from random weights and from trained models."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medgen.config import load_config, parse_config, plain_yaml
from medgen.errors import ConfigError, DataError
from medgen.models.base import Reconstructs, ScanModel
from medgen.models.catalogue import available, build, settings_for
from medgen.preprocessing.dataset import Dataset
from medgen.runs.folder import RunSummary
from medgen.seeds import derive, numpy_rng
from medgen.system.files import write_json, write_text
from medgen.training.config import InitConfig, TrainingConfig
from medgen.training.trainer import fit
from medgen.training.transfer.source import read_source
from medgen.training.transfer.start import Start

from ..train_settings import TrainRunConfig
from .cells import kept, read_scans, shipped
from .family_measures import reconstruction

SCRATCH = "scratch"
# Held-out scans that are measured, and draws of the loss for each.
_MOST, _DRAWS = 40, 4
# Column, its title, digits, and whether higher is better.
_COLUMNS = (("loss", "loss", 4, False), ("psnr", "PSNR", 2, True), ("nats", "nats", 4, True))


def run(
    out: Path,
    *,
    data: Path,
    family: str,
    sources: Mapping[str, InitConfig],
    scans: Sequence[int],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    device: str | None = None,
    progress: bool = False,
) -> RunSummary:
    """Train a family on few scans from every start, measure it on held-out subjects; ``transfer.md`` and ``.json``.

    A cell of one start, number of scans and seed is kept in ``cells/`` and not computed again with the same settings.

    Args:
        out: Folder of the results.
        data: A cohort.
        family: The family, with its shipped configuration ``train/<family>.yaml``.
        sources: Trained models by the name that they get in the table; random weights are always there as well.
        scans: Numbers of training scans.
        seeds: Seeds of split, choice of scans, weights and training.
        overrides: ``key=value`` of the configuration.
        device: Where to train.
        progress: Show progress bars.

    Raises:
        ConfigError: If the family is unknown or a source of another.
        DataError: If the cohort has too few scans.
        AuditError: If a source has learnt from a held-out scan.
    """
    if family not in available() or not shipped(family).is_file():
        raise ConfigError(f"--family: expected a family with a configuration train/NAME, found {family!r}")
    own = [f"data={data}", f"out={out}", *([f"device={device}"] if device else []), *overrides]
    config = load_config(TrainRunConfig, shipped(family), own)
    configs = {SCRATCH: _starting(config, None), **{name: _starting(config, init) for name, init in sources.items()}}
    digests = {name: Start.fingerprint_of(init, read_source(init, family).sha256) for name, init in sources.items()}
    cells: list[dict[str, Any]] = []
    for seed in dict.fromkeys(seeds):
        ready: list[tuple[Dataset, Dataset, tuple[int, ...]]] = []
        for count in dict.fromkeys(scans):
            for name, one in configs.items():
                training = one.training.model_dump(mode="json", exclude={"init"})
                said = {"method": f"{name}-{count}", "seed": seed, "data": str(data), "init": digests.get(name)}
                said |= {"preprocess": one.preprocess.model_dump(mode="json"), "model": one.model, "training": training}
                cell = kept(out, said, partial(_cell, one, [*configs.values()], seed, count, ready, progress))
                cells.append({**cell, "start": name, "scans": count})
    text = table(cells, family, config.training)
    write_json(out / "transfer.json", {"family": family, "sources": digests, "cells": cells})
    write_text(out / "transfer.md", text)
    return RunSummary(out, 0, (text, f"written: {out / 'transfer.md'}"))


def read_sources(given: Sequence[str]) -> dict[str, InitConfig]:
    """Sources as the command line gives them: ``NAME=ARTIFACT``, or ``NAME={artifact: ..., statistics: source}``.

    >>> read_sources(["brains=runs/brains/model"])["brains"].statistics
    'own'

    Raises:
        ConfigError: If one is neither.
    """
    found = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.strip() or name.strip() == SCRATCH:
            raise ConfigError(f"--from: expected NAME=ARTIFACT, with a name other than {SCRATCH}, found {item!r}")
        value = plain_yaml(text, "--from") if text.lstrip().startswith("{") else {"artifact": text}
        found[name.strip()] = parse_config(InitConfig, value, "--from")
    return found


def table(cells: Sequence[Mapping[str, Any]], family: str, training: TrainingConfig) -> str:
    """The results as a page in Markdown: means over seeds, and the gain over random weights, seed by seed."""
    shown = [column for column in _COLUMNS if any(np.isfinite(cell[column[0]]) for cell in cells)]
    seeds = sorted({cell["seed"] for cell in cells})
    lines = [
        f"# Transfer: `{family}`, {training.steps} steps, {len(seeds)} seeds",
        "",
        "Mean over seeds; in brackets the gain over random weights, of each seed (above 0 is better). The loss is that "
        "of the training, on held-out scans with the same draws for every start.",
        "",
        "| start | scans | " + " | ".join(title for _, title, _, _ in shown) + " | seconds |",
        "|---|---|" + "---|" * (len(shown) + 1),
    ]
    by = {(cell["start"], cell["scans"], cell["seed"]): cell for cell in cells}
    for count in dict.fromkeys(cell["scans"] for cell in cells):
        for name in dict.fromkeys(cell["start"] for cell in cells):
            rows = [by[name, count, seed] for seed in seeds]
            entries = []
            for key, _, digits, up in shown:
                gains = [(by[name, count, s][key] - by[SCRATCH, count, s][key]) * (1 if up else -1) for s in seeds]
                gain = "" if name == SCRATCH else f" [{', '.join(f'{value:+.{digits}f}' for value in gains)}]"
                entries.append(f"{np.mean([row[key] for row in rows]):.{digits}f}{gain}")
            seconds = np.mean([row["seconds"] for row in rows])
            lines.append(f"| {name} | {count} | {' | '.join(entries)} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _starting(config: TrainRunConfig, init: InitConfig | None) -> TrainRunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"init": init})})


def _cell(
    config: TrainRunConfig,
    configs: Sequence[TrainRunConfig],
    seed: int,
    count: int,
    ready: list[tuple[Dataset, Dataset, tuple[int, ...]]],
    progress: bool,
) -> dict[str, Any]:
    """One training and its measures on the held-out scans; scans are prepared once for each seed."""
    if not ready:
        ready.append(read_scans(config, seed, progress, [own for own in configs if own is not config]))
    train, test, labels = ready[0]
    if count > len(train):
        raise DataError(f"{config.data}: {len(train)} training scans; expected {count} at least")
    chosen = numpy_rng(seed, "transfer", "scans").permutation(len(train))[:count]
    few = train.subset([train.ids[row] for row in chosen.tolist()])
    held_out = test.subset(test.ids[:_MOST])
    start = time.process_time()
    model = fit(
        build(
            settings_for(config.model, few.shape, few.channels, len(labels)), seed=derive(seed, "transfer", "weights")
        ),
        few,
        config.training,
        seed=derive(seed, "transfer"),
        device=config.device,
        title=f"{config.model['family']} on {count} scans, seed {seed}",
        progress=progress,
    ).model.eval()
    seconds = time.process_time() - start
    found: dict[str, Any] = {"psnr": float("nan"), "nats": float("nan"), "seconds": seconds, "test": len(held_out)}
    if isinstance(model, Reconstructs):
        sizes = {"seconds": seconds, "parameters": model.parameter_count, "training": len(few), "test": len(held_out)}
        found |= {**reconstruction(model, held_out, seed), **sizes}
    return {**found, "loss": _loss(model, held_out, seed)}


@torch.no_grad()
def _loss(model: ScanModel, held_out: Dataset, seed: int) -> float:
    """Mean loss of the first phase over held-out scans, with draws that follow from the seed alone."""
    device = next(model.parameters()).device
    phase = next(iter(model.stages()[0].phases))
    values = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for draw in range(_DRAWS):
            for row in range(len(held_out)):
                torch.manual_seed(derive(seed, "transfer", "loss", draw, row))
                values.append(float(model.loss(phase, held_out.batch([row], 1.0).to(device))["loss"]))
    return float(np.mean(values))
