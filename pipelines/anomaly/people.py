"""What is known of the people whose scans are scored: from the command line, a table, or DICOM headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medgen import io
from medgen.anomaly.normative.covariates import Covariates
from medgen.anomaly.normative.terms import category
from medgen.anomaly.normative.values import UNSAID
from medgen.data.layouts.tables import read_table
from medgen.errors import ConfigError
from medgen.faults import fail
from medgen.io.dicom.demographics import demographics

# Columns of a table that name a scan; the image's may be a path.
_NAMES = ("scan", "id", "case", "image")


@dataclass(frozen=True)
class Person:
    """Whom a new scan shows, as far as a detector adjusts for it.

    Attributes:
        known: By column of the manifest, as it was given.
        used: The same with the nearest values that can be adjusted for.
        missing: Covariates of the detector that are not known, or have no near value.
        problem: Why the detector does not adjust for such a person; empty if it does.
    """

    known: Mapping[str, str] = field(default_factory=dict)
    used: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    problem: str = ""

    @property
    def words(self) -> str:
        """What a scan was adjusted for: ``age 71, average sex``."""
        parts = [f"{name.replace('_', ' ')} {category(name, text)}" for name, text in self.used.items()]
        return ", ".join([*parts, *(f"average {name.replace('_', ' ')}" for name in self.missing)])


def check_covariates(given: str | None) -> None:
    """Refuse ``--covariates`` that is neither a list of values nor a table that is there.

    Raises:
        ConfigError: If it is not ``name=value`` with commas between.
        DataError: If there is no such table.
    """
    if given is not None:
        _given(given)


def people_of(given: str | None, scans: Mapping[str, Path], covariates: Covariates | None) -> dict[str, Person]:
    """Whom every scan shows.

    Args:
        given: ``age=71,sex=F`` for all scans, or a CSV or TSV file with a line for each: a column ``scan``, ``id``,
            ``case`` or ``image`` names it, others are the covariates, as in a manifest. None: nothing is given.
        scans: The scans by name. What is not given is read from the headers of DICOM series, where they say it.
        covariates: What the detector adjusts for; None: nothing.

    Raises:
        ConfigError: If values are given that the detector does not use.
        DataError: If the table cannot be used, or names none of the scans.
    """
    values, table = ({}, None) if given is None else _given(given)
    if covariates is None:
        if given is not None:
            raise ConfigError("--covariates: this model is adjusted for no covariate; leave the option out")
        return {name: Person() for name in scans}
    wanted = [term.name for term in covariates.terms]
    if strange := [key for key in values if key not in wanted]:
        raise ConfigError(
            f"--covariates: {strange[0]!r} is none of this model's; expected {', '.join(wanted)}; correct the name"
        )
    rows = {} if table is None else _rows(table, scans, wanted)
    people = {}
    for name, path in scans.items():
        header = demographics(path) if path.is_dir() else {}
        known = {key: text for source in (header, values, rows.get(name, {})) for key, text in source.items() if text}
        own = {key: known[key] for key in wanted if key in known}
        for term in covariates.terms:
            text = own.get(term.name, "")
            if text and term.read(text) is None and text.strip().lower() not in UNSAID:
                raise fail(path, f"{term.name} {text!r}", f"something like {term.words}", "correct the value")
        used = covariates.moved(own)
        people[name] = Person(own, used, tuple(covariates.missing(used)), covariates.problem(own))
    return people


def need_covariates(path: Path, person: Person, covariates: Covariates) -> None:
    """Refuse a scan of whose person something is not known.

    Raises:
        DataError: Naming the covariates, and what to do.
    """
    if absent := covariates.missing(person.known):
        example = ",".join(f"{name}=..." for name in absent)
        raise fail(
            path,
            f"no {' and no '.join(absent)} of the person",
            f"it, since the model is adjusted for {covariates.words}",
            f"pass --covariates {example} or a table, or --unadjusted to score an average person",
        )


def _given(text: str) -> tuple[dict[str, str], Path | None]:
    """Values for all scans, or a table."""
    if "=" not in text:
        path = Path(text)
        if not path.is_file():
            raise fail(path, "no such file", "a table, or values such as age=71,sex=F", "correct --covariates")
        return {}, path
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value) or name.lower() in values:
            raise ConfigError(
                f"--covariates: found {part.strip()[:40]!r}; expected each name once, as in age=71,sex=F; correct it"
            )
        values[name.lower()] = value
    return values, None


def _rows(path: Path, scans: Mapping[str, Path], wanted: Sequence[str]) -> dict[str, dict[str, str]]:
    """The cells of a table by name of the scan."""
    header, lines = read_table(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    columns = {name.lower(): name for name in header}
    keys = [columns[name] for name in _NAMES if name in columns]
    if not keys:
        raise fail(path, f"columns {', '.join(header)}", f"one of {', '.join(_NAMES)}", "name the scans in one of them")
    if not any(name in columns for name in wanted):
        expected = f"a column called {' or '.join(wanted)}"
        raise fail(path, f"columns {', '.join(header)}", expected, "name the column so, or pass --unadjusted")
    found = {}
    for name, scan in scans.items():
        own = [
            ({low: row[column] for low, column in columns.items()}, number)
            for number, row in lines
            if any(_names(row[key], name, scan) for key in keys)
        ]
        if len(own) > 1:
            lines_found = ", ".join(str(number) for _, number in own)
            raise fail(
                path, f"lines {lines_found} for {scan}", "one line for each scan", "name scans by folder and file"
            )
        if own:
            found[name] = own[0][0]
    if not found:
        raise fail(path, f"none of the {len(scans)} scans", "a line for each, by file name", "correct the table")
    return found


def _names(cell: str, name: str, scan: Path) -> bool:
    """Whether a cell names a scan: by its name in the results, or by the end of its path, with or without suffix."""
    text = cell.partition(";")[0].strip()
    parts = Path(text).parts
    if not parts or text == name:
        return bool(parts)
    bare = (*scan.absolute().parts[:-1], io.stem(scan))
    return any(own[-len(parts) :] == parts for own in (scan.absolute().parts, bare))
