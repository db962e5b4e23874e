"""Entries of a benchmark once they are measured, as they are kept in ``performance.json``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from .clock import Clock, exponent, growing, in_turns, steepest
from .contest import Contest, Entry, Figure, Growth
from .roofline import Roofline


def measured(entry: Entry, rounds: int, clock: Clock, roof: Roofline) -> dict[str, Any]:
    """Do what the entry says and tell what it took, as plain data."""
    if isinstance(entry, Contest):
        return _contest(entry, rounds, clock, roof)
    if isinstance(entry, Growth):
        return _growth(entry, rounds, clock)
    if isinstance(entry, Figure):
        reached = None
        if entry.goal is not None:
            reached = entry.value <= entry.goal if entry.better == "less" else entry.value >= entry.goal
        return {
            "kind": "figure",
            "name": entry.name,
            "value": float(entry.value),
            "unit": entry.unit,
            "goal": entry.goal,
            "better": entry.better,
            "reached": reached,
            "notes": list(entry.notes),
        }
    return {"kind": "table", "name": entry.name, "rows": _plain(entry.rows), "notes": list(entry.notes)}


def _contest(contest: Contest, rounds: int, clock: Clock, roof: Roofline) -> dict[str, Any]:
    seconds = in_turns(contest.contenders, rounds, clock)
    own, *peers = contest.contenders
    against = {}
    for peer in peers:
        # Round by round: what slowed the machine down slowed both down.
        ratios = np.divide(seconds[peer.name], seconds[own.name])
        low, middle, high = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
        reached = None if peer.goal is None else middle >= peer.goal
        against[peer.name] = {"ratio": middle, "low": low, "high": high, "goal": peer.goal, "reached": reached}
    demand = contest.demand
    floor = None
    if demand is not None:
        least = roof.floor(demand)
        floor = {"seconds": least, "of": demand.of, "times": median(seconds[own.name]) / least}
    return {
        "kind": "contest",
        "name": contest.name,
        "seconds": {name: _spread(values) for name, values in seconds.items()},
        "against": against,
        "floor": floor,
        "equal": _plain(contest.equal()),
        "without": list(contest.without),
        "notes": list(contest.notes),
    }


def _growth(growth: Growth, rounds: int, clock: Clock) -> dict[str, Any]:
    seconds = growing(growth, rounds, clock)
    fitted = exponent(growth.amounts, seconds)
    return {
        "kind": "growth",
        "name": growth.name,
        "of": growth.of,
        "amounts": list(growth.amounts),
        "seconds": seconds,
        "exponent": fitted,
        "last": steepest(growth.amounts, seconds),
        "goal": growth.goal,
        "reached": None if growth.goal is None else fitted <= growth.goal,
        "notes": list(growth.notes),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float | int]:
    low, middle, high = (float(value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return {"median": middle, "low": low, "high": high, "rounds": len(seconds)}


def _plain(rows: Any) -> dict[str, dict[str, float | str]]:
    return {
        row: {column: value if isinstance(value, str) else float(value) for column, value in values.items()}
        for row, values in rows.items()
    }
