"""Labelled scans and a context to fit generators on."""

from tests.builders.labelled_scans import context, sources

__all__ = ["context", "sources"]
