"""Which covariates a cohort supports, and people as rows of numbers.

A column of the manifest is used where nearly all development subjects have it, each of its values has several subjects,
it is no combination of the columns before it, and there are ten subjects for every degree of freedom (Harrell,
"Regression modeling strategies", 2015, chapter 4). What is not used is dropped with a sentence, which reports repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.normative.config import AUTO, NONE
from medgen.anomaly.normative.terms import Category, Quantity, Term, category, term_from_plain, term_to_plain
from medgen.anomaly.normative.values import number, years
from medgen.errors import ConfigError, OutOfDistribution

AUTOMATIC = ("age", "sex", "scanner", "field_strength", "site")
"""Columns that are used of themselves, in this order."""

SUBJECTS_PER_FREEDOM = 10
# Columns whose numbers are names: serial numbers, sites, field strengths.
_NAMES = ("sex", "scanner", "site", "field_strength")
_FEWEST_WITH_A_VALUE = 5
# Of the development subjects; the others count as average.
_NEARLY_ALL = 0.9
# Numbers with fewer different values are names of groups, such as field strengths.
_FEWEST_VALUES = 6
# Share of a column that those before it explain: beyond, nobody could say which of them has an effect.
_EXPLAINED = 0.8
# A square takes a degree of freedom from a cohort that can spare it.
_SUBJECTS_FOR_SQUARE = 40


@dataclass(frozen=True, eq=False)
class Covariates:
    """What of people a detector adjusts for.

    Attributes:
        terms: Covariates in use, at least one.
        covariance: (d, d) of their columns over the development subjects.
        subjects: How many development subjects there were.
    """

    terms: tuple[Term, ...]
    covariance: NDArray[np.float64]
    subjects: int

    def row(self, known: Mapping[str, str]) -> NDArray[np.float64]:
        """A person as columns (d,), 0 on average over the cohort; NaN where something is not known.

        Args:
            known: What is known, by column of the manifest in whatever case.

        Raises:
            OutOfDistribution: If a value lies outside of what the development subjects have.
        """
        values = self._values(known)
        if problems := self._problems(values):
            raise OutOfDistribution([f"found {'; found '.join(problems)}; nothing was learnt of such people"])
        return _joined(self.terms, values)

    def problem(self, known: Mapping[str, str]) -> str:
        """Why a person cannot be adjusted for, in one sentence; empty if nothing known is against it."""
        try:
            self.row(known)
        except OutOfDistribution as error:
            return str(error)
        return ""

    def moved(self, known: Mapping[str, str]) -> dict[str, str]:
        """A person with the nearest values that can be adjusted for; without those that are like no other."""
        values = self._values(known)
        moved = {term.name: term.nearest(values[term.name]) for term in self.terms if values[term.name] is not None}
        return {
            name: value if isinstance(value, str) else repr(value) for name, value in moved.items() if value is not None
        }

    def nearest(self, known: Mapping[str, str]) -> NDArray[np.float64]:
        """As :meth:`row`, of the nearest person that can be adjusted for."""
        return self.row(self.moved(known))

    def missing(self, known: Mapping[str, str]) -> list[str]:
        """Names of the covariates that are not known."""
        values = self._values(known)
        return [term.name for term in self.terms if values[term.name] is None]

    @property
    def words(self) -> str:
        """What is adjusted for, with ranges: ``age (31 to 88 years) and sex``."""
        parts = [term.words for term in self.terms]
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        terms = [term_to_plain(term) for term in self.terms]
        return {"terms": terms, "covariance": self.covariance.tolist(), "subjects": self.subjects}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Covariates:
        """Inverse of :meth:`to_plain`.

        Raises:
            KeyError, TypeError, ValueError: If it is no such data.
        """
        terms = tuple(map(term_from_plain, data["terms"]))
        covariance = np.asarray(data["covariance"], dtype=np.float64)
        d = sum(term.size for term in terms)
        if covariance.shape != (d, d) or d == 0:
            raise ValueError(f"covariates with {d} columns and a covariance of shape {covariance.shape}")
        return cls(terms, covariance, int(data["subjects"]))

    def _values(self, known: Mapping[str, str]) -> dict[str, Any]:
        cells = {name.strip().lower(): text for name, text in known.items()}
        return {term.name: term.read(cells.get(term.name, "")) for term in self.terms}

    def _problems(self, values: Mapping[str, Any]) -> list[str]:
        found = [term.problem(values[term.name]) for term in self.terms if values[term.name] is not None]
        return [text for text in found if text]


@dataclass(frozen=True, eq=False)
class ChosenCovariates:
    """What was made of a cohort's columns.

    Attributes:
        covariates: What is adjusted for; None: nothing.
        dropped: A sentence for every column that is there, or was asked for, and is not used.
    """

    covariates: Covariates | None
    dropped: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "covariates": None if self.covariates is None else self.covariates.to_plain(),
            "dropped": list(self.dropped),
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> ChosenCovariates:
        """Inverse of :meth:`to_plain`.

        Raises:
            KeyError, TypeError, ValueError: If it is no such data.
        """
        own = data["covariates"]
        return cls(None if own is None else Covariates.from_plain(own), tuple(map(str, data["dropped"])))

    @property
    def words(self) -> str:
        """What means and variances are adjusted for, and why not for more; without a full stop."""
        used = "not adjusted for any covariate" if self.covariates is None else f"adjusted for {self.covariates.words}"
        return "; ".join([used, *self.dropped])


def check_columns(wanted: str | Sequence[str], known: Sequence[Mapping[str, str]], source: object = "") -> None:
    """Refuse a list of covariates with one that no development scan has; a run asks before it trains.

    Args:
        wanted: ``auto``, ``none`` or columns.
        known: What the manifest says of each development scan, by column.
        source: The cohort, for the message.

    Raises:
        ConfigError: Naming the column, and those that there are.
    """
    for name in () if isinstance(wanted, str) else wanted:
        said = (text for own in known for key, text in own.items() if key.strip().lower() == name)
        if all(category(name, text) is None for text in said):
            there = sorted({key.strip().lower() for own in known for key in own}) or ["none"]
            raise ConfigError(
                f"{f'{source}: ' if source else ''}no development scan has {name!r}; expected in "
                f"anomaly.normative.covariates columns of the manifest ({', '.join(there)}); correct the list or the "
                "manifest"
            )


def choose_covariates(
    wanted: str | Sequence[str], known: Sequence[Mapping[str, str]], subjects: Sequence[str]
) -> ChosenCovariates:
    """Decide by the development scans what is adjusted for.

    Args:
        wanted: ``auto``, ``none`` or columns.
        known: What the manifest says of each development scan, by column.
        subjects: Subject of each; a subject counts once, with its first scan that says something.

    Raises:
        ConfigError: If a column is asked for that no development scan has.
    """
    check_columns(wanted, known)
    if wanted == NONE:
        return ChosenCovariates(None)
    names = AUTOMATIC if wanted == AUTO else tuple(wanted)
    cells = _by_subject(names, known, subjects)
    order, n = list(dict.fromkeys(subjects)), len(set(subjects))
    terms: list[Term] = []
    dropped: list[str] = []
    rows = np.zeros((n, 0))
    for name in names:
        texts = [cells[subject].get(name, "") for subject in order]
        if not any(texts):
            continue
        term, reason = _term(name, texts)
        if term is not None:
            own = np.nan_to_num(np.stack([_joined((term,), {name: term.read(text)}) for text in texts]))
            reason = _unsupported(term, rows, own, n)
            if not reason:
                terms.append(term)
                rows = np.concatenate([rows, own], axis=1)
        if reason:
            dropped.append(f"{name.replace('_', ' ')} is not used: {reason}")
    for place, term in enumerate(terms):
        if isinstance(term, Quantity) and n >= max(
            _SUBJECTS_FOR_SQUARE, SUBJECTS_PER_FREEDOM * (sum(own.size for own in terms) + 1)
        ):
            read = (term.read(cells[subject].get(term.name, "")) for subject in order)
            terms[place] = term.bent([value for value in read if value is not None])
    if not terms:
        return ChosenCovariates(None, tuple(dropped))
    people = [
        _joined(terms, {term.name: term.read(cells[subject].get(term.name, "")) for term in terms}) for subject in order
    ]
    covariance = np.atleast_2d(np.cov(np.nan_to_num(np.stack(people)), rowvar=False, bias=True))
    return ChosenCovariates(Covariates(tuple(terms), covariance, n), tuple(dropped))


def _by_subject(
    names: Sequence[str], known: Sequence[Mapping[str, str]], subjects: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The first cell of each subject that says something, by column."""
    found: dict[str, dict[str, str]] = {subject: {} for subject in subjects}
    for own, subject in zip(known, subjects, strict=True):
        for key, text in own.items():
            name = key.strip().lower()
            if name in names and category(name, text) is not None:
                found[subject].setdefault(name, text)
    return found


def _term(name: str, texts: Sequence[str]) -> tuple[Term | None, str]:
    """The term of a column, or why there is none."""
    read: Callable[[str], float | None] = years if name == "age" else number
    numbers = [value for value in map(read, texts) if value is not None]
    names = [value for text in texts if (value := category(name, text)) is not None]
    is_number = name == "age" or (
        name not in _NAMES and len(numbers) == len(names) and len(set(numbers)) >= _FEWEST_VALUES
    )
    count = len(numbers) if is_number else len(names)
    if count < _NEARLY_ALL * len(texts):
        return None, f"{count} of {len(texts)} development subjects have it, at least {_NEARLY_ALL:.0%} must"
    if is_number:
        if len(set(numbers)) == 1:
            return None, f"all development subjects have {numbers[0]:g}"
        return Quantity.of(name, numbers), ""
    term = Category.of(name, names)
    if term.size == 0:
        return None, f"all development subjects have {term.values[0]!r}"
    fewest = min(term.values, key=names.count)
    if (k := names.count(fewest)) < _FEWEST_WITH_A_VALUE:
        return None, f"{fewest!r} has {k} development subject{'s' * (k != 1)}, at least {_FEWEST_WITH_A_VALUE} must"
    return term, ""


def _unsupported(term: Term, rows: NDArray[np.float64], own: NDArray[np.float64], n: int) -> str:
    """Why the cohort does not support a further term; empty if it does."""
    used = rows.shape[1] + term.size
    if n < SUBJECTS_PER_FREEDOM * used:
        with_it = f"with it {used} numbers would" if used > 1 else "one number would"
        return f"{with_it} be fitted at each place, for which {SUBJECTS_PER_FREEDOM * used} subjects are needed"
    if rows.shape[1]:
        centred = own - own.mean(0)
        before = rows - rows.mean(0)
        rest = centred - before @ np.linalg.lstsq(before, centred, rcond=None)[0]
        if (rest**2).sum() < (1 - _EXPLAINED) * (centred**2).sum():
            return f"the covariates before it say {_EXPLAINED:.0%} or more of it"
    return ""


def _joined(terms: Sequence[Term], values: Mapping[str, Any]) -> NDArray[np.float64]:
    parts = []
    for term in terms:
        value = values[term.name]
        parts.append(np.full(term.size, np.nan) if value is None else term.columns(value))
    return np.concatenate(parts)
