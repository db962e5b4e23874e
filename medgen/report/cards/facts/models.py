"""Facts of a run about its models: what they are, how they were trained, what they give out, what they ran on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from medgen.report.cards.records import ARTIFACT, CONFIG, METRICS, Reader
from medgen.report.cards.words import number
from medgen.report.methods.text import count, listed
from medgen.runs.outputs import RECORD


def model(read: Reader) -> str | None:
    """Families, numbers of parameters, and how they are put together."""
    if generators := read(METRICS, "generators"):
        return f"Generators of labelled scans: {listed([_pair(read, name) for name in generators])}."
    families = list(_families(read))
    if not families:
        return None
    many = Counter(families)
    told = [f"{n} x {name}" if n > 1 else name for name, n in many.items()]
    kind = read(ARTIFACT, "meta", "kind")
    if kind == "anomaly":
        scores = read(METRICS, "channels") or ()
        heat = f" Heatmap fused from the scores {listed(list(scores))}." if scores else ""
        return f"Anomaly detector on generative models of healthy scans ({listed(told)}).{heat}"
    said = {"generative": "Generative model of scans", "pretrained": "Model pretrained on painted label maps"}.get(kind)
    return None if said is None else f"{said}: {listed(told)}."


def parameters(read: Reader) -> str | None:
    """Numbers of parameters, where the run has counted them."""
    told = read(METRICS, "models") or ()
    return f"Parameters: {', '.join(map(_size, told))}." if told else None


def software(read: Reader) -> str | None:
    """Versions of all that computed."""
    versions, commit = read(RECORD, "versions"), read(RECORD, "commit")
    if not versions:
        return None
    source = f" (commit {commit}{', with changes' if read(RECORD, 'dirty') else ''})" if commit != "unknown" else ""
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "medgen")
    return f"medgen {versions['medgen']}{source} on {others}."


def initialisation(read: Reader) -> str | None:
    """Where weights began."""
    seed = read(RECORD, "seed")
    if seed is None or read.records.kind == "other":
        return None
    if adapted := read(ARTIFACT, "meta", "adapted"):
        return f"The networks are those of the model {adapted[-1]['from_sha256']}; only what calibrates them is new."
    begun = read(METRICS, "init") or read(ARTIFACT, "meta", "init")
    if begun:
        return f"Weights began as those of a trained model, which `{METRICS}` describes under `init`; seed {seed}."
    return f"Weights were drawn at random; every random stream is derived from the seed {seed}."


def training(read: Reader) -> str | None:
    """Steps, batches and the optimiser."""
    if not read.records.get(CONFIG, "training", "steps"):
        return None
    steps, batch = read(CONFIG, "training", "steps"), read(CONFIG, "training", "batch_size")
    rate, decay, ema = (read(CONFIG, "training", key) for key in ("lr", "weight_decay", "ema"))
    taken = read(METRICS, "steps")
    stopped = f" {taken} were taken." if taken is not None and taken != steps else ""
    return (
        f"{steps} optimiser steps of {count(batch, 'scan')}, AdamW, learning rate {number(rate)}, weight decay "
        f"{number(decay)}, moving average of weights {number(ema)}.{stopped}"
    )


def selection(read: Reader) -> str | None:
    """How the final model or heatmap was chosen."""
    if words := read(ARTIFACT, "meta", "choice", "words"):
        return str(words)
    chosen = read(METRICS, "choices") or ()
    told = [f"{own['arm']} on the {own['on']} part, with {count(own['subjects'], 'subject')}" for own in chosen]
    return f"Chosen for the verdict: {'; '.join(told)}." if told else None


def ensemble(read: Reader) -> str | None:
    """How many models answer together."""
    folds = read(CONFIG, "anomaly", "folds")
    if not folds:
        return None
    each = read(ARTIFACT, "meta", "models_per_fold")
    more = f", {each} models in each" if each and each > 1 else ""
    return f"Cross-fit of {folds} folds{more}: each fold's models never saw its scans; heat is averaged over folds."


def output(read: Reader) -> str | None:
    """What the model gives out and which thresholds there are."""
    if (threshold := read(METRICS, "threshold")) is not None and read(METRICS, "calibration_subjects"):
        level, places = read(METRICS, "false_findings", "false_findings"), read(METRICS, "false_findings", "threshold")
        if level is None or places is None:
            return None
        target = read(METRICS, "target_fpr") or read(ARTIFACT, "meta", "calibration", "target_fpr")
        rate = "" if target is None else f"{100 * target:g} % "
        return (
            f"A heatmap in standard deviations of healthy scans (z), a list of findings from z {number(places)} on, at "
            f"most {number(level)} expected false ones per healthy scan, p-values of the whole scan, and a family-wise "
            f"threshold (z {number(threshold)}) for a false-positive rate of {rate}per scan."
        )
    if read(METRICS, "generators"):
        return "Synthetic scans with label maps, which passed a filter and were audited for copies of patients."
    if read(ARTIFACT, "meta", "kind") == "generative":
        return "Synthetic scans on the model's grid; no diagnosis, no label."
    if read(ARTIFACT, "meta", "kind") == "pretrained":
        return "Weights to begin a training with."
    return None


def amounts(read: Reader) -> str | None:
    """How many scans were generated, and how many of them passed the filter."""
    made = read(METRICS, "generators")
    if not made:
        return None
    told = [
        f"{name}: {own['accepted']} of {own['accepted'] + own['rejected']} samples passed ({number(own['acceptance'])})"
        for name, own in made.items()
    ]
    return f"Filter of synthetic scans: {'; '.join(told)}."


def weights(read: Reader) -> str | None:
    """What identifies the trained weights."""
    files = read(RECORD, "files") or {}
    told = [
        f"{name} {sha}" for name, sha in files.items() if name.startswith("model/") and name.endswith(".safetensors")
    ]
    return f"Weights as safetensors, SHA-256: {'; '.join(told)}." if told else None


def repeat(read: Reader) -> str | None:
    """With what the run can be made again."""
    config, run = read(RECORD, "config_sha256"), read(RECORD, "run_id")
    seed = read(RECORD, "seed")
    if not config or seed is None:
        return None
    return f"All settings are in `config.yaml` (digest {config}), seed {seed}, run {run}."


def _families(read: Reader) -> Iterator[str]:
    for position, _ in enumerate(read.records.get(ARTIFACT, "models") or ()):
        yield str(read(ARTIFACT, "models", position, "family"))


def _size(own: Mapping[str, Any]) -> str:
    return f"{own['family']} {own['parameters']}"


def _pair(read: Reader, name: str) -> str:
    file = str(PurePosixPath("model", name, "backend.json"))
    labels, painter = read(file, "meta", "labels"), read(file, "meta", "painter")
    return f"{name} (labels by {labels}, images by {painter})" if labels and painter else name
