"""highdicom, which writes the objects: an optional extra, found without importing it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGE = "highdicom"


def missing() -> str:
    """Why no DICOM object can be written here, in a sentence; empty if one can."""
    try:
        version(_PACKAGE)
    except PackageNotFoundError:
        return f"the package {_PACKAGE} is not installed; install the extra: pip install 'medgen[dicom]'"
    return ""
