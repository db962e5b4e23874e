"""Values of records in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Significant digits of a number in a card: more than anyone reads, fewer than anyone mistakes for a measurement.
DIGITS = 4


def number(value: Any) -> str:
    """A number with four significant digits.

    >>> number(0.337631219), number(12), number(None), number(True)
    ('0.3376', '12', 'not known', 'yes')
    """
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def interval(value: Mapping[str, Any]) -> str:
    """An estimate with its interval, as ``metrics.json`` keeps it.

    >>> interval({"estimate": 0.33763, "low": 0.1474, "high": 0.507, "n": 12, "level": 0.95})
    '0.3376 [0.1474, 0.507] (95 % interval, 12 subjects)'
    >>> interval({"estimate": 0.5, "low": None, "high": None, "n": 1, "level": 0.95})
    '0.5 (no interval, 1 subject)'
    """
    subjects = f"{value['n']} subject{'' if value['n'] == 1 else 's'}"
    if value.get("low") is None or value.get("high") is None:
        return f"{number(value['estimate'])} (no interval, {subjects})"
    level = f"{100 * value.get('level', 0.95):g} % interval"
    return f"{number(value['estimate'])} [{number(value['low'])}, {number(value['high'])}] ({level}, {subjects})"


def size(shape: Sequence[int], spacing: Sequence[float]) -> str:
    """A grid.

    >>> size([40, 48, 40], [4.0, 4.0, 4.0])
    '40 x 48 x 40 voxels of 4 x 4 x 4 mm'
    """
    return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{step:g}' for step in spacing)} mm"
