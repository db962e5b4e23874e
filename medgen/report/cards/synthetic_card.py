"""Whether the card of a synthetic cohort says what the run that made it has."""

from __future__ import annotations

from typing import Any

from medgen.data.cards.fields import CardFields
from medgen.errors import DataError
from medgen.report.cards.compare import missing_lines, unlike
from medgen.report.cards.records import COHORT, METRICS, RunRecords, well_formed
from medgen.runs.outputs import RECORD, check_unaltered
from medgen.synthesis.export import card
from medgen.synthesis.export.card import CardFacts, Generated, parents_digest
from medgen.synthesis.export.provenance import AUDIT, FOLDER, LEARNT_FROM
from medgen.synthesis.usefulness import Usefulness
from medgen.system import files

SYNTHETIC = "synthetic"
# What authors know better than the run: whether and how the cohort is published.
_AUTHORS = ("name", "version", "licence", "source", "citation")


def differences(stated: CardFields, body: str, records: RunRecords) -> list[str]:
    """How a card differs from its run, one sentence each.

    Args:
        stated: Front matter of the card.
        body: What stands below it.
        records: Of the augment run.

    Raises:
        DataError: If the run has exported no synthetic cohort, or a record cannot be read.
        AuditError: If a record was changed since.
    """
    facts = facts_of(records)
    known = card.fields_of(facts)
    made = set() if stated.measured is None else {own.artifact_sha256 for own in stated.measured.generators.values()}
    ours = {own.sha256 for own in facts.generators.values()}
    if made.isdisjoint(ours) and stated.provenance.artifact_sha256 != known.provenance.artifact_sha256:
        return [
            f"is the card of another run's cohort: {records.out} has none of the generators that it names; compare it "
            "with its own run, by --run"
        ]
    stated_leaves, known_leaves = (
        {key: value for key, value in files.plain(fields.model_dump(mode="json")).items() if key not in _AUTHORS}
        for fields in (stated, known)
    )
    lines = {heading: text.splitlines() for heading, text in card.sections_of(facts).items()}
    return [*unlike(stated_leaves, known_leaves), *missing_lines(body, lines)]


def facts_of(records: RunRecords) -> CardFacts:
    """What the card of a run's synthetic cohort has to say.

    Raises:
        DataError: If the run has exported no synthetic cohort, or a record cannot be read.
        AuditError: If a record was changed since.
    """
    scans = [name for name in records.get(RECORD, "files") or {} if _is_scan(name)]
    if not scans:
        raise DataError(
            f"{records.out}: has exported no synthetic cohort; expected a finished medgen augment run with {SYNTHETIC}/"
        )
    told = {name: _record(records, name) for name in scans}
    learnt = _record(records, f"{SYNTHETIC}/{FOLDER}/{LEARNT_FROM}")
    return well_formed(records, lambda: _facts(records, told, learnt))


def _facts(records: RunRecords, told: dict[str, Any], learnt: dict[str, Any]) -> CardFacts:
    one = next(iter(told.values()))
    labels = _record(records, f"{SYNTHETIC}/dataset.json")["labels"]
    labelled = {own["subject"] for own in learnt["cases"] if own["labelled"]}
    audited = records.get(METRICS, "audit", "backends") or {}
    generators = {
        name: Generated(
            accepted=made["accepted"],
            rejected=made["rejected"],
            exported=sum(own["backend"] == name for own in told.values()),
            stamp=audited.get(name, {}).get("stamp", "not audited"),
            reason=audited.get(name, {}).get("reason", "no scan passed the filter"),
            sha256=made["sha256"],
        )
        for name, made in sorted(records.get(METRICS, "generators").items())
    }
    return CardFacts(
        cohort=records.get(COHORT, "name"),
        modality=one["modality"],
        labels={value: name for name, value in labels.items() if isinstance(value, int) and value > 0},
        shape=records.get(METRICS, "grid", "shape"),
        spacing=records.get(METRICS, "grid", "spacing"),
        seed=records.get(RECORD, "seed"),
        labelled=len(labelled),
        unlabelled=len({own["subject"] for own in learnt["cases"]} - labelled),
        parents_sha256=parents_digest({own["case"]: own["sha256"] for own in learnt["cases"]}),
        generators=generators,
        audit_valid=records.get(METRICS, "audit", "valid"),
        verdict=Usefulness(records.get(METRICS, "verdict"), records.get(METRICS, "sentence")),
        medgen=records.get(RECORD, "versions", "medgen"),
    )


def _is_scan(name: str) -> bool:
    folder = f"{SYNTHETIC}/{FOLDER}/"
    return (
        name.startswith(folder)
        and name.endswith(".json")
        and name.removeprefix(folder) not in (AUDIT, LEARNT_FROM)
        and "/" not in name.removeprefix(folder)
    )


def _record(records: RunRecords, name: str) -> dict[str, Any]:
    found = files.read_json(records.out / name)
    check_unaltered(records.out, name)
    if not isinstance(found, dict):
        raise DataError(
            f"{records.out / name}: is a {type(found).__name__}; expected names with values; restore the file"
        )
    return found
