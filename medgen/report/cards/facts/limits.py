"""Facts of a run about what it cannot do: what is missed, what was refused, what may be copied, what is not known."""

from __future__ import annotations

from collections import Counter

from medgen.report.cards.records import ARTIFACT, METRICS, Reader
from medgen.report.cards.words import interval
from medgen.report.methods.text import count, listed

# Scores that keep the training scans' positions on principal components, or their codes.
_KEEPING = ("knn_pca", "latent_knn")


def missed(read: Reader) -> str | None:
    """The implants without a finding, by kind."""
    misses, implanted = read(METRICS, "findings", "missed"), read(METRICS, "implanted")
    if misses is None or implanted is None:
        return None
    if not misses:
        return f"Every one of {count(implanted, 'implant')} had a finding at the level of the run."
    kinds = Counter(own["kind"] for own in misses)
    level = read(METRICS, "findings", "level")
    return (
        f"At {level:g} expected false findings per healthy scan {len(misses)} of {count(implanted, 'implant')} had no "
        f"finding: {', '.join(f'{name} {n}' for name, n in kinds.most_common())}."
    )


def never_found(read: Reader) -> str | None:
    """Kinds of implants of which none had a finding."""
    level, kinds = read(METRICS, "findings", "level"), []
    for own in read(METRICS, "findings", "groups") or ():
        at = next((share for share in own["shares"] if share["level"] == level), None)
        if own["by"] == "kind" and at is not None and at["found"] == 0:
            kinds.append(f"{own['name']} ({own['scans']})")
    return f"Kinds of implants of which none had a finding: {', '.join(kinds)}." if kinds else None


def smallest_lesion(read: Reader) -> str | None:
    """The smallest implant that is found, by region and contrast."""
    smallest = read(METRICS, "detectability", "smallest")
    if not smallest:
        return None
    told = []
    for own in smallest:
        where = f"{own['region']}, {own['contrast']:+g} sd"
        if own["radius_mm"] is None:
            told.append(f"{where}: none of those tried")
        else:
            told.append(f"{where}: {own['radius_mm']:g} mm ({own['detected']} of {own['subjects']})")
    return f"Smallest radius from which on at least 80 % of tried implants were found: {'; '.join(told)}."


def gate(read: Reader) -> str | None:
    """How often a scan is refused as unlike those the model knows."""
    abstained, limits = read(METRICS, "gate", "abstained"), read(METRICS, "gate", "limits")
    if abstained is None:
        return None
    checks = f" by {len(limits)} checks ({', '.join(limits)})" if limits else ""
    refused = f"of healthy held-out scans it refused {interval(abstained)}"
    return f"A gate refuses scans unlike the healthy ones{checks}; {refused}."


def artefacts(read: Reader) -> str | None:
    """What was measured on faulty copies of test scans."""
    rows = read(METRICS, "artefacts", "rows")
    if not rows:
        return None
    totals: dict[str, Counter[str]] = {}
    for own in rows:
        totals.setdefault(own["artefact"], Counter()).update({key: own[key] for key in ("named", "refused", "scans")})
    told = [f"{name} {n['named']} and {n['refused']} of {n['scans']}" for name, n in totals.items()]
    return f"Copies of test scans with an artefact, of which it was named, and which were refused: {', '.join(told)}."


def leverage(read: Reader) -> str | None:
    """Whether one healthy subject decides the threshold."""
    decides = read(METRICS, "leverage", "decides")
    if decides is None:
        return None
    found, without = read(METRICS, "leverage", "found"), read(METRICS, "leverage", "found_without")
    word = "decides" if decides else "does not decide"
    return (
        f"The hottest healthy subject of the calibration {word} the family-wise threshold: {found} implants pass it, "
        f"{without} without that subject."
    )


def suspects(read: Reader) -> str | None:
    """Calibration scans that stand apart and may not be healthy."""
    told = read(METRICS, "suspects")
    if told is None:
        return None
    if not told:
        return "No calibration scan stood apart from the others."
    return f"{count(len(told), 'calibration scan')} stood apart and may not be healthy."


def audit(read: Reader) -> str | None:
    """What the audit for copies of patients says of every generator."""
    backends, valid = read(METRICS, "audit", "backends"), read(METRICS, "audit", "valid")
    if backends is None:
        return None
    told = [f"{name}: {own['stamp']} ({own['reason']})" for name, own in backends.items()]
    controls = "Its controls passed" if valid else "Its controls did not all pass"
    return f"Audit for copies of patients and signs of membership: {'; '.join(told)}. {controls}."


def patient_scans(read: Reader) -> str | None:
    """Which parts of the model hold scans of patients themselves."""
    told = {}
    for file in sorted(read.records.documents):
        if file.startswith("model/") and file.endswith("/backend.json"):
            told[file.split("/")[1]] = read(file, "meta", "contains_patient_scans")
    known = {name: value for name, value in told.items() if value is not None}
    if not known:
        return None
    holding = [name for name, value in known.items() if value]
    if not holding:
        return f"No part of the model says that it holds scans of patients ({', '.join(known)})."
    parts = ", ".join(holding)
    return f"These parts of the model hold scans of patients themselves and go only where the scans may go: {parts}."


def approximations(read: Reader) -> str | None:
    """Which scores of a detector keep numbers that training scans can be approximated from."""
    keeping = [name for name in read(ARTIFACT, "meta", "scores") or () if name in _KEEPING]
    if not keeping:
        return None
    return (
        f"It holds no scan, but the scores {listed(keeping)} keep where each training scan lies: with few scans, "
        "approximations of them can be computed. Keep the model like patient data."
    )


def few_seeds(read: Reader) -> str | None:
    """What the value study says of itself."""
    return read(METRICS, "caution") or None


def few_subjects(read: Reader) -> str | None:
    """How wide the basis of the p-values is."""
    n = read(METRICS, "calibration_subjects")
    return None if n is None else f"No p-value can be below {1 / (n + 1):.3f}: {count(n, 'healthy subject')} calibrate."


def collapse(read: Reader) -> str | None:
    """Alarms of generators in training."""
    made = read(METRICS, "generators")
    if not made:
        return None
    alarms = [f"{name}: {len(own['alarms'])}" for name, own in made.items() if own.get("alarms")]
    return f"Alarms in training: {', '.join(alarms)}." if alarms else None
