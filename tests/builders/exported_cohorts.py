"""Synthetic cohorts as a run exports them, without training or auditing anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medgen.preprocessing.dataset import Dataset
from medgen.synthesis.backend import Backend, Synthetic
from medgen.synthesis.export.cohort import export_pool
from medgen.synthesis.filtering.copies import CopyBounds
from medgen.synthesis.filtering.filter import FilterResult
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.privacy.results import SHARE, Audit, BackendAudit
from medgen.synthesis.sources import Sources
from medgen.volume import Grid

LABELS = {1: "outer", 4: "inner"}


class Made(Backend):
    """Hands out scans of a data set, with noise."""

    name = "made"
    derived = False
    sha256 = "1" * 64
    history = ()

    def __init__(self, data: Dataset, noise: float = 0.02) -> None:
        self._data, self._noise = data, noise

    def sample(self, seed: int) -> Synthetic:
        row = seed % len(self._data)
        noise = self._noise * np.random.default_rng(seed).standard_normal(self._data.images[row].shape)
        assert self._data.labels is not None
        image = (self._data.images[row].numpy() + noise).astype(np.float32)
        return Synthetic(image, self._data.labels[row, 0].numpy(), self.name, seed)

    @classmethod
    def fit(cls, sources: Sources, config: object, context: object) -> Backend:
        raise NotImplementedError

    @classmethod
    def recognises(cls, folder: object) -> bool:
        return False

    @classmethod
    def load(cls, folder: object, device: str = "auto") -> Backend:
        raise NotImplementedError

    def save(self, folder: object) -> None:
        raise NotImplementedError


def pool_of(backend: Backend, n: int) -> CandidatePool:
    """Accepted whatever they are, as by a filter without a copy check."""
    verdict = FilterResult(True, {"agreement": 1.0}, {}, "")
    made = [backend.sample(seed) for seed in range(n)]
    return CandidatePool(
        tuple(Candidate(f"syn-{k + 1:04d}", s, verdict, backend.name, s.seed) for k, s in enumerate(made))
    )


def export(
    pool: CandidatePool, out: Path, audit: Audit | None, backend: Backend, sources: Sources, **more: object
) -> None:
    grid = Grid(sources.labelled.shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    settings = {"grid": grid, "sources": sources, "backends": [backend], "label_names": LABELS}
    common = {"seed": 0, "config_sha256": "2" * 64, "cohort": "blobs", "modality": "MR T1"}
    export_pool(pool, out, audit=audit, **{**settings, **common, **more})  # type: ignore[arg-type]


def clean_audit(pool: CandidatePool, backend: Backend) -> Audit:
    """An audit that has nothing to say against any scan of a pool."""
    likeness = {item.id: 0.1 for item in pool.accepted()}
    nearest = dict.fromkeys(likeness, "a-0")
    found = BackendAudit(
        backend.name, backend.sha256, False, len(likeness), (), {}, likeness, nearest, SHARE, "no copies"
    )
    return Audit((), {backend.name: found}, CopyBounds(0.99, 0.6, 0.5, 0.55, 8), (6, 6), (4, 4), ())


def exported(out: Path, data: Dataset, sources: Sources, n: int = 2, **more: object) -> CandidatePool:
    """Write a cohort of ``n`` scans; what its files were made from."""
    backend = Made(data)
    pool = pool_of(backend, n)
    export(pool, out, clean_audit(pool, backend), backend, sources, **more)
    return pool
