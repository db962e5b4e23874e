"""Labelled scans."""

from tests.builders.labelled_scans import sources

__all__ = ["sources"]
