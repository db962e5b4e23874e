"""Generators are trained, and scans sampled, filtered and audited."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from medgen.runs import tracking
from medgen.runs.folder import RunFolder
from medgen.runs.progress import bars
from medgen.seeds import derive
from medgen.synthesis.backend import Backend, FitContext
from medgen.synthesis.backends import backend_class
from medgen.synthesis.cohort.consensus import Consensus, label_unlabelled
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import CandidatePool, sample_pool
from medgen.synthesis.lineage import guard_split
from medgen.synthesis.sources import Sources
from medgen.system.files import write_csv

from .config import AugmentRunConfig
from .prepare import PreparedCohort


@dataclass(frozen=True, eq=False)
class Generated:
    """Trained generators, their judge, and what they made."""

    sources: Sources
    consensus: Consensus
    backends: tuple[Backend, ...]
    filters: Filter
    pool: CandidatePool


def generate(
    config: AugmentRunConfig,
    prepared: PreparedCohort,
    parts: CohortSplit,
    folder: RunFolder,
    track: tracking.Run,
    suffix: str,
    *,
    resume: bool,
    progress: bool,
) -> Generated:
    """Train every backend on the sources of these parts, fit the filter, sample."""
    sources = prepared.sources(parts)
    guard_split(sources.subjects, parts.held_out)
    with track.stage(f"consensus{suffix}") as stage, bars(progress) as tick:
        consensus = label_unlabelled(
            sources,
            config.consensus,
            seed=derive(config.seed, "consensus"),
            device=config.device,
            workers=config.workers,
            store=folder.checkpoints / f"consensus{suffix}",
            tick=partial(tick, f"labelling unlabelled scans{suffix}"),
        )
        sources = replace(sources, consensus=consensus.scans, members=consensus.members)
        kept = 0 if consensus.scans is None else len(consensus.scans)
        stage.log_metrics({"labelled": kept, "left_out": len(consensus.left_out)})
    backends: list[Backend] = []
    for name in config.generators.names:
        # The training loop of networks shows its own bar.
        own = bool(backend_class(name).families)
        with track.stage(f"train-{name}{suffix}") as stage, bars(progress and not own) as tick:
            context = FitContext(
                preprocess=prepared.preprocess,
                seed=derive(config.seed, "generator", name),
                device=config.device,
                out=folder.checkpoints / f"{name}{suffix}",
                resume=resume,
                progress=progress,
                log=stage.log_metrics,
                tick=partial(tick, f"{name}{suffix}: registering"),
            )
            backends.append(backend_class(name).fit(sources, config.generators.of(name), context))
            stage.set_tags({"medgen.generator.sha256": backends[-1].sha256})
            stage.set_tags({f"medgen.alarm.{alarm.name}": alarm.message for alarm in backends[-1].alarms})
    with track.stage(f"filter{suffix}") as stage, bars(progress) as tick:
        filters = Filter.fit(
            sources,
            config.filter,
            seed=derive(config.seed, "filter"),
            device=config.device,
            spacing=prepared.preprocess.spacing,
            tick=partial(tick, f"auditors{suffix}"),
        )
        stage.log_metrics({"agreement_bound": filters.agreement_bound, "copy_bound": filters.copy_bound})
    with track.stage(f"sample{suffix}") as stage, bars(progress) as tick:
        pool = sample_pool(
            backends,
            dict.fromkeys(config.generators.names, config.scans),
            filters,
            seed=derive(config.seed, "samples"),
            attempts=config.attempts,
            tick=partial(tick, f"accepted scans{suffix}"),
        )
        stage.log_metrics({"accepted": len(pool.accepted()), "rejected": len(pool.rejected())})
    if not suffix:
        write_rejections(folder, pool)
    return Generated(sources, consensus, tuple(backends), filters, pool)


def write_rejections(folder: RunFolder, pool: CandidatePool) -> None:
    """Write ``rejections.csv``: every rejected scan with the numbers."""
    write_csv(folder.out / "rejections.csv", rejections(pool), ["id", "backend", "seed", "nearest", "reasons"])


def rejections(pool: CandidatePool) -> list[dict[str, Any]]:
    """Rows of ``rejections.csv``."""
    return [
        {
            "id": candidate.id,
            "backend": candidate.backend,
            "seed": candidate.seed,
            "nearest": candidate.verdict.nearest,
            "reasons": "; ".join(candidate.verdict.reasons.values()),
        }
        for candidate in pool.rejected()
    ]
