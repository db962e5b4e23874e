"""What a benchmark of speed is made of: contests with peers, growth of cost with work, single figures.

A benchmark is a module of :mod:`.contests` with one function ``entries(settings)`` that yields these, one at a time: a
contest is measured before the next one is made, so that no two hold memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Work = Callable[[], object]
# Row of a table, then its value for each contender.
Rows = Mapping[str, Mapping[str, float | str]]


def _no_rows() -> Rows:
    return {}


@dataclass(frozen=True)
class Settings:
    """How benchmarks of speed are run.

    Attributes:
        device: ``cpu`` or ``cuda[:N]``; peers run on the same.
        rounds: Times that every contender is measured; odd, so that a median is a time that was measured.
        quick: Small volumes and few steps: tries a benchmark out, its figures mean nothing.
        data: A cohort, for benchmarks that take one; without it they simulate.
        scratch: An empty folder for files, removed afterwards.
    """

    device: str
    rounds: int
    quick: bool
    data: Path | None
    scratch: Path


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: ``medgen``, or the peer and its function, such as ``MONAI AutoencoderKL``.
        work: Does it once; whatever it returns is thrown away.
        goal: Times of medgen that this contender should take at least, as a ratio; None where nothing is promised.
    """

    name: str
    work: Work
    goal: float | None = None


@dataclass(frozen=True)
class Demand:
    """What the work cannot do without, whoever does it.

    Attributes:
        flops: Floating-point operations of convolutions and products.
        bytes: Bytes that must be read from memory or written to it, once each.
        of: What was counted, for the reader.
        bf16: Whether the operations may be done in bfloat16.
    """

    flops: float
    bytes: float
    of: str
    bf16: bool = False


@dataclass(frozen=True)
class Contest:
    """The same work done by medgen and by peers, in turns.

    Attributes:
        name: What is done, such as ``VAE training step, bf16``.
        contenders: medgen first.
        demand: For the physical floor; None where none can be given.
        equal: Called after the timing: what shows that the work is equal and its result as good, such as numbers of
            parameters, voxels and errors, for each contender.
        without: Peers that are not here, each with a sentence that says why.
        notes: Sentences that a reader of the figures needs.
    """

    name: str
    contenders: tuple[Contender, ...]
    demand: Demand | None = None
    equal: Callable[[], Rows] = _no_rows
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Growth:
    """How the cost of medgen grows with the amount of work.

    Attributes:
        name: What is done.
        of: What grows, such as ``voxels``.
        amounts: How much of it, in ascending order.
        make: Prepares the work for an amount; only what it returns is timed.
        goal: The exponent should not be above this.
        notes: Sentences that a reader of the figures needs.
    """

    name: str
    of: str
    amounts: tuple[float, ...]
    make: Callable[[float], Work]
    goal: float | None = 1.05
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A number that was measured in some other way, such as in a process of its own.

    Attributes:
        name: What was measured.
        value: The number.
        unit: Its unit; empty for a plain number.
        goal: What it should be; None where nothing is promised.
        better: Whether it should be at least or at most the goal.
        notes: Sentences that a reader of the figure needs.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["less", "more"] = "less"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Numbers beside a benchmark that are no race, such as seconds of each stage.

    Attributes:
        name: Title of the table.
        rows: Row, column, value.
        notes: Sentences that a reader needs.
    """

    name: str
    rows: Rows = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Entry = Contest | Growth | Figure | Table
