"""How networks of backends are built, trained and kept: with seeds from names, and with what they learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgen.models.artifact import TrainedModel
from medgen.models.base import ScanModel
from medgen.models.catalogue import build, parse_settings
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Log
from medgen.seeds import derive
from medgen.synthesis.backend import FitContext
from medgen.synthesis.sources import Sources
from medgen.training.trainer import FitResult, TrainingConfig, fit
from medgen.training.transfer.source import Lineage, recorded
from medgen.training.transfer.start import lineage_of


def build_network(
    family: str, given: Mapping[str, Any], sources: Sources, context: FitContext, *stream: str
) -> ScanModel:
    """An untrained network for the scans of the sources.

    Args:
        family: Its family.
        given: Settings of that family; grid, channels and number of labels are filled in.
        sources: What it will learn from.
        context: Gives the seed.
        stream: Names that tell its random draws from those of other networks.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """
    scans = sources.labelled
    known = {"in_channels": scans.channels, "shape": scans.shape, "n_labels": len(sources.labels)}
    return build(parse_settings({**given, "family": family, **known}), seed=derive(context.seed, *stream, "weights"))


def train_network(
    model: ScanModel,
    scans: Dataset,
    config: TrainingConfig,
    context: FitContext,
    *stream: str,
    log: Log | None = None,
) -> FitResult:
    """Train a network on scans, with checkpoints in the folder of the context.

    Args:
        model: From :func:`build_network`.
        scans: What it learns from.
        config: How.
        context: Seed, device, folder, and whether to go on from a checkpoint.
        stream: As for :func:`build_network`.
        log: Called with (numbers, step); the log of the context by default.

    Raises:
        TrainingError: As :func:`medgen.training.trainer.fit`.
    """
    return fit(
        model,
        scans,
        config,
        seed=derive(context.seed, *stream),
        device=context.device,
        out=context.out,
        resume=context.resume,
        log=log or context.log,
        title=": ".join(stream),
        progress=context.progress,
    )


def start_facts(result: FitResult, sources: Sources) -> dict[str, Any]:
    """What a trained network started from, and from whom it has learnt, as plain data."""
    start = None if result.start is None else result.start.record(result.model)
    return {"init": start, **recorded(lineage_of(sources_lineage(sources), result.start))}


def sources_lineage(sources: Sources) -> Lineage:
    """Everybody that generators may learn from, used by this one or not."""
    files = {digest for case in sources.ids for digest in sources.hashes.get(case, {}).values()}
    return Lineage(frozenset(sources.ids), sources.subjects, frozenset(files))


def kept_network(result: FitResult, sources: Sources, context: FitContext) -> TrainedModel:
    """A trained network with the facts that are kept with its weights; it moves to the CPU."""
    meta = {
        "kind": "synthesis",
        "labels": list(sources.labels),
        "learnt_from": list(sources.pairs.ids),
        "steps": result.steps,
        "bf16": result.bf16,
        **start_facts(result, sources),
    }
    return TrainedModel([result.model.to("cpu")], context.preprocess, meta=meta)
