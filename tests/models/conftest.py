"""Labelled scans, as generators learn from them."""

from tests.builders.labelled_scans import sources

__all__ = ["sources"]
