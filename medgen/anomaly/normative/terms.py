"""One covariate each: what of it was seen in the cohort, and the columns that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.normative.values import UNSAID, number, sex, years

# A quantity may lie beyond the development subjects' range by this share of it: with 19 of them every tenth healthy
# person of the same population lies outside, and a line is trusted a little further than its last point.
_BEYOND = 0.1


@dataclass(frozen=True)
class Quantity:
    """A number, such as the age: standardised, and with enough subjects squared as well.

    Attributes:
        name: Column of the manifest, in lower case.
        mean, sd: Over the development subjects.
        low, high: Their smallest and largest value.
        square: Mean of the squared standardised value, which centres its column; None: no such column.
    """

    name: str
    mean: float
    sd: float
    low: float
    high: float
    square: float | None = None
    kind: ClassVar[str] = "quantity"

    @classmethod
    def of(cls, name: str, values: Sequence[float]) -> Self:
        """From the values of the development subjects, one each."""
        data = np.asarray(values, dtype=np.float64)
        return cls(name, float(data.mean()), float(data.std()), float(data.min()), float(data.max()))

    def bent(self, values: Sequence[float]) -> Self:
        """The same with a column for the square."""
        data = (np.asarray(values, dtype=np.float64) - self.mean) / self.sd
        return replace(self, square=float((data**2).mean()))

    @property
    def size(self) -> int:
        """Number of columns."""
        return 1 if self.square is None else 2

    def read(self, text: str) -> float | None:
        """The value of a cell; None where it says nothing that can be read."""
        return (years if self.name == "age" else number)(text.strip())

    def columns(self, value: float) -> NDArray[np.float64]:
        """The columns of a value, (size,)."""
        away = (value - self.mean) / self.sd
        return np.array([away] if self.square is None else [away, away**2 - self.square])

    @property
    def accepted(self) -> tuple[float, float]:
        """Smallest and largest value that a new person may have."""
        more = _BEYOND * (self.high - self.low)
        return self.low - more, self.high + more

    def problem(self, value: float) -> str:
        """Why a value cannot be adjusted for; empty if it can."""
        low, high = self.accepted
        if low <= value <= high:
            return ""
        return f"{self.name} {value:g}; expected {low:.4g} to {high:.4g} (development: {self.low:g} to {self.high:g})"

    def nearest(self, value: float) -> float | None:
        """The nearest value that can be adjusted for."""
        return float(np.clip(value, *self.accepted))

    @property
    def words(self) -> str:
        """What is adjusted for."""
        unit = " years" if self.name == "age" else ""
        return f"{self.name.replace('_', ' ')} ({self.low:g} to {self.high:g}{unit})"


@dataclass(frozen=True)
class Category:
    """One of several values, such as the scanner: a contrast for each value but the first.

    Attributes:
        name: Column of the manifest, in lower case.
        values: In order of the alphabet, at least two.
        shares: Of the development subjects that have each.
    """

    name: str
    values: tuple[str, ...]
    shares: tuple[float, ...]
    kind: ClassVar[str] = "category"

    @classmethod
    def of(cls, name: str, values: Sequence[str]) -> Self:
        """From the values of the development subjects, one each."""
        found = sorted(set(values))
        return cls(name, tuple(found), tuple(values.count(value) / len(values) for value in found))

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.values) - 1

    def read(self, text: str) -> str | None:
        """The value of a cell; None where it says nothing."""
        return category(self.name, text)

    def columns(self, value: str) -> NDArray[np.float64]:
        """The columns of a value, (size,)."""
        return np.array(
            [float(value == own) - share for own, share in zip(self.values[1:], self.shares[1:], strict=True)]
        )

    def problem(self, value: str) -> str:
        """Why a value cannot be adjusted for; empty if it can."""
        return "" if value in self.values else f"{self.name} {value!r}; expected {' or '.join(map(repr, self.values))}"

    def nearest(self, value: str) -> str | None:
        """The value if it can be adjusted for, else None: no value is near another."""
        return value if value in self.values else None

    @property
    def words(self) -> str:
        """What is adjusted for."""
        name = self.name.replace("_", " ")
        return name if self.name == "sex" else f"{name} ({', '.join(self.values)})"


Term = Quantity | Category


def category(name: str, text: str) -> str | None:
    """A cell as one of several values; numbers lose their zeros, so that 3 and 3.0 are one field strength.

    >>> category("field_strength", "3.0"), category("sex", "F"), category("site", "n/a")
    ('3', 'female', None)
    """
    text = sex(text) if name == "sex" else text.strip()
    if text.lower() in UNSAID:
        return None
    value = number(text)
    if value is None:
        return text
    return str(int(value)) if value.is_integer() else repr(value)


def term_from_plain(data: Mapping[str, Any]) -> Term:
    """Inverse of :func:`term_to_plain`.

    Raises:
        KeyError: If something is missing.
        ValueError: If the kind is unknown.
    """
    kind, own = data["kind"], {key: value for key, value in data.items() if key != "kind"}
    if kind == Quantity.kind:
        return Quantity(**own)
    if kind == Category.kind:
        return Category(own["name"], tuple(own["values"]), tuple(own["shares"]))
    raise ValueError(f"a covariate of the kind {kind!r}")


def term_to_plain(term: Term) -> dict[str, Any]:
    """A term as plain data."""
    return {"kind": term.kind, **{key: list(v) if isinstance(v, tuple) else v for key, v in vars(term).items()}}
