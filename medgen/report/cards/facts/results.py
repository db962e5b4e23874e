"""Facts of a run about what was measured: performance, its uncertainty, and what it looks like beside baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medgen.report.cards.records import ARTIFACT, CONFIG, METRICS, Path_, Reader
from medgen.report.cards.words import interval, number
from medgen.report.methods.text import count, listed


def measured(read: Reader) -> dict[str, Mapping[str, Any]]:
    """What was measured → its interval as ``metrics.json`` has it; empty where nothing was."""
    found = {}
    for name, path in _places(read):
        value = read(METRICS, *path)
        if value is not None:
            found[name] = value if isinstance(value, Mapping) else {"estimate": value}
    return found


def voxel_performance(read: Reader) -> str | None:
    """How well voxels are ranked by the heatmap."""
    return _told(read, "Voxels of implanted lesions, fused heatmap", _voxel(read))


def scan_performance(read: Reader) -> str | None:
    """How well whole scans are told apart."""
    return _told(
        read, f"Scans with an implant against scans without, score `{read(METRICS, 'scan_score')}`", _scan(read)
    )


def sensitivity(read: Reader) -> str | None:
    """Which share of implants has a finding, by expected false findings."""
    return _told(read, "Share of implants with a finding on them", _findings(read))


def false_findings(read: Reader) -> str | None:
    """How many findings healthy scans have that nothing has learnt from."""
    return _told(read, "Findings per healthy held-out scan", _healthy(read))


def segmentation_performance(read: Reader) -> str | None:
    """What segmenters reach with and without synthetic scans."""
    return _told(read, "Segmenters on held-out subjects", _value(read))


def calibration(read: Reader) -> str | None:
    """What p-values and thresholds rest on, and how they came out on healthy scans that were held out."""
    subjects = read(METRICS, "calibration_subjects")
    if subjects is None:
        return None
    people = count(subjects, "healthy subject")
    said = f"P-values and thresholds rest on {people}, each scored by models not trained on it."
    target, hot = read(METRICS, "target_fpr"), read(METRICS, "any_hot")
    if target is not None and hot is not None:
        said += (
            f" Promised: at most {100 * target:g} % of healthy scans exceed the family-wise threshold; held out, "
            f"{interval(hot)} did."
        )
    return said


def verdict(read: Reader) -> str | None:
    """The verdict of the value study."""
    return read(METRICS, "sentence") or None


def uncertainty(read: Reader) -> str | None:
    """What the intervals are, and over whom."""
    values = ((path, read.records.get(METRICS, *path)) for _, path in _places(read))
    place = next((path for path, value in values if isinstance(value, Mapping) and value.get("level")), None)
    if place is None:
        return None
    one = read(METRICS, *place)
    draws = read(CONFIG, "evaluation", "bootstrap") or read(CONFIG, "value", "bootstrap")
    drawn = "" if draws is None else f"; those by bootstrap draw subjects, {draws} times"
    tested = ""
    if comparisons := read(METRICS, "comparisons"):
        p = [f"{own['arm']} against {own['ordinary']}: p = {number(own['p_holm'])}" for own in comparisons]
        tested = f" Differences of arms, corrected after Holm: {'; '.join(p)}."
    return f"Intervals of {100 * one['level']:g} % over {count(one['n'], 'subject')}{drawn}.{tested}"


def measures(read: Reader) -> str | None:
    """The names of what was measured."""
    names = list(measured(read))
    return f"Measured: {'; '.join(names)}." if names else None


def baselines(read: Reader) -> str | None:
    """How simple baselines did beside the model."""
    raw, gain = read(METRICS, "best_raw"), read(METRICS, "gain_raw")
    if raw and gain:
        same, more = read(METRICS, "best_z"), read(METRICS, "gain_z")
        also = f" Best with the same normative z: {same}, difference {interval(more)}." if same and more else ""
        return f"Best baseline as published: {raw}; difference in voxel average precision {interval(gain)}.{also}"
    best = read(METRICS, "best_ordinary")
    if not best:
        return None
    told = [f"with {n} subjects {arm}" for n, arm in best.items()]
    return f"Best arm without synthetic scans: {listed(told)}."


def controls(read: Reader) -> str | None:
    """Controls that must come out as chance."""
    told = read(METRICS, "controls")
    if not told:
        return None
    return (
        "Controls, average precision over its chance level (1 says nothing is leaked): "
        f"{'; '.join(f'{name} {interval(value)}' for name, value in told.items())}."
    )


def groups(read: Reader) -> str | None:
    """Performance by kind of implant."""
    found = []
    for position, own in enumerate(read.records.get(METRICS, "findings", "groups") or ()):
        if own["by"] == "kind":
            level = read(METRICS, "findings", "level")
            shares = own["shares"]
            at = next((number_ for number_, share in enumerate(shares) if share["level"] == level), 0)
            hits = read(METRICS, "findings", "groups", position, "shares", at, "found")
            found.append(f"{own['name']} {hits} of {own['scans']}")
    return f"Implants with a finding, by kind: {', '.join(found)}." if found else None


def subgroups(read: Reader) -> str | None:
    """How often healthy people of each group are flagged."""
    rows = read(METRICS, "groups")
    if not rows:
        return None
    told = [f"{own['column']} {own['group']} ({own['source']}) {own['flagged']} of {own['subjects']}" for own in rows]
    return f"Healthy subjects flagged, by group: {', '.join(told)}."


def fidelity(read: Reader) -> str | None:
    """How like real scans synthetic ones are, against held-out scans."""
    told = []
    for name, against in (read.records.get(METRICS, "fidelity", "comparisons") or {}).items():
        for measure in against.get("held-out", {}).get("measures", {}):
            path = ("fidelity", "comparisons", name, "held-out", "measures", measure)
            if read.records.get(METRICS, *path, "goal") is None:
                continue
            ratio = read(METRICS, *path, "ratio") or {}
            met = read(METRICS, *path, "met")
            goal = "not judged" if met is None else "goal met" if met else "goal missed"
            told.append(f"{name}, {measure}: {number(ratio.get('estimate'))} times that of real scans ({goal})")
    return f"Synthetic beside held-out real scans: {'; '.join(told)}." if told else None


def _told(read: Reader, what: str, places: Iterator[tuple[str, Path_]]) -> str | None:
    values = [(name, read(METRICS, *path)) for name, path in places]
    told = [f"{name} {interval(value)}" for name, value in values if value is not None]
    return f"{what}: {'; '.join(told)}." if told else None


def _places(read: Reader) -> Iterator[tuple[str, Path_]]:
    yield from _voxel(read)
    yield from _scan(read)
    yield from _findings(read)
    yield from _healthy(read)
    for name, key in (("before adaptation", "false_findings_before"), ("after adaptation", "false_findings_after")):
        if read.records.get(METRICS, key):
            yield f"findings per healthy scan of the new site, {name}", (key,)
    yield from _value(read)
    if read.records.get(ARTIFACT, "meta", "kind") in ("generative", "pretrained"):
        for key in ("last.loss", "last.validation", "last.rmse"):
            yield key.replace("last.", "last "), (key,)


def _voxel(read: Reader) -> Iterator[tuple[str, Path_]]:
    for position, own in enumerate(read.records.get(METRICS, "voxel") or ()):
        if own["name"] == "fused":
            yield "voxel average precision", ("voxel", position, "ap")
            yield "voxel AUROC", ("voxel", position, "auroc")
            yield "voxel best Dice", ("voxel", position, "dice")
    if read.records.get(METRICS, "dice_at_threshold"):
        yield "voxel Dice at the family-wise threshold", ("dice_at_threshold",)


def _scan(read: Reader) -> Iterator[tuple[str, Path_]]:
    used = read.records.get(METRICS, "scan_score")
    for position, own in enumerate(read.records.get(METRICS, "scan") or ()):
        if own["name"] == used:
            yield "scan AUROC", ("scan", position, "auroc")
            yield "scan average precision", ("scan", position, "ap")
            yield "scan false-positive rate", ("scan", position, "fpr")
            yield "scan sensitivity at that rate", ("scan", position, "detected")


def _findings(read: Reader) -> Iterator[tuple[str, Path_]]:
    for position, own in enumerate(read.records.get(METRICS, "findings", "groups") or ()):
        if own["by"] == "all":
            for at, share in enumerate(own["shares"]):
                name = f"implants found at {share['level']:g} expected false findings"
                yield name, ("findings", "groups", position, "shares", at, "share")


def _healthy(read: Reader) -> Iterator[tuple[str, Path_]]:
    for position, own in enumerate(read.records.get(METRICS, "findings", "healthy") or ()):
        yield f"findings per healthy scan at level {own['level']:g}", ("findings", "healthy", position, "measured")


def _value(read: Reader) -> Iterator[tuple[str, Path_]]:
    for position, own in enumerate(read.records.get(METRICS, "value") or ()):
        if own["label"] is None and own["metric"] == "dice":
            yield f"mean Dice, arm {own['arm']} with {own['subjects']} subjects", ("value", position, "interval")
    for position, own in enumerate(read.records.get(METRICS, "comparisons") or ()):
        name = f"difference in mean Dice, {own['arm']} over {own['ordinary']} with {own['subjects']} subjects"
        yield name, ("comparisons", position, "difference")
