"""More scans from the generators of a finished run, under the same filter and the same audit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.progress import bars
from medgen.report.augment.audit import printed_audit
from medgen.runs.folder import RunSummary
from medgen.seeds import derive
from medgen.synthesis.backend import Backend
from medgen.synthesis.backends import every_name, load_backend
from medgen.synthesis.export.cohort import export_pool
from medgen.synthesis.export.layouts import Layout, check_layout
from medgen.synthesis.filtering.pool import CandidatePool, sample_pool
from medgen.synthesis.privacy.memorisation import audit_pool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.privacy.saved_filter import FOLDER, FilterState, load_filter
from medgen.synthesis.usefulness import NOT_MEASURED, Usefulness, accepted_scans, read_usefulness
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
        progress: Show progress bars.

    Returns:
        Exit code 1 if fewer scans than wanted were exported.

    Raises:
        ArtifactError: If there is no generator, or no state of filter and audit beside it, or one was altered.
        AuditError: If the audit refuses the export.
        ConfigError: If ``out`` is in use or the layout cannot hold the scans.
        DataError: If no scan was accepted, or the verdict of the run is HARMFUL and ``harmful`` is not set.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; choose a new folder")
    folder = model if (model / FOLDER).is_dir() else model.parent
    if not (folder / FOLDER).is_dir():
        raise ArtifactError(
            f"{model}: no {FOLDER}/ in it or beside it, so no sample could be checked; expected the model folder of a "
            "finished augment run"
        )
    verdict = read_usefulness(folder.parent) or NOT_MEASURED
    verdict.require(harmful, folder.parent)
    state = load_filter(folder / FOLDER, device)
    check_layout(layout, state.filters.sources.labelled.channels)
    backends, left_out = _useful(_backends(model, folder, device), model, folder)
    counts = {item.name: n // len(backends) + (row < n % len(backends)) for row, item in enumerate(backends)}
    stream = derive(seed, "augment sample")
    with bars(progress) as tick:
        pool = sample_pool(
            backends,
            counts,
            state.filters,
            seed=stream,
            attempts=attempts,
            tick=partial(tick, "accepted scans"),
        )
    if not pool.accepted():
        raise DataError(f"none of {len(pool.candidates)} samples passed the filter; {_commonest(pool)}")
    with bars(progress) as tick:
        audit = audit_pool(
            pool,
            backends,
            state.filters,
            state.held_out,
            state.audit,
            seed=stream,
            tick=partial(tick, "memorisation audit"),
        )
    _write(pool, audit, backends, state, out, seed, layout, verdict)
    exported = sum(len(item.likeness) - len(item.flagged) for item in audit.backends.values())
    lines = [
        *left_out,
        f"{exported} of {n} wanted scans in {out}, {len(pool.candidates)} sampled",
        *printed_audit(audit),
        verdict.sentence,
    ]
    return RunSummary(out, 0 if exported >= n else 1, tuple(lines))


def _backends(model: Path, folder: Path, device: str) -> list[Backend]:
    if model != folder:
        return [load_backend(model, device)]
    found = [load_backend(folder / name, device) for name in every_name() if (folder / name).is_dir()]
    if not found:
        raise ArtifactError(f"{model}: holds no generator; expected the model folder of an augment run")
    return found


def _useful(backends: list[Backend], model: Path, folder: Path) -> tuple[list[Backend], list[str]]:
    """The backends worth sampling, and a line about each that is not: one that the filter let nothing of pass.

    A backend that is named by its own folder is sampled whatever it did.
    """
    accepted = {} if model != folder else accepted_scans(folder.parent)
    empty = [item.name for item in backends if accepted.get(item.name) == 0]
    kept = [item for item in backends if item.name not in empty]
    if not kept:
        raise DataError(
            f"{model}: the filter accepted no scan of {', '.join(empty)} in the run, so none is sampled; to try all "
            f"the same, name one with --model {folder / empty[0]}"
        )
    lines = [
        f"{name}: not sampled, since the filter accepted no scan of it in the run; --model {folder / name} tries all "
        "the same"
        for name in empty
    ]
    return kept, lines


def _write(
    pool: CandidatePool,
    audit: Audit,
    backends: Sequence[Backend],
    state: FilterState,
    out: Path,
    seed: int,
    layout: Layout,
    verdict: Usefulness,
) -> None:
    with new_folder(out) as temporary:
        export_pool(
            pool,
            temporary,
            audit=audit,
            grid=state.preprocess.canonical(),
            sources=state.filters.sources,
            backends=backends,
            label_names=state.label_names,
            original_labels=state.original_labels,
            seed=seed,
            config_sha256=state.config_sha256,
            cohort=state.cohort,
            modality=state.modality,
            layout=layout,
            intake=state.intake,
            held_out=() if state.held_out is None else frozenset(state.held_out.subjects),
            verdict=verdict,
        )
        write_rejections(temporary / "provenance" / REJECTIONS.name, audit.clean(pool))


def _commonest(pool: CandidatePool) -> str:
    """The reason that refused most samples."""
    counts: dict[str, int] = {}
    for candidate in pool.candidates:
        for reason in candidate.filtered.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    worst = max(counts, key=lambda reason: counts[reason])
    return f"{counts[worst]} failed the check {worst!r}"
