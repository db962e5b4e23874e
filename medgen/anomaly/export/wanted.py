"""For which programs results are wanted."""

from __future__ import annotations

from medgen.errors import ConfigError

KINDS = ("bids", "slicer", "itksnap")


def wanted(text: str) -> tuple[str, ...]:
    """The kinds that a list names, in the order of ``KINDS``.

    >>> wanted("slicer, bids"), wanted("all")
    (('bids', 'slicer'), ('bids', 'slicer', 'itksnap'))

    Raises:
        ConfigError: If no kind is named, or one is unknown.
    """
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    unknown = [name for name in named if name not in (*KINDS, "all")]
    if not named or unknown:
        found = repr(unknown[0] if unknown else text)
        raise ConfigError(f"--export: found {found}; expected all, or some of {', '.join(KINDS)}, parted by commas")
    return tuple(kind for kind in KINDS if kind in named or "all" in named)
