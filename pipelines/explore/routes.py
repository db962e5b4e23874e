"""Where an exploration goes: between two scans, along principal directions, along covariates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.models.base import ScanCode
from medgen.models.exploration import between, looks, moved, principal_directions, regress
from medgen.report.exploration import covariate_words, interpolation_words, principal_words
from medgen.seeds import derive
from medgen.training.trainer import device_of

from .config import ExploreConfig
from .locate import Located

# Pictures of the animation from one step of the film strip to the next; percentiles of a covariate that are walked.
FINER, _RANGE = 3, (5, 95)
# Most training scans whose looks principal directions are found from.
_DRAWN = 100
# Share of them that has to show a voxel for it to count.
_SHOWN = 0.9


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
    start = _start(config, found)
    place = _place(config, found, start)
    directions, shares = _directions(config, found, place)
    yield _interpolation(config, found, directions[0])
    wanted = zip(directions[: config.components], shares.tolist(), strict=False)
    for number, (direction, share) in enumerate(wanted, start=1):
        stops = (
            (sd, _deviations(sd), moved(place, sd * direction))
            for sd in _positions(config, -config.reach, config.reach)
        )
        about, facts = principal_words(share, start, config.reach), {"share": share, "start": start}
        yield Route(f"principal-{number}", f"Principal direction {number}", about, stops, facts)
    yield from _covariates(config, found, start, seed)


def _directions(
    config: ExploreConfig, found: Located, place: ScanCode
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal directions, by what the model draws with the codes of training scans in place of one scan's."""
    codes = found.codes[found.training]
    chosen = codes[np.unique(np.linspace(0, len(codes) - 1, _DRAWN).round().astype(int))]
    n_labels = getattr(found.model.settings, "n_labels", 0)
    own = place.code[0].double().cpu().numpy()
    shown = found.dataset.foregrounds[torch.from_numpy(found.training)]
    inside = shown.float().mean(0)[0] >= _SHOWN
    drawn = np.stack([looks(found.model.draw_at(moved(place, code - own)), inside, n_labels) for code in chosen])
    return principal_directions(chosen, drawn, max(1, config.components))


def _interpolation(config: ExploreConfig, found: Located, direction: NDArray[np.float64]) -> Route:
    """From one case to another; by default between the ends of the first principal direction."""
    first, second = config.between or _ends(found, direction)
    ends = _place(config, found, first), _place(config, found, second)
    captions = {0.0: first, 1.0: second}
    stops = ((t, captions.get(t, f"{100 * t:.0f} %"), between(*ends, t)) for t in _positions(config, 0, 1))
    return Route("interpolation", f"Between {first} and {second}", interpolation_words(first, second), stops)


def _ends(found: Located, direction: NDArray[np.float64]) -> tuple[str, str]:
    """The training scans of different subjects whose codes lie farthest apart along a direction."""
    rows = np.flatnonzero(found.training)
    along = rows[np.argsort(found.codes[rows] @ direction)]
    last = along[-1]
    first = next(row for row in along if found.dataset.subjects[row] != found.dataset.subjects[last])
    return found.dataset.ids[first], found.dataset.ids[last]


def _covariates(config: ExploreConfig, found: Located, start: str, seed: int) -> Iterator[Route]:
    """Along every column, from its 5th to its 95th percentile among the training scans."""
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


def _deviations(sd: float) -> str:
    """Standard deviations as captions write them."""
    return "0" if abs(sd) < 0.05 else f"{sd:+.1f} sd".replace("-", "\N{MINUS SIGN}")


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
