"""What an augment run says about itself: metrics file, printed table, HTML report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from medgen.data.cases import Manifest
from medgen.preprocessing.dataset import Dataset, Failure
from medgen.report.augment.audit import audit_section, printed_audit
from medgen.report.augment.fidelity import fidelity_lines, section_fidelity
from medgen.report.augment.value import KINDS, STUDY_LIMITS, StudyResults, study_lines, study_metrics, study_section
from medgen.report.figures.curves import training_curves
from medgen.report.figures.mosaic import sample_pairs
from medgen.report.html import Report, png
from medgen.runs.folder import RunFolder
from medgen.seeds import numpy_rng
from medgen.synthesis.backend import Backend
from medgen.synthesis.cohort.consensus import Consensus
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.fidelity.results import FidelityResults
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.sources import Sources
from medgen.synthesis.value.verdict import listed
from medgen.system.files import write_bytes
from medgen.volume import Grid, Volume

from .. import patient_names
from .plan import Plan

_SHOWN = 4
LIMITS = f"""{STUDY_LIMITS.rstrip()}
- The audit looks for copies and for signs of membership. It does not prove that nothing about a patient can be \
inferred.
- Deformed scans are patients' scans in another shape: internal use only.
- Synthetic scans are for training, never for testing, and nothing here is for clinical use.
"""


@dataclass(frozen=True, eq=False)
class Results:
    """All that a run has found."""

    manifest: Manifest
    parts: CohortSplit
    prepared: Mapping[str, Dataset]
    grid: Grid
    failures: tuple[Failure, ...]
    sources: Sources
    consensus: Consensus
    backends: tuple[Backend, ...]
    filters: Filter
    pool: CandidatePool
    audit: Audit
    refused: str
    study: StudyResults | None
    plan: Plan
    fidelity: FidelityResults | None = None

    @property
    def label_names(self) -> dict[int, str]:
        """Label → name, for the labels in use."""
        return {label: self.manifest.labels.get(label, f"label {label}") for label in self.sources.labels}

    @property
    def verdict(self) -> tuple[str, str]:
        """The word and the sentence."""
        return verdict_of(self.study)


def verdict_of(study: StudyResults | None) -> tuple[str, str]:
    """The word and the sentence of a run."""
    if study is None:
        return "NOT MEASURED", "NOT MEASURED: the value study was left out; nothing says that these scans help."
    if study.judgement.word is not None:
        return study.judgement.word, study.judgement.sentence
    return "NO EVIDENCE", "NO EVIDENCE: no synthetic arm could be run, since no scan passed the filter."


def metrics_of(results: Results) -> dict[str, Any]:
    """Every number of the report, for ``metrics.json``."""
    generators = {}
    for backend in results.backends:
        accepted, rejected = results.pool.accepted(backend.name), results.pool.rejected(backend.name)
        generators[backend.name] = {
            "sha256": backend.sha256,
            "accepted": len(accepted),
            "rejected": len(rejected),
            "acceptance": len(accepted) / max(len(accepted) + len(rejected), 1),
            "alarms": [asdict(alarm) for alarm in backend.alarms],
        }
    word, sentence = results.verdict
    bias = results.consensus.bias
    return {
        "verdict": word,
        "sentence": sentence,
        "grid": {"shape": list(results.grid.shape), "spacing": list(results.grid.spacing)},
        "generators": generators,
        "plan": results.plan.record(),
        "filter": {
            "agreement_bound": results.filters.agreement_bound,
            "copy_bound": results.filters.copy_bound,
            "identity_bound": results.filters.identity_bound,
            "real_agreement": dict(results.filters.agreement),
        },
        "consensus": {
            "labelled": 0 if results.consensus.scans is None else len(results.consensus.scans),
            "left_out": list(results.consensus.left_out),
            "agreement": dict(results.consensus.agreement),
            "bound": results.consensus.bound,
            "bias": [{**item.to_plain(), "sentence": item.sentence(results.label_names[item.label])} for item in bias],
            "sentence": consensus_sentence(results.consensus, results.label_names),
        },
        "audit": {**results.audit.to_plain(), "export_refused": results.refused},
        "fidelity": None if results.fidelity is None else results.fidelity.to_plain(),
        **({} if results.study is None else study_metrics(results.study)),
    }


def printed(results: Results) -> list[str]:
    """The results as text, for the terminal."""
    lines = []
    for backend in results.backends:
        accepted, rejected = len(results.pool.accepted(backend.name)), len(results.pool.rejected(backend.name))
        lines.append(f"{backend.name}: {accepted} scans accepted, {rejected} rejected")
        lines += [f"{backend.name}: ALARM at step {alarm.step}: {alarm.message}" for alarm in backend.alarms]
    lines += printed_audit(results.audit)
    if results.fidelity is not None:
        lines += fidelity_lines(results.fidelity)
    if results.study is not None:
        lines += study_lines(results.study)
    return [*lines, results.verdict[1]]


def build_report(results: Results, folder: RunFolder, run_id: str, seed: int) -> Report:
    """The HTML report; pictures of samples are also written to ``figures/``."""
    report = Report("Labelled synthesis", results.manifest.name, run_id)
    word, sentence = results.verdict
    kind: Any = KINDS.get(word, "neutral")
    report.verdict(sentence, kind)
    _cohort(report, results)
    report.section("Choice of generators", "\n".join(f"- {reason}" for reason in results.plan.routing.reasons))
    report.section("Training")
    histories = {item.name: item.history for item in results.backends if item.history}
    if histories:
        report.figure(
            training_curves(histories), "Losses over the optimiser steps.", "Training curves of the generators"
        )
    for backend in results.backends:
        if not backend.history:
            report.text(f"**{backend.name}** is fitted by registration, not step by step.")
        for alarm in backend.alarms:
            report.text(f"**ALARM in {backend.name}**, step {alarm.step}: {alarm.message}.")
    _samples(report, results, folder, seed)
    _filter(report, results)
    beside = partial(_beside, results)
    audit_section(report, results.audit, results.pool, beside, results.label_names, folder, results.refused)
    if results.fidelity is not None:
        section_fidelity(report, results.fidelity, results.label_names)
    if results.study is not None:
        study_section(report, results.study, folder)
    report.section("Limits", patient_names.limits(LIMITS, results.manifest.named_by_folders))
    return report


def _cohort(report: Report, results: Results) -> None:
    report.section("Cohort")
    parts = results.parts
    rows = []
    for name, part in parts.named().items():
        prepared = results.prepared.get(name)
        rows.append((name, len(part.subjects), len(part), 0 if prepared is None else len(prepared)))
    report.table(["part", "subjects", "scans", "prepared"], rows, "Parts are disjoint by subject.")
    patient_names.taken(report, results.manifest)
    spacing = " x ".join(f"{step:g}" for step in results.grid.spacing)
    report.facts(
        {
            "labels": ", ".join(f"{label} {name}" for label, name in results.label_names.items()),
            "model grid": f"{' x '.join(map(str, results.grid.shape))} voxels of {spacing} mm",
        }
    )
    _inferred(report, results)
    if results.failures:
        report.table(["case", "reason"], [tuple(failure) for failure in results.failures], "Scans left out")


def consensus_sentence(consensus: Consensus, label_names: Mapping[int, str]) -> str:
    """What became of the unlabelled scans, in words; empty if there were none to label."""
    agreement = consensus.agreement
    if consensus.biased:
        named = listed([label_names[label] for label in consensus.biased])
        return (
            f"No unlabelled scan was labelled, since inferred labels are biased ({named}): these scans lend their "
            "images only."
        )
    if not agreement:
        return ""
    kept = 0 if consensus.scans is None else len(consensus.scans)
    return (
        f"{kept} of {len(agreement)} unlabelled scans were labelled by consensus, for the generators only. "
        f"Members agree with their consensus to a mean Dice of {min(agreement.values()):.3f} to "
        f"{max(agreement.values()):.3f}; below {consensus.bound:.3f} a scan is left out."
    )


def _inferred(report: Report, results: Results) -> None:
    """What labels of the unlabelled scans are worth, measured on labelled ones."""
    consensus, label_names = results.consensus, results.label_names
    if consensus.bias:
        rows = [
            (
                label_names[item.label],
                item.scans,
                item.volume_ratio,
                item.dice,
                item.real_difference,
                item.tolerance,
                "not inferred" if item.biased else "inferred",
            )
            for item in consensus.bias
        ]
        columns = ["label", "scans", "volume, inferred / human", "Dice", "real halves differ", "bias allowed", "result"]
        report.table(
            columns,
            rows,
            "Inferred labels beside human ones, on labelled scans that the segmenters had not learnt from; 95 % "
            "intervals over subjects. The last two numbers are differences of log volume (0.1 is about 10 %): a label "
            "is inferred if its bias is no larger than what two halves of the real subjects differ by, or may be "
            "chance.",
        )
    if text := consensus_sentence(consensus, label_names):
        report.text(text)


def _samples(report: Report, results: Results, folder: RunFolder, seed: int) -> None:
    report.section(
        "Samples",
        "Accepted scans, drawn at random, with their labels, beside the training scan that each resembles most.",
    )
    for backend in results.backends:
        accepted = results.pool.accepted(backend.name)
        if not accepted:
            report.text(f"**{backend.name}**: no scan was accepted.")
            continue
        rows = numpy_rng(seed, "report", backend.name).permutation(len(accepted))[:_SHOWN]
        chosen = [accepted[int(row)] for row in rows]
        pairs = [_pair(results, candidate) for candidate in chosen]
        figure = sample_pairs(
            [(a, b) for a, b, _, _ in pairs],
            labels=[(c, d) for _, _, c, d in pairs],
            names=[_names(results, candidate) for candidate in chosen],
            label_names=results.label_names,
            title=f"{backend.name}: synthetic scans and their nearest real ones",
        )
        write_bytes(folder.figures / f"samples-{backend.name}.png", png(figure))
        bare = sum(truth is None for _, _, _, truth in pairs)
        caption = f"{backend.name}. r is the likeness of the copy check, 1 for a copy. {_bare(bare, len(pairs))}"
        report.figure(figure, caption, f"Samples of {backend.name} beside real scans")


def _bare(bare: int, shown: int) -> str:
    """Which of the real scans beside the samples are shown with labels.

    >>> _bare(0, 4), _bare(4, 4)
    ('The real scans are shown with their labels.', 'The real scans are unlabelled ones.')
    """
    if not bare:
        return "The real scans are shown with their labels."
    return "The real scans are unlabelled ones." if bare == shown else f"{bare} of {shown} real scans have no labels."


def _pair(results: Results, candidate: Candidate) -> tuple[Volume, Volume, Volume, Volume | None]:
    return _beside(results, candidate, candidate.verdict.nearest)


def _beside(results: Results, candidate: Candidate, name: str) -> tuple[Volume, Volume, Volume, Volume | None]:
    """Image of a candidate and of a training case, and the labels of both where known."""
    synthetic = candidate.synthetic
    if synthetic is None:
        raise ValueError("an accepted candidate has a scan")
    sources, grid = results.sources, results.grid
    image, labels = Volume(synthetic.image, grid), Volume(synthetic.labels[None], grid)
    if name in sources.labelled.ids or sources.unlabelled is None:
        row = sources.labelled.ids.index(name)
        truth = None if sources.labelled.labels is None else Volume(sources.labelled.labels[row].numpy(), grid)
        return image, Volume(sources.labelled.images[row].numpy(), grid), labels, truth
    row = sources.unlabelled.ids.index(name)
    return image, Volume(sources.unlabelled.images[row].numpy(), grid), labels, None


def _names(results: Results, candidate: Candidate) -> tuple[str, str]:
    parents = () if candidate.synthetic is None else candidate.synthetic.parents
    nearest = candidate.verdict.nearest
    image = torch.zeros(0) if candidate.synthetic is None else torch.from_numpy(candidate.synthetic.image)
    likeness = float(results.filters.gallery.correlations(image)[results.sources.ids.index(nearest)])
    left = f"{candidate.id}" + (f", from {parents[0]}" if parents else "")
    return left, f"{nearest}, r = {likeness:.3f}"


def _filter(report: Report, results: Results) -> None:
    filters, pool = results.filters, results.pool
    report.section("Filter", "A scan that fails any check, or that a check cannot judge, is not used.")
    rows: list[tuple[str, int, int, str]] = []
    for backend in results.backends:
        accepted, rejected = pool.accepted(backend.name), pool.rejected(backend.name)
        share = f"{len(accepted) / max(len(accepted) + len(rejected), 1):.0%}"
        rows.append((backend.name, len(accepted), len(rejected), share))
    report.table(["backend", "accepted", "rejected", "acceptance"], rows)
    counts: dict[tuple[str, str], int] = {}
    for candidate in pool.rejected():
        for reason in candidate.verdict.reasons:
            key = (candidate.backend, _check(reason, results.label_names))
            counts[key] = counts.get(key, 0) + 1
    if counts:
        table = [(backend, check, count) for (backend, check), count in sorted(counts.items())]
        report.table(
            ["backend", "failed check", "scans"],
            table,
            "A scan can fail several checks; rejections.csv has the numbers.",
        )
    real = list(filters.agreement.values())
    report.facts(
        {
            "label agreement (Dice) that real scans reach out of fold": f"{min(real):.3f} to {max(real):.3f}",
            "label agreement required": filters.agreement_bound,
            "likeness r above which a scan counts as a copy, towards everybody who is no parent": filters.copy_bound,
            "likeness r above which a deformed scan counts as a copy of its parent": filters.identity_bound,
        }
    )


def _check(name: str, labels: Mapping[int, str]) -> str:
    """The name of a check, with the label's name instead of its number."""
    kind, _, number = name.partition("_")
    return f"{kind} of {labels[int(number)]}" if number else kind
