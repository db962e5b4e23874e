"""Cells of a table about people as values: ages in years, sexes, numbers, names."""

from __future__ import annotations

import math
import re

# Years, or a DICOM age string (VR AS: 045Y, 006M, 012W, 003D); "89+" is how ages are often capped.
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWD]?)\+?", re.IGNORECASE)
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
_SEX = {"m": "male", "male": "male", "f": "female", "female": "female"}
UNSAID = frozenset({"", "n/a", "na", "nan", "none", "null", "unknown", "?", "-"})
"""Cells, in lower case, that say nothing."""


def years(text: str) -> float | None:
    """An age in years; None if it cannot be read.

    >>> years("45"), years("006M"), years("89+"), years("n/a")
    (45.0, 0.5, 89.0, None)
    """
    match = _AGE.fullmatch(text.strip())
    return None if match is None else float(match[1]) / _PER_YEAR[match[2].upper()]


def sex(text: str) -> str:
    """``male`` or ``female`` however it is written; another text as it stands.

    >>> sex("F"), sex(" male "), sex("other")
    ('female', 'male', 'other')
    """
    return _SEX.get(text.strip().lower(), text.strip())


def number(text: str) -> float | None:
    """A finite number; None if it is none.

    >>> number("1.5"), number("Trio"), number("nan")
    (1.5, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
