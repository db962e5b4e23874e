"""Focal lesions made, moved and painted into real scans."""

from medgen.synthesis.backends.lesion.backend import LesionBackend

__all__ = ["LesionBackend"]
