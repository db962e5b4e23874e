"""Which objects are wanted, and whether they can be written here: highdicom, which does it, is an optional extra."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version

from medgen.errors import ConfigError

# Segments, parametric map, secondary captures and structured report, in the order in which they are made.
KINDS = ("seg", "pmap", "sc", "sr")
PACKAGE = "highdicom"


def missing() -> str:
    """Why no DICOM object can be written here, in a sentence; empty if one can. Nothing is imported."""
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        return f"the package {PACKAGE} is not installed; install the extra: pip install 'medgen[dicom]'"
    return ""


def wanted(text: str) -> tuple[str, ...]:
    """The kinds that a list names, in the order of ``KINDS``.

    >>> wanted("sr, seg"), wanted("all")
    (('seg', 'sr'), ('seg', 'pmap', 'sc', 'sr'))

    Raises:
        ConfigError: If no kind is named, one is unknown, or highdicom is not installed.
    """
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    if not named:
        raise ConfigError(f"--dicom: found {text!r}; expected all, or some of {', '.join(KINDS)}, parted by commas")
    if unknown := [name for name in named if name not in (*KINDS, "all")]:
        raise ConfigError(
            f"--dicom: found {unknown[0]!r}; expected all, or some of {', '.join(KINDS)}, parted by commas"
        )
    check_wanted(named)
    return tuple(kind for kind in KINDS if kind in named or "all" in named)


def check_wanted(kinds: Collection[str]) -> None:
    """Refuse to score where objects are wanted that cannot be written.

    Raises:
        ConfigError: If highdicom is not installed.
    """
    if kinds and (reason := missing()):
        raise ConfigError(f"--dicom: {reason}")
