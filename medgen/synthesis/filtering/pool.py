"""From trained generators to a pool of accepted scans, every rejection kept with its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medgen.errors import MedgenError
from medgen.progress import Progress
from medgen.seeds import derive
from medgen.synthesis.backend import Backend, Synthetic
from medgen.synthesis.filtering.filter import Filter, FilterResult


@dataclass(frozen=True, eq=False)
class Candidate:
    """A sampled scan and the filter's result for it.

    Attributes:
        id: ``syn-0001`` and on for accepted scans, ``rejected-<backend>-0001`` and on for others.
        synthetic: The scan; None if sampling itself failed.
        filtered: What the filter found.
        backend: What made it.
        seed: Its seed.
    """

    id: str
    synthetic: Synthetic | None
    filtered: FilterResult
    backend: str
    seed: int


@dataclass(frozen=True, eq=False)
class CandidatePool:
    """All candidates of a run in the order they were made.

    Attributes:
        candidates: Accepted and rejected.
    """

    candidates: tuple[Candidate, ...]

    def of(self, backend: str) -> tuple[Candidate, ...]:
        """All candidates of one backend."""
        return tuple(c for c in self.candidates if c.backend == backend)

    def accepted(self, backend: str | None = None) -> tuple[Candidate, ...]:
        """Accepted candidates, of one backend or of all."""
        return tuple(c for c in self.candidates if c.filtered.accepted and backend in (None, c.backend))

    def rejected(self, backend: str | None = None) -> tuple[Candidate, ...]:
        """Rejected candidates, of one backend or of all."""
        return tuple(c for c in self.candidates if not c.filtered.accepted and backend in (None, c.backend))

    def training_set(self, backend: str | None = None) -> SyntheticSet | None:
        """Accepted scans as tensors; None if there are none."""
        chosen = [c.synthetic for c in self.accepted(backend) if c.synthetic is not None]
        if not chosen:
            return None
        images = torch.from_numpy(np.stack([scan.image for scan in chosen]))
        labels = torch.from_numpy(np.stack([scan.labels for scan in chosen]))[:, None]
        return SyntheticSet(images, labels)


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """Accepted scans for training.

    Attributes:
        images: (n, c, i, j, k) float32.
        labels: (n, 1, i, j, k) uint8.
    """

    images: Tensor
    labels: Tensor


def sample_pool(
    backends: Sequence[Backend],
    counts: Mapping[str, int],
    filters: Filter,
    *,
    seed: int,
    attempts: float = 4.0,
    tick: Progress | None = None,
) -> CandidatePool:
    """Sample every backend until it has as many accepted scans as asked for, or its attempts are used up.

    Args:
        backends: Trained generators.
        counts: Accepted scans wanted, by backend name.
        filters: Judge of each scan.
        seed: Sample number n of a backend has the seed derived from (seed, backend, n).
        attempts: Most samples per wanted scan.
        tick: Called with (accepted scans, wanted scans) after each sample.

    Returns:
        The pool, which holds fewer scans than wanted where the filter refused too many.

    Raises:
        AuditError: If a scan has a parent outside of the training scans.
    """
    candidates: list[Candidate] = []
    wanted = sum(counts.get(backend.name, 0) for backend in backends)
    total = 0
    for backend in backends:
        count, accepted = counts.get(backend.name, 0), 0
        for number in range(math.ceil(count * attempts)):
            if accepted == count:
                break
            own = derive(seed, "sample", backend.name, number)
            candidate = _candidate(backend, own, filters, f"rejected-{backend.name}-{number + 1:04d}", total + 1)
            accepted += candidate.filtered.accepted
            total += candidate.filtered.accepted
            candidates.append(candidate)
            if tick is not None:
                tick(total, wanted)
    return CandidatePool(tuple(candidates))


def _candidate(backend: Backend, seed: int, filters: Filter, rejected: str, number: int) -> Candidate:
    from medgen.errors import AuditError

    synthetic = None
    try:
        synthetic = backend.sample(seed)
        filtered = filters.check(synthetic, derived=backend.derived)
    except AuditError:
        # A leak is no property of one scan: the run must stop.
        raise
    except (MedgenError, ValueError, RuntimeError) as error:
        # Fails closed: what cannot be made or judged is not used.
        filtered = FilterResult.unusable(f"could not be checked: {error.__class__.__name__}: {error}")
    name = f"syn-{number:04d}" if filtered.accepted else rejected
    return Candidate(name, synthetic, filtered, backend.name, seed)
