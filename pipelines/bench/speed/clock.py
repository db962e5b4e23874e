"""What work costs: processor time of this process, or time on a GPU between two events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from .contest import Contender, Growth, Work

# Seconds that one measurement takes at least: work that is shorter is done several times in it.
_SHORTEST = 0.05
Clock = Callable[[Work, int], float]


def clock_for(device: str) -> Clock:
    """A function that does work so many times and returns seconds for once.

    On a CPU these are seconds of processor time of all threads of this process, which other processes hardly change; on
    a GPU those between two CUDA events.
    """
    return _on_gpu if torch.device(device).type == "cuda" else _on_cpu


def now(device: torch.device) -> float:
    """Seconds so far, for work that is not repeated: of this process on a CPU, of the day once a GPU is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _on_cpu(work: Work, times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def _on_gpu(work: Work, times: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000 / times


def in_turns(contenders: Sequence[Contender], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of every contender in every round.

    Each does its work once untimed. In every round all are measured, one after the other, beginning with another one
    each time, so that what slows the machine down for a while slows down all alike.
    """
    times: dict[str, int] = {}
    for contender in contenders:
        contender.work()
        # A clock that has not moved: as often as the shortest time that it could have missed.
        once = max(clock(contender.work, 1), _SHORTEST / 1000)
        times[contender.name] = max(1, math.ceil(_SHORTEST / once))
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            seconds[contender.name].append(clock(contender.work, times[contender.name]))
    return seconds


def growing(growth: Growth, rounds: int, clock: Clock) -> list[float]:
    """Median seconds for each amount of work, one amount after the other, so that memory holds one."""
    found = []
    for amount in growth.amounts:
        only = in_turns([Contender("medgen", growth.make(amount))], rounds, clock)
        found.append(median(only["medgen"]))
    return found


def exponent(amounts: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log amount by least squares; what is constant at the smallest amounts flattens it.

    >>> round(exponent([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    x, y = [math.log(a) for a in amounts], [math.log(s) for s in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def steepest(amounts: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent between the last two amounts, where constant costs count least."""
    return exponent(amounts[-2:], seconds[-2:])
