"""Labelled synthesis: generators that learn from a few labelled scans, filters, provenance, and proof of value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medgen.synthesis.backend import Backend, FitContext, Synthetic
from medgen.synthesis.backends import load_backend
from medgen.synthesis.loaders.datasets import LiveDataset, MixedDataset, MixedStream, SyntheticDataset
from medgen.synthesis.sources import Sources
from medgen.transforms.intensity_matching import match_intensities

if TYPE_CHECKING:
    from medgen.synthesis.loaders.monai_transform import RandSyntheticd

__all__ = [
    "Backend",
    "FitContext",
    "LiveDataset",
    "MixedDataset",
    "MixedStream",
    "RandSyntheticd",
    "Sources",
    "Synthetic",
    "SyntheticDataset",
    "load_backend",
    "match_intensities",
]


def __getattr__(name: str) -> Any:
    # MONAI takes seconds to import, and only this transform needs it.
    if name == "RandSyntheticd":
        from medgen.synthesis.loaders.monai_transform import RandSyntheticd

        return RandSyntheticd
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
