"""Facts of a run about its scans: whom they show, how they were divided, prepared and left out."""

from __future__ import annotations

from collections import defaultdict

from medgen.report.cards.records import (
    ARTIFACT,
    COHORT,
    CONFIG,
    FAILURES,
    MANIFEST,
    METRICS,
    SPLITS,
    Reader,
)
from medgen.report.cards.words import size
from medgen.report.methods.text import count, listed
from medgen.runs.outputs import RECORD


def cohort(read: Reader) -> str | None:
    """Which scans of how many people."""
    name, rows = read(COHORT, "name"), read.table(MANIFEST, "subject")
    if not rows:
        return None
    digest = read(RECORD, "manifest_digest")
    known = f" (SHA-256 of its list {digest})" if digest else ""
    people = count(len({row["subject"] for row in rows}), "subject")
    return f"Cohort `{name or 'without a name'}`{known}: {count(len(rows), 'scan')} of {people}."


def split(read: Reader) -> str | None:
    """How many scans and subjects each part has, and from which seed they were divided."""
    cases: dict[str, int] = defaultdict(int)
    people: dict[str, set[str]] = defaultdict(set)
    for row in read.table(SPLITS, "part"):
        cases[row["part"]] += 1
        people[row["part"]].add(row["subject"])
    if not cases:
        return None
    seed = read(RECORD, "seed")
    parts = [f"{part}: {count(cases[part], 'scan')} of {count(len(people[part]), 'subject')}" for part in cases]
    return f"Subjects were divided at random from the seed {seed}. {'; '.join(parts)}."


def overlap(read: Reader) -> int | None:
    """How many subjects are in more than one part; None where there are no parts."""
    parts: dict[str, set[str]] = defaultdict(set)
    for row in read.table(SPLITS, "subject"):
        parts[row["subject"]].add(row["part"])
    return sum(len(found) > 1 for found in parts.values()) if parts else None


def split_level(read: Reader) -> str | None:
    """Whether parts are disjoint by subject, counted."""
    shared = overlap(read)
    if shared is None:
        return None
    people = len({row["subject"] for row in read.table(SPLITS, "subject")})
    if shared:
        return f"Parts are not disjoint by subject: {shared} of {count(people, 'subject')} are in more than one."
    return f"Parts are disjoint by subject: none of the {count(people, 'subject')} is in more than one."


def preprocessing(read: Reader) -> str | None:
    """The grid and what was done to intensities."""
    for file, above in ((METRICS, ("preprocess",)), (ARTIFACT, ("preprocess",)), (CONFIG, ("preprocess",))):
        shape, spacing = read(file, *above, "shape"), read(file, *above, "spacing")
        if shape and spacing:
            break
    else:
        return None
    sentences = [f"Scans were brought to {size(shape, spacing)}."]
    if align := read(file, *above, "align"):
        sentences.append(f"Alignment: {align}.")
    if (scaling := read(file, *above, "intensity")) == "percentiles":
        low, high = read(file, *above, "percentiles") or (None, None)
        sentences.append(f"Intensities were scaled so that percentiles {low:g} and {high:g} became 0 and 1.")
    elif scaling:
        sentences.append(f"Intensities were scaled by {scaling}.")
    if window := read(file, *above, "window"):
        sentences.append(f"Window: {window[0]:g} to {window[1]:g} HU.")
    named = (("brain", "Brain extraction"), ("bias_field", "Bias field correction"))
    sentences += [f"{words}: {value}." for key, words in named if (value := read(file, *above, key))]
    if read(file, *above, "mask_background"):
        sentences.append("What lies outside the foreground was set to 0.")
    return " ".join(sentences)


def modality(read: Reader) -> str | None:
    """What kind of scans they are, and their channels."""
    told = (
        read(METRICS, "preprocess", "modality") or read(ARTIFACT, "preprocess", "modality") or read(CONFIG, "modality")
    )
    if not told:
        return None
    channels = read(ARTIFACT, "meta", "channels")
    named = f" Channels: {listed([str(item) for item in channels])}." if channels and channels != ["1"] else ""
    return f"Modality: {told}.{named}"


def labels(read: Reader) -> str | None:
    """The labels of the reference masks, where the cohort names them."""
    named = read(COHORT, "labels")
    return f"Labels: {', '.join(f'{value} {name}' for value, name in named.items())}." if named else None


def left_out(read: Reader) -> str | None:
    """How many scans took no part, and why."""
    rows = read.table(FAILURES, "case")
    sentences = []
    if FAILURES in read.records.tables:
        sentences.append(f"{count(len(rows), 'scan')} could not be prepared (listed in `{FAILURES}`).")
    if (excluded := read(METRICS, "excluded")) is not None:
        sentences.append(f"{count(len(excluded), 'development scan')} took no part in the calibration.")
    if (abstained := read(METRICS, "gate", "scans_abstained")) is not None:
        sentences.append(f"The gate refused {count(abstained, 'test scan')}.")
    return " ".join(sentences) or None


def covariates(read: Reader) -> str | None:
    """What the normative maps are adjusted for."""
    words = read(METRICS, "adjusted", "words")
    return f"Healthy means and variances were {words}." if words else None


def internal_test(read: Reader) -> str | None:
    """The part of the same cohort that nothing has learnt from."""
    rows = [row for row in read.table(SPLITS, "part") if row["part"] == "test"]
    if not rows:
        return None
    people = count(len({row["subject"] for row in rows}), "subject")
    return (
        f"Measured on {count(len(rows), 'scan')} of {people} of the same cohort, the part `test`, which no model has "
        "learnt from."
    )


def external_test(read: Reader) -> str | None:
    """That there was none in this run."""
    name = read(COHORT, "name")
    if not name or not read.table(SPLITS, "part"):
        return None
    return f"All scans of this run are of the cohort `{name}`: it has no external test data."


def phantom_lesions(read: Reader) -> str | None:
    """That test anomalies are implants, and of which kinds."""
    kinds, implanted, healthy = read(METRICS, "kinds"), read(METRICS, "implanted"), read(METRICS, "healthy")
    if not kinds or implanted is None:
        return None
    return (
        f"The reference standard of detection is implanted: {count(implanted, 'copy', 'copies')} of test scans got one "
        f"artificial lesion each ({', '.join(f'{name} {n}' for name, n in kinds.items())}), beside "
        f"{count(healthy, 'scan')} without one. Masks are known by construction; real lesions look different."
    )


def label_reference(read: Reader) -> str | None:
    """That labelled test scans are compared with the masks of the cohort."""
    arms = read(METRICS, "value")
    named = labels(read)
    if not arms or named is None:
        return None
    return f"Segmentations are compared with the masks that came with the cohort. {named}"
