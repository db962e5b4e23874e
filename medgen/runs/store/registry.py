"""Registered models beside each other: two versions on the numbers that they carry, and which one is the champion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medgen.errors import ConfigError, DataError
from medgen.runs.keys import HIGH, LOW, Key
from medgen.runs.store.faults import sentence
from medgen.runs.store.models import CHAMPION
from medgen.runs.store.refusals import UNKNOWN

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Settings that the numbers of a kind of model depend on besides its test scans.
_MEASURED_BY = {"anomaly": ("evaluation.",), "augment": ("value.", "evaluation.")}
_DESCRIPTION_LIMIT = 4900


@dataclass(frozen=True)
class Version:
    """A version of a registered model with what its run says of it.

    Attributes:
        name: Of the registered model.
        number: Of the version.
        kind: ``anomaly``, ``augment`` or ``train``.
        run: The run that made it, by its id in the store.
        aliases: What the version is called besides: ``candidate``, ``champion``.
        numbers: The run's numbers by key.
        tests: Names and SHA-256 of the scans that nothing was trained on.
        settings: The run's settings that numbers depend on.
    """

    name: str
    number: str
    kind: str
    run: str
    aliases: tuple[str, ...]
    numbers: Mapping[str, float]
    tests: Mapping[str, str]
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    def said(self, key: str) -> str:
        """A number with its interval where it has one."""
        if key not in self.numbers:
            return "-"
        low, high = self.numbers.get(f"{key}{LOW}"), self.numbers.get(f"{key}{HIGH}")
        return f"{self.numbers[key]:.4g}" + ("" if low is None or high is None else f" [{low:.4g}, {high:.4g}]")


@dataclass(frozen=True)
class Row:
    """One number of two versions.

    Attributes:
        key: Its name and meaning.
        first, second: The number in both, with its interval.
        word: What the intervals say of the second: ``better``, ``worse``, ``not decided`` where they overlap, or empty
            where neither is better or there are no intervals.
    """

    key: Key
    first: str
    second: str
    word: str


def find(client: MlflowClient, called: str) -> Version:
    """The version called ``NAME/NUMBER`` or ``NAME@ALIAS``.

    Raises:
        ConfigError: If it is called otherwise.
        DataError: If there is none, or the store does not answer.
    """
    name, alias = called.partition("@")[::2] if "@" in called else ("", "")
    name, number = (name, "") if alias else called.rpartition("/")[::2]
    if not name or not (alias or number.isdecimal()):
        raise ConfigError(f"{called}: expected the folder of a run, NAME/NUMBER or NAME@ALIAS of a registered model")
    with answers(called):
        known = client.get_registered_model(name).aliases
        if alias and alias not in known:
            raise DataError(f"{called}: no such alias (there are: {', '.join(sorted(known)) or 'none'})")
        return _read(client, client.get_model_version(name, known[alias] if alias else number), known)


def made_by(client: MlflowClient, run: str, folder: str) -> list[Version]:
    """The versions that a run has made.

    Args:
        client: Of the store.
        run: The run's id as its journal has it.
        folder: What to call it in messages.

    Raises:
        DataError: If the store does not know the run, or has no model of it.
    """
    with answers(folder):
        found = list(client.search_model_versions(f"tags.`medgen.run` = '{run}'", max_results=1000))
        if not found:
            raise DataError(f"{folder}: the store has no model of this run; medgen audit sync {folder} sends the run")
        return [_read(client, own, client.get_registered_model(own.name).aliases) for own in found]


def compare(first: Version, second: Version, keys: Sequence[Key]) -> list[Row]:
    """Two versions on the numbers that both carry, those first in which one is better.

    Two intervals that do not overlap decide; that is stricter than a paired test, which would need both models' scans.

    Args:
        first: As it was, such as the champion.
        second: The other one.
        keys: What the numbers mean.

    Raises:
        DataError: If they were not measured on the same scans in the same way.
    """
    if first.kind != second.kind:
        raise DataError(f"{first} is a model for {first.kind}, {second} for {second.kind}: nothing to compare them by")
    if not first.tests or not second.tests:
        raise DataError(f"{first if not first.tests else second}: its run names no test scans; nothing to compare by")
    if first.tests != second.tests:
        tested = (", ".join(f"{name} ({sha[:12]})" for name, sha in own.tests.items()) for own in (first, second))
        raise DataError(
            f"{first} and {second} were tested on different scans: {' against '.join(tested)}; run both with the same "
            "cohort, share of test subjects and seed"
        )
    if other := sorted(
        k for k in {*first.settings} | {*second.settings} if first.settings.get(k) != second.settings.get(k)
    ):
        values = " against ".join(own.settings.get(other[0], "nothing") for own in (first, second))
        raise DataError(f"{first} and {second} were measured differently: {other[0]} is {values}; run both alike")
    names = [name for name in first.numbers if name in second.numbers and not name.endswith((LOW, HIGH))]
    rows = [
        Row(key, first.said(name), second.said(name), _word(key, name, first, second))
        for name in names
        for key in [_named(keys, name)]
        if key is not None
    ]
    return sorted(rows, key=lambda row: (not row.key.better, row.key.name))


def promote(client: MlflowClient, version: Version, keys: Sequence[Key], although: str = "") -> list[str]:
    """Make a version the champion, with the numbers that speak for it in its description.

    Args:
        client: Of the store.
        version: The version.
        keys: What the numbers mean.
        although: Why it shall be the champion all the same where it cannot be compared with the present one, or is
            worse by a number; it is kept in the description.

    Returns:
        What was done, in lines.

    Raises:
        DataError: If the present champion cannot be compared with it, or is better by a number, and no reason is given.
    """
    with answers(str(version)):
        aliases = client.get_registered_model(version.name).aliases
        if str(aliases.get(CHAMPION)) == version.number:
            return [f"{version} is the champion already"]
        present = find(client, f"{version.name}@{CHAMPION}") if CHAMPION in aliases else None
        rows: list[Row] = []
        if present is None:
            against = "the first champion"
            shown = [(key.name, version.said(name)) for name in version.numbers if (key := _bettered(keys, name))]
            table = _table(["number", str(version)], shown)
        else:
            against = f"in place of version {present.number}"
            try:
                rows = compare(present, version, keys)
            except DataError as error:
                if not although:
                    raise DataError(f'{error}; to promote it all the same give --although "REASON"') from None
            if (worse := [row.key.name for row in rows if row.word == "worse"]) and not although:
                raise DataError(
                    f"{version} is worse than the champion {present} by {', '.join(worse)}; to promote it all the same "
                    'give --although "REASON"'
                )
            listed = [(row.key.name, row.first, row.second, row.word) for row in rows if row.key.better]
            table = _table(["number", str(present), str(version), "this version is"], listed)
        reason = f" although: {although}" if although else ""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        said = f"**Champion since {day}**, {against}{reason}.\n\n{table}".strip()
        before = client.get_model_version(version.name, version.number).description or ""
        room = max(0, _DESCRIPTION_LIMIT - len(said))
        client.update_model_version(version.name, version.number, f"{said}\n\n{before[:room]}")
        client.set_registered_model_alias(version.name, CHAMPION, version.number)
    return [f"{version} is the champion, {against}{reason}", *comparison_lines(rows)]


def comparison_lines(rows: Sequence[Row]) -> list[str]:
    """The numbers of a comparison, a line each."""
    return [f"{row.key.name}: {row.first} -> {row.second}" + (f" ({row.word})" if row.word else "") for row in rows]


@contextmanager
def answers(what: str) -> Iterator[None]:
    """Say in one sentence what the store answered when it refuses or is away.

    Raises:
        DataError: That sentence.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == UNKNOWN:
            raise DataError(f"{what}: the store has no such model or run ({sentence(error)})") from None
        raise DataError(f"{what}: the MLflow store says {sentence(error)}; check MLFLOW_TRACKING_URI") from None


def _read(client: MlflowClient, found: Any, aliases: Mapping[str, str]) -> Version:
    run, kind = client.get_run(found.run_id), found.tags.get("medgen.kind", "")
    tests = {}
    for data in run.inputs.dataset_inputs:
        if any(tag.key == "mlflow.data.context" and tag.value == "test" for tag in data.tags):
            tests[data.dataset.name] = str(json.loads(data.dataset.profile or "{}").get("sha256", data.dataset.digest))
    own = _MEASURED_BY.get(kind, ())
    return Version(
        name=found.name,
        number=str(found.version),
        kind=kind,
        run=found.run_id,
        aliases=tuple(sorted(name for name, number in aliases.items() if str(number) == str(found.version))),
        numbers=dict(run.data.metrics),
        tests=tests,
        settings={key: value for key, value in run.data.params.items() if own and key.startswith(own)},
    )


def _named(keys: Sequence[Key], name: str) -> Key | None:
    """The key that a number has, under the number's own name."""
    key = next((own for own in keys if own.fits(name)), None)
    return None if key is None else Key(name, key.means, key.better)


def _bettered(keys: Sequence[Key], name: str) -> Key | None:
    key = _named(keys, name)
    return key if key is not None and key.better else None


def _word(key: Key, name: str, first: Version, second: Version) -> str:
    limits = [own.numbers.get(f"{name}{end}") for own in (first, second) for end in (LOW, HIGH)]
    if not key.better or any(limit is None for limit in limits):
        return ""
    low, high, other_low, other_high = (float(limit) for limit in limits if limit is not None)
    if other_low > high:
        return "better" if key.better == "higher" else "worse"
    if other_high < low:
        return "worse" if key.better == "higher" else "better"
    return "not decided"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
