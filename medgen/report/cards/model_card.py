"""Model cards: what a run has trained, on whom, how well it does and what it misses.

The headings follow Mitchell et al., "Model cards for model reporting", FAT* 2019, and the model cards of hubs. All that
is measured is read from the records of the run, so that a card can be compared with them later
(:mod:`medgen.report.cards.lint`). Cards hold no paths of a machine and no patient names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medgen.data.cards.form import NOTICE, TODO
from medgen.errors import DataError
from medgen.report.cards import intended_use
from medgen.report.cards.facts.catalogue import fact_of
from medgen.report.cards.facts.results import measured
from medgen.report.cards.model_fields import Calibrated, Grid, Measured, ModelCardFields, PartCount
from medgen.report.cards.records import (
    ARTIFACT,
    COHORT,
    CONFIG,
    MANIFEST,
    METRICS,
    SPLITS,
    Reader,
    RunRecords,
    well_formed,
)
from medgen.report.cards.words import DIGITS
from medgen.report.methods.text import count
from medgen.runs.outputs import RECORD
from medgen.system import files

NAME = "model_card.md"

# Sections with the facts that stand in them, in their order; "Intended use" and the table of numbers are made apart.
_FACTS: Mapping[str, tuple[str, ...]] = {
    "Model details": ("model", "parameters", "output", "ensemble", "selection", "training", "initialisation"),
    "Intended use": (),
    "Out-of-scope use": (),
    "Training data": (
        "cohort",
        "split",
        "split_level",
        "modality",
        "preprocessing",
        "labels",
        "left_out",
        "covariates",
    ),
    "Evaluation": (
        "phantom_lesions",
        "label_reference",
        "internal_test",
        "external_test",
        "uncertainty",
        "calibration",
        "baselines",
        "controls",
        "groups",
        "subgroups",
        "fidelity",
        "verdict",
    ),
    "Limits": (
        "missed",
        "never_found",
        "smallest_lesion",
        "gate",
        "artefacts",
        "leverage",
        "suspects",
        "few_subjects",
        "few_seeds",
        "collapse",
    ),
    "Ethical considerations": ("audit", "patient_scans", "approximations", "amounts"),
    "Software and files": ("software", "repeat", "weights"),
}
SECTIONS = tuple(_FACTS)


def fields_of(records: RunRecords, licence: str = TODO, contact: str = TODO) -> ModelCardFields:
    """The front matter of a run's model card.

    Args:
        records: Of the run.
        licence: Of the weights; template text if it is not known.
        contact: Whom to ask.

    Raises:
        DataError: If the run has trained nothing, or its records are not as medgen writes them.
    """
    # First, since it says what is expected where nothing was trained.
    used = {section.heading: section.lines for section in intended_use.sections(records)}
    return well_formed(records, lambda: _fields(Reader(records), used, licence, contact))


def markdown(records: RunRecords, fields: ModelCardFields) -> str:
    """A model card.

    Raises:
        DataError: If the records are not as medgen writes them.
    """
    front = yaml.safe_dump(files.plain(fields.model_dump(mode="json")), sort_keys=False, allow_unicode=True, width=110)
    parts = [f"---\n{front}---", f"# Model card: {fields.name}", NOTICE]
    for name, lines in body(records, fields).items():
        parts += [f"## {name}", *_blocks(lines)]
    return "\n\n".join(parts) + "\n"


def body(records: RunRecords, fields: ModelCardFields) -> dict[str, list[str]]:
    """The lines of every section, as they stand in a card.

    Raises:
        DataError: If the records are not as medgen writes them.
    """
    return well_formed(records, lambda: _body(records, fields))


def write_model_card(out: Path, records: RunRecords) -> Path:
    """Write ``out/model_card.md``.

    Raises:
        DataError: If it cannot be made or written.
    """
    files.write_text(out / NAME, markdown(records, fields_of(records)))
    return out / NAME


def _fields(read: Reader, used: Mapping[str, tuple[str, ...]], licence: str, contact: str) -> ModelCardFields:
    records = read.records
    cohort = str(records.get(COHORT, "name") or records.get(ARTIFACT, "meta", "cohort") or "a cohort without a name")
    rows = records.tables.get(MANIFEST, ())
    kind = records.kind
    if kind == "other" or not rows:
        raise DataError(f"{records.out}: no {MANIFEST}; expected the list of the scans that the model learnt from")
    smallest = records.get(METRICS, "detectability", "smallest") or ()
    groups, level = records.get(METRICS, "findings", "groups") or (), records.get(METRICS, "findings", "level")
    return ModelCardFields(
        card="model",
        name=f"{kind} of {cohort}",
        version="1",
        kind=kind,
        families=_families(records),
        cohort=cohort,
        n_scans=len(rows),
        n_subjects=len({row["subject"] for row in rows}),
        n_learnt_from=_learnt_from(records),
        manifest_sha256=records.get(RECORD, "manifest_digest"),
        parts=_parts(records),
        grid=_grid(records),
        modality=records.get(METRICS, "preprocess", "modality")
        or records.get(ARTIFACT, "preprocess", "modality")
        or records.get(CONFIG, "modality"),
        seed=records.get(RECORD, "seed"),
        performance={name: _number(value) for name, value in measured(read).items()},
        calibration=_calibration(records),
        gate=records.get(ARTIFACT, "meta", "gate"),
        never_found=tuple(
            own["name"]
            for own in groups
            if own["by"] == "kind" and any(share["level"] == level and share["found"] == 0 for share in own["shares"])
        ),
        smallest_lesion_mm={f"{own['region']}, {own['contrast']:+g} sd": own["radius_mm"] for own in smallest},
        audit={name: own["stamp"] for name, own in (records.get(METRICS, "audit", "backends") or {}).items()},
        verdict=records.get(METRICS, "verdict"),
        artifacts_sha256=_artifacts(records),
        weights_sha256=records.weights,
        run_id=records.get(RECORD, "run_id"),
        config_sha256=records.get(RECORD, "config_sha256"),
        commit=records.get(RECORD, "commit"),
        versions=records.get(RECORD, "versions"),
        intended_use=" ".join(used["Intended purpose"]),
        not_for=" ".join((*used["Not intended for"], NOTICE)),
        licence=licence,
        contact=contact,
    )


def _body(records: RunRecords, fields: ModelCardFields) -> dict[str, list[str]]:
    found = {
        name: [f"- {known.text}" for own in names if (known := fact_of(records, own)) is not None]
        for name, names in _FACTS.items()
    }
    for section in intended_use.sections(records):
        if section.heading == "Not intended for":
            found["Out-of-scope use"] = [f"- {line}" for line in section.lines]
        elif section.heading in ("Intended purpose", "Intended users", "Inputs", "Outputs", "Human oversight"):
            found["Intended use"].append(f"### {section.heading}")
            found["Intended use"] += [f"- {line}" for line in section.lines]
    if fields.performance:
        found["Evaluation"] += ["| measured | estimate | interval | subjects |", "|---|---|---|---|"]
        found["Evaluation"] += [_row(name, value) for name, value in fields.performance.items()]
    found["Limits"].append(
        "- All this holds for scans that are exchangeable with those of this cohort: same scanner, protocol and "
        "population."
    )
    people = "people whose number is not on record"
    if fields.n_learnt_from is not None:
        people = count(fields.n_learnt_from, "subject")
    found["Ethical considerations"] += [
        f"- It learnt from scans of {people}; weights may hold traces of them, and are shared only where the scans "
        "might be.",
        "- Whether it does worse for a group of people: what Evaluation does not name by group was not measured.",
    ]
    return found


def _blocks(lines: list[str]) -> list[str]:
    """Lines with what Markdown needs between a list, a heading and a table."""
    kinds = [line[0] for line in lines]
    blocks: list[list[str]] = []
    for line, kind, before in zip(lines, kinds, [None, *kinds], strict=False):
        if kind != before or kind == "#":
            blocks.append([])
        blocks[-1].append(line)
    return ["\n".join(block) for block in blocks] or ["- Nothing is known of it."]


def _row(name: str, value: Measured) -> str:
    if value.low is None or value.high is None:
        return f"| {name} | {value.estimate:g} | none | {'' if value.n is None else value.n} |"
    level = f" ({100 * value.level:g} %)" if value.level else ""
    return f"| {name} | {value.estimate:g} | {value.low:g} to {value.high:g}{level} | {value.n} |"


def _number(value: Mapping[str, Any]) -> Measured:
    return Measured(
        estimate=rounded(value["estimate"]),
        low=rounded(value.get("low")),
        high=rounded(value.get("high")),
        n=value.get("n"),
        level=value.get("level"),
    )


def rounded(value: Any) -> Any:
    """A number with the digits that cards have.

    >>> rounded(0.337631219), rounded(None), rounded(12)
    (0.3376, None, 12)
    """
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _families(records: RunRecords) -> tuple[str, ...]:
    if generators := records.get(METRICS, "generators"):
        return tuple(generators)
    return tuple(own["family"] for own in records.get(ARTIFACT, "models") or ())


def _learnt_from(records: RunRecords) -> int | None:
    known = records.get(ARTIFACT, "meta", "lineage", "subjects")
    if known:
        return len(known)
    rows = records.tables.get(SPLITS, ())
    return len({row["subject"] for row in rows if row["part"] not in ("validation", "test")}) or None


def _parts(records: RunRecords) -> dict[str, PartCount]:
    scans: dict[str, int] = defaultdict(int)
    people: dict[str, set[str]] = defaultdict(set)
    for row in records.tables.get(SPLITS, ()):
        scans[row["part"]] += 1
        people[row["part"]].add(row["subject"])
    found = {part: PartCount(scans=scans[part], subjects=len(people[part])) for part in scans}
    subjects = records.get(METRICS, "calibration_subjects") or records.get(ARTIFACT, "meta", "calibration", "subjects")
    if subjects:
        adapted = records.get(ARTIFACT, "meta", "adapted")
        cases = adapted[-1]["cases"] if adapted else records.get(ARTIFACT, "meta", "cases")
        excluded = {*(records.get(METRICS, "excluded") or ())}
        found["calibration"] = PartCount(scans=sum(case not in excluded for case in cases), subjects=subjects)
    return found


def _grid(records: RunRecords) -> Grid:
    for file, key in ((METRICS, "preprocess"), (ARTIFACT, "preprocess"), (METRICS, "grid")):
        shape, spacing = records.get(file, key, "shape"), records.get(file, key, "spacing")
        if shape and spacing:
            return Grid(shape=tuple(shape), spacing=tuple(spacing))
    raise DataError(
        f"{records.out}: no grid in {METRICS} or {ARTIFACT}; expected shape and spacing of the model's grid"
    )


def _calibration(records: RunRecords) -> Calibrated | None:
    told = records.get(ARTIFACT, "meta", "calibration")
    if not told:
        return None
    return Calibrated(
        subjects=told["subjects"],
        target_fpr=rounded(told.get("target_fpr")),
        threshold=rounded(told.get("threshold")),
        false_findings=rounded(told.get("false_findings")),
        findings_threshold=rounded(told.get("findings_threshold")),
    )


def _artifacts(records: RunRecords) -> dict[str, str]:
    if made := records.get(METRICS, "generators"):
        return {name: own["sha256"] for name, own in made.items()}
    return {"model": records.get(ARTIFACT, "sha256")}
