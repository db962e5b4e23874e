"""More scans from the generators of a finished run, under the same filter and the same audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medgen.config import apply_overrides
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.models.sampling import overridden
from medgen.progress import bars
from medgen.report.augment.audit import printed_audit
from medgen.runs.folder import RunSummary
from medgen.seeds import derive
from medgen.synthesis.backend import Backend
from medgen.synthesis.backends import every_name, load_backend
from medgen.synthesis.export.cohort import export_pool
from medgen.synthesis.export.layouts import Layout, check_layout
from medgen.synthesis.filtering.checks import check_name
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
    folder = model if (model / FOLDER).is_dir() else model.parent
    if not (folder / FOLDER).is_dir():
        raise ArtifactError(
            f"{model}: no {FOLDER}/ in it or beside it, so no sample could be checked; expected the model folder of a "
            "finished augment run"
        )
    if out.resolve().is_relative_to(folder.parent.resolve()):
        raise ConfigError(
            f"{out}: lies in {folder.parent}, all of whose files the run has recorded; choose a folder elsewhere"
        )
    verdict = read_usefulness(folder.parent) or NOT_MEASURED
    verdict.require(harmful, folder.parent)
    state = load_filter(folder / FOLDER, device)
    check_layout(layout, state.filters.sources.labelled.channels)
    backends, left_out = _useful(_backends(model, folder, device), model, folder)
    backends, chosen = _otherwise(backends, options)
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
        *chosen,
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


def _otherwise(backends: list[Backend], options: Sequence[str]) -> tuple[list[Backend], list[str]]:
    """The backends with options chosen anew, and a line about each whose scans are not sampled as the run's were."""
    given = apply_overrides({}, options)
    known = {item.name: item for item in backends}
    if unknown := sorted({*given} - {*known}):
        raise ConfigError(f"{unknown[0]}: expected backend.option=value with a backend of {', '.join(known)}")
    made, lines = [], []
    for name, backend in known.items():
        own = given.get(name, {})
        if not isinstance(own, Mapping):
            raise ConfigError(f"{name}: expected {name}.option=value, found {own!r}")
        sampling = overridden(backend.sampling, own, f"sampling of {name}")
        if sampling != backend.sampling:
            changes = ", ".join(_changes(backend.sampling.model_dump(), sampling.model_dump()))
            lines.append(f"{name}: sampled with {changes}; what the run has measured is about its own scans")
        made.append(backend.sampled_by(sampling))
    return made, lines


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], group: str = "") -> Iterator[str]:
    """Every option that differs, as ``name new (old in the run)``."""
    for key, value in after.items():
        if isinstance(value, Mapping):
            yield from _changes(before[key], value, f"{group}{key}.")
        elif value != before[key]:
            yield f"{group}{key} {value} ({before[key]} in the run)"


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
    return f"{counts[worst]} failed the check of {check_name(worst)}"
