"""More scans from the generators of a finished run: sampled, filtered and audited as its own were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medgen.config import apply_overrides
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.models.sampling import overridden
from medgen.progress import Tick
from medgen.seeds import derive
from medgen.synthesis.backend import Backend
from medgen.synthesis.backends import every_name, load_backend
from medgen.synthesis.filtering.checks import check_name
from medgen.synthesis.filtering.pool import CandidatePool, sample_pool
from medgen.synthesis.privacy.memorisation import audit_pool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.privacy.saved_filter import FOLDER, FilterState, load_filter
from medgen.synthesis.usefulness import NOT_MEASURED, Usefulness, accepted_scans, read_usefulness


@dataclass(frozen=True, eq=False)
class Generators:
    """The generators of a finished run with what its scans were judged by.

    Attributes:
        backends: Those that are sampled.
        state: Filter, audit and recipe of the run.
        verdict: What its value study found.
        left_out: A line on each backend that is not sampled.
        chosen: A line on each that is sampled otherwise than in the run.
    """

    backends: Sequence[Backend]
    state: FilterState
    verdict: Usefulness
    left_out: Sequence[str]
    chosen: Sequence[str]

    @classmethod
    def of_run(
        cls, model: Path, *, device: str = "auto", harmful: bool = False, options: Sequence[str] = ()
    ) -> Generators:
        """Load them.

        Args:
            model: ``model`` of a finished augment run, for all its backends, or ``model/<backend>`` for one.
            device: ``auto``, ``cpu`` or ``cuda[:N]``.
            harmful: Whether scans of a run whose verdict is HARMFUL are wanted all the same.
            options: Options of sampling to be other than in the run, ``backend.option=value``.

        Raises:
            ArtifactError: If there is no generator, or no state of filter and audit beside it, or one was altered.
            ConfigError: If there is no such option of sampling.
            DataError: If the verdict of the run is HARMFUL and ``harmful`` is not set, or the filter let nothing pass.
        """
        folder = run_models(model)
        verdict = read_usefulness(folder.parent) or NOT_MEASURED
        verdict.require(harmful, folder.parent)
        state = load_filter(folder / FOLDER, device)
        backends, left_out = _useful(_backends(model, folder, device), model, folder)
        backends, chosen = _otherwise(backends, options)
        return cls(backends, state, verdict, left_out, chosen)

    def sample(
        self, n: int, seed: int, attempts: float = 4.0, progress: Tick | None = None
    ) -> tuple[CandidatePool, Audit]:
        """Sampled scans, accepted and rejected ones, and their memorisation audit.

        Args:
            n: Accepted scans wanted in all, spread evenly over the backends.
            seed: Seed of the samples; another seed gives other scans.
            attempts: Most samples per wanted scan.
            progress: Called with (what, done, total).

        Raises:
            DataError: If no scan was accepted.
        """
        count = len(self.backends)
        counts = {item.name: n // count + (row < n % count) for row, item in enumerate(self.backends)}
        stream = derive(seed, "augment sample")
        told = progress or (lambda *_: None)
        pool = sample_pool(
            self.backends,
            counts,
            self.state.filters,
            seed=stream,
            attempts=attempts,
            tick=partial(told, "accepted scans"),
        )
        if not pool.accepted():
            raise DataError(f"none of {len(pool.candidates)} samples passed the filter; {_commonest(pool)}")
        audit = audit_pool(
            pool,
            self.backends,
            self.state.filters,
            self.state.held_out,
            self.state.audit,
            seed=stream,
            tick=partial(told, "memorisation audit"),
        )
        return pool, audit


def run_models(model: Path) -> Path:
    """The folder with the models of a run, from itself or from that of one backend.

    Raises:
        ArtifactError: If there is no state of filter and audit in it or beside it.
    """
    folder = model if (model / FOLDER).is_dir() else model.parent
    if not (folder / FOLDER).is_dir():
        raise ArtifactError(
            f"{model}: no {FOLDER}/ in it or beside it, so no sample could be checked; expected the model folder of a "
            "finished augment run"
        )
    return folder


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


def _commonest(pool: CandidatePool) -> str:
    """The reason that refused most samples."""
    counts: dict[str, int] = {}
    for candidate in pool.candidates:
        for reason in candidate.filtered.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    worst = max(counts, key=lambda reason: counts[reason])
    return f"{counts[worst]} failed the check of {check_name(worst)}"
