"""Where an exploration goes: between two scans, along principal directions, along covariates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medgen.errors import DataError
from medgen.models.base import ScanCode
from medgen.models.exploration import between, moved, principal_directions, regress
from medgen.report.exploration import covariate_words, interpolation_words, principal_words
from medgen.seeds import derive
from medgen.training.trainer import device_of

from .config import ExploreConfig
from .locate import Located

# Pictures of the animation from one step of the film strip to the next; percentiles of a covariate that are walked.
FINER, _RANGE = 3, (5, 95)


@dataclass(frozen=True, eq=False)
class Route:
    """Where a walk goes.

    Attributes:
        name: File name without its ending.
        title: Its heading.
        about: Where it goes, in a sentence.
        stops: Position, caption and place of every step; made one at a time, since a place may be as large as a scan.
        facts: Further numbers.
    """

    name: str
    title: str
    about: str
    stops: Iterable[tuple[float, str, ScanCode]]
    facts: Mapping[str, Any] = field(default_factory=dict)


def routes(config: ExploreConfig, found: Located, seed: int) -> Iterator[Route]:
    """All routes, each to be walked before the next is asked for.

    Raises:
        DataError: If a case cannot be used, or a column says too little.
    """
    yield _interpolation(config, found)
    if config.components or found.columns:
        start = _start(config, found)
        yield from _principal(config, found, start)
        yield from _covariates(config, found, start, seed)


def _interpolation(config: ExploreConfig, found: Located) -> Route:
    if config.between:
        first, second = config.between
    else:
        codes = found.codes[found.training]
        along = codes @ principal_directions(codes, 1)[0][0]
        ids = np.array(found.dataset.ids)[found.training]
        first, second = str(ids[along.argmin()]), str(ids[along.argmax()])
    ends = _place(config, found, first), _place(config, found, second)
    captions = {0.0: first, 1.0: second}
    stops = ((t, captions.get(t, f"{100 * t:.0f} %"), between(*ends, t)) for t in _positions(config, 0, 1))
    return Route("interpolation", f"Between {first} and {second}", interpolation_words(first, second), stops)


def _principal(config: ExploreConfig, found: Located, start: str) -> Iterator[Route]:
    directions, shares = principal_directions(found.codes[found.training], config.components)
    place = _place(config, found, start)
    for number, (direction, share) in enumerate(zip(directions, shares.tolist(), strict=True), start=1):
        stops = (
            (sd, f"{sd:+.1f} sd".replace("-", "\N{MINUS SIGN}"), moved(place, sd * direction))
            for sd in _positions(config, -config.reach, config.reach)
        )
        about = principal_words(share, start, config.reach)
        yield Route(
            f"principal-{number}", f"Principal direction {number}", about, stops, {"share": share, "start": start}
        )


def _covariates(config: ExploreConfig, found: Located, start: str, seed: int) -> Iterator[Route]:
    place = _place(config, found, start)
    for number, column in enumerate(found.columns, start=1):
        rows = [row for row in np.flatnonzero(found.training) if found.dataset.ids[row] in column.values]
        values = np.array([column.values[found.dataset.ids[row]] for row in rows])
        subjects = [found.dataset.subjects[row] for row in rows]
        fitted = regress(found.codes[rows], values, subjects, derive(seed, "explore", column.name))
        if fitted is None:
            raise DataError(
                f"column {column.name!r}: fewer than three subjects of the training have a value, or all the same one; "
                "choose another column for --along"
            )
        low, high = (0.0, 1.0) if column.names else np.percentile(values, _RANGE).tolist()
        own = column.values[start]
        stops = (
            (value, column.words(value), moved(place, (value - own) * fitted.slope))
            for value in _positions(config, low, high)
        )
        facts = {"column": column.name, "explained": fitted.explained, "p": fitted.p, "start": start}
        yield Route(f"covariate-{number}", f"Along {column.name}", covariate_words(column, fitted, start), stops, facts)


def _positions(config: ExploreConfig, low: float, high: float) -> list[float]:
    """Positions of all steps of the animated picture; every third is one of the film strip."""
    return [float(value) for value in np.linspace(low, high, (config.steps - 1) * FINER + 1)]


def _place(config: ExploreConfig, found: Located, case: str) -> ScanCode:
    """Everything that a scan is drawn from."""
    return found.model.locate(found.dataset.batch([found.row(case)]).to(device_of(config.device)))


def _start(config: ExploreConfig, found: Located) -> str:
    """The case that traversals start at: the one named, else the training scan nearest to the middle of the codes.

    Raises:
        DataError: If no training scan, or not the named one, has a value in every column that is followed.
    """

    def known(case: str) -> bool:
        return all(case in column.values for column in found.columns)

    if config.at and not known(config.at):
        raise DataError(f"case {config.at!r} has no value in a column of --along; choose another case for --at")
    if config.at:
        return config.at
    rows = [row for row in np.flatnonzero(found.training) if known(found.dataset.ids[row])]
    if not rows:
        raise DataError("no training scan has a value in every column of --along; follow them one at a time")
    return str(found.dataset.ids[rows[int(found.manifold.distance(found.codes[rows]).argmin())]])
