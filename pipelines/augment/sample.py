"""More scans from the generators of a finished run, under the same filter and the same audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgen.errors import ConfigError
from medgen.progress import bars
from medgen.report.augment.audit import printed_audit
from medgen.runs.folder import RunSummary
from medgen.synthesis.export.cohort import export_pool
from medgen.synthesis.export.further import Generators, run_models
from medgen.synthesis.export.layouts import Layout, check_layout
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.results import Audit
from medgen.system.new_folder import new_folder

from .rejections import REJECTIONS, write_rejections


def run(
    model: Path,
    out: Path,
    *,
    n: int = 200,
    seed: int = 0,
    layout: Layout = "nnunet",
    attempts: float = 4.0,
    device: str = "auto",
    harmful: bool = False,
    options: Sequence[str] = (),
    progress: bool = False,
) -> RunSummary:
    """Sample, filter, audit and export.

    Args:
        model: ``model`` of a finished augment run, for all its backends, or ``model/<backend>`` for one.
        out: New or empty folder for the synthetic cohort; it appears whole or not at all.
        n: Accepted scans wanted in all, spread evenly over the backends.
        seed: Seed of the samples; another seed gives other scans.
        layout: ``nnunet``, ``msd`` or ``bids``.
        attempts: Most samples per wanted scan.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        harmful: Whether scans of a run whose verdict is HARMFUL are wanted all the same.
        options: Options of sampling to be other than in the run, ``backend.option=value``; each scan's record has all.
        progress: Show progress bars.

    Returns:
        Exit code 1 if fewer scans than wanted were exported.

    Raises:
        ArtifactError: If there is no generator, or no state of filter and audit beside it, or one was altered.
        AuditError: If the audit refuses the export.
        ConfigError: If ``out`` is in use or lies in the run's folder, the layout cannot hold the scans, or there is no
            such option of sampling.
        DataError: If no scan was accepted, or the verdict of the run is HARMFUL and ``harmful`` is not set.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; choose a new folder")
    folder = run_models(model)
    if out.resolve().is_relative_to(folder.parent.resolve()):
        raise ConfigError(
            f"{out}: lies in {folder.parent}, all of whose files the run has recorded; choose a folder elsewhere"
        )
    generators = Generators.of_run(model, device=device, harmful=harmful, options=options)
    check_layout(layout, generators.state.filters.sources.labelled.channels)
    with bars(progress) as tick:
        pool, audit = generators.sample(n, seed, attempts, tick)
    _write(pool, audit, generators, out, seed, layout)
    exported = sum(len(item.likeness) - len(item.flagged) for item in audit.backends.values())
    lines = [
        *generators.left_out,
        f"{exported} of {n} wanted scans in {out}, {len(pool.candidates)} sampled",
        *printed_audit(audit),
        generators.verdict.sentence,
        *generators.chosen,
    ]
    return RunSummary(out, 0 if exported >= n else 1, tuple(lines))


def _write(pool: CandidatePool, audit: Audit, generators: Generators, out: Path, seed: int, layout: Layout) -> None:
    state = generators.state
    with new_folder(out) as temporary:
        export_pool(
            pool,
            temporary,
            audit=audit,
            grid=state.preprocess.canonical(),
            sources=state.filters.sources,
            backends=generators.backends,
            label_names=state.label_names,
            original_labels=state.original_labels,
            seed=seed,
            config_sha256=state.config_sha256,
            cohort=state.cohort,
            modality=state.modality,
            layout=layout,
            intake=state.intake,
            held_out=() if state.held_out is None else frozenset(state.held_out.subjects),
            verdict=generators.verdict,
        )
        write_rejections(temporary / "provenance" / REJECTIONS.name, audit.clean(pool))
