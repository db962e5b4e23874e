"""Every interval of a ``metrics.json``, and whether it holds its own estimate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

_KEYS = {"estimate", "low", "high"}


def check(metrics: Mapping[str, Any]) -> list[str]:
    """One line per interval that is upside down or excludes its own estimate; empty if there is none.

    An interval is a mapping with ``estimate``, ``low`` and ``high``; where a limit is null (NaN or infinite) there is
    nothing to compare.
    """
    lines = []
    for place, item in walk(metrics):
        values = [math.nan if item[key] is None else float(item[key]) for key in ("low", "estimate", "high")]
        slack = 1e-9 * max((abs(value) for value in values if math.isfinite(value)), default=0.0)
        low, estimate, high = values
        if low > high + slack or estimate < low - slack or estimate > high + slack:
            lines.append(f"{place}: {estimate:g} [{low:g}, {high:g}]")
    return lines


def walk(data: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every interval with its place, such as ``value.3.interval``."""
    if isinstance(data, Mapping):
        if set(data) >= _KEYS:
            yield place, data
        for key, item in data.items():
            yield from walk(item, f"{place}.{key}" if place else str(key))
    elif isinstance(data, list | tuple):
        for index, item in enumerate(data):
            yield from walk(item, f"{place}.{index}")
