"""Labelled synthesis: generators that learn from a few labelled scans, filters, provenance, and proof of value."""

from __future__ import annotations

from medgen.synthesis.backends import load_backend
from medgen.synthesis.base import Backend, FitContext, Sources, Synthetic

__all__ = ["Backend", "FitContext", "Sources", "Synthetic", "load_backend"]
