"""A made-up cohort of blobs, small enough for every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.seeds import torch_rng
from medgen.synthesis.backend import Backend, FitContext
from medgen.synthesis.filtering.filter import Filter, FilterConfig
from medgen.synthesis.label_sources.lesion import LesionConfig
from medgen.synthesis.privacy.memorisation import AuditConfig
from medgen.synthesis.privacy.saved_filter import FilterState, save_filter
from medgen.synthesis.sources import Sources
from medgen.transforms.fields import exponentiate, smooth_noise, warp

SHAPE = (16, 20, 12)


def blobs(n: int, seed: int, prefix: str, labelled: bool = True) -> Dataset:
    """Two nested ellipsoids (labels 1 and 4), warped differently for each of n subjects with one scan each."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, s) for s in SHAPE], indexing="ij"))
    radius = (grid / torch.tensor([0.75, 0.8, 0.7])[:, None, None, None]).norm(dim=0)
    labels = ((radius < 1).int() + 3 * (radius < 0.55).int()).to(torch.uint8)[None, None].expand(n, -1, -1, -1, -1)
    field = exponentiate(smooth_noise(n, 3, SHAPE, 8, torch_rng(seed, "field")) * 1.0)
    moved = warp(labels, field, "nearest")
    texture = 0.05 * torch.randn(n, 1, *SHAPE, generator=torch_rng(seed, "texture"))
    gain = 1 + 0.1 * smooth_noise(n, 1, SHAPE, 10, torch_rng(seed, "gain"))
    inside = (moved > 0).float()
    images = ((0.4 * inside + 0.4 * (moved == 4).float()) * gain + texture * inside).clamp(0, 1.5)
    return Dataset(
        ids=tuple(f"{prefix}-{row}" for row in range(n)),
        subjects=tuple(f"subject-{prefix}-{row}" for row in range(n)),
        images=images,
        foregrounds=moved > 0,
        labels=moved if labelled else None,
    )


@pytest.fixture(scope="session")
def sources() -> Sources:
    hashes = {f"a-{row}": {f"a-{row}.nii.gz": f"{row:064d}"} for row in range(6)}
    return Sources(blobs(6, 0, "a"), blobs(4, 1, "u", labelled=False), (1, 4), hashes)


@pytest.fixture(scope="session")
def context() -> FitContext:
    recipe = Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))
    return FitContext(preprocess=recipe, seed=0, device="cpu")


def tiny_settings(kind: type[Backend]) -> dict[str, Any]:
    """The settings for tests of a backend, and which of the labels here are lesions, where it wants to know."""
    labels = kind.Config.model_fields.get("labels")
    if labels is None or not issubclass(labels.annotation or object, LesionConfig):
        return dict(kind.tiny)
    return {**kind.tiny, "labels": {**kind.tiny["labels"], "lesion_labels": [4]}}


def quick_filter(sources: Sources) -> Filter:
    """A filter that judges, but is not worth much: seconds of training."""
    quick = {"auditor": {"channels": [8, 16], "steps": 4}, "agreement_percentile": 0, "looks_percentile": 100}
    config = FilterConfig.model_validate({**quick, "planted": 2})
    return Filter.fit(sources, config, seed=0, device="cpu")


def keep_filter(filters: Filter, context: FitContext, folder: Path) -> None:
    """Write a filter as a run keeps it beside its generators."""
    save_filter(FilterState(filters, None, context.preprocess, AuditConfig(), {}, "blobs", "MR", "4" * 64), folder)
