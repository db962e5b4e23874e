"""Has a generator memorised its patients? The audit of accepted scans, with controls that must work first.

Copies are looked for by likeness (:class:`medgen.synthesis.filtering.copies.Gallery`, the filter's own check), and what
the scans give away as a whole by nearest-neighbour ratios (Meehan et al., "A non-parametric test to detect data-copying
in generative models", AISTATS 2020; Carlini et al., "Extracting training data from diffusion models", 2023) and by a
membership-inference attack (Chen et al., "GAN-Leaks", CCS 2020). Held-out scans are used as images only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medgen.config import Config
from medgen.errors import DataError
from medgen.metrics.bootstrap import binomial_interval
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Progress
from medgen.seeds import derive
from medgen.synthesis.backend import Backend
from medgen.synthesis.filtering.copies import CopyBounds, Gallery
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.planted_copies import KINDS, chosen, plant
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.lineage import guard_reference
from medgen.synthesis.privacy.membership import Table, by_subject, nearer_to_training, neighbour_ratio, separation
from medgen.synthesis.privacy.results import INTERNAL, NOT_AUDITED, SHARE, Audit, BackendAudit, Check, Control

# The copies that the membership attack must recognise: noise leaves a copy recognisable but not identical.
# A defaced head cannot be told from a whole one, see medgen.data.faces.
_FACE = "may show a face (whole heads, defaced or not); strip the skull and run again, or look at them all"
_ATTACKED = "noise"


class AuditConfig(Config):
    """Settings of the audit.

    Attributes:
        planted: Training scans that are copied, each in every way, for the positive control.
        detection: Smallest share of planted copies of each kind that must be flagged.
        false_alarms: Largest share of held-out subjects that may be flagged.
        attack: Smallest area under the ROC curve of the membership attack on planted copies.
        bootstrap: Resamples of the intervals.
    """

    planted: Annotated[int, Field(ge=1)] = 24
    detection: Annotated[float, Field(gt=0.5, le=1)] = 0.99
    false_alarms: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    attack: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    bootstrap: Annotated[int, Field(ge=100)] = 1000


def audit_pool(
    pool: CandidatePool,
    backends: Sequence[Backend],
    filters: Filter,
    held_out: Dataset | None,
    config: AuditConfig,
    *,
    seed: int,
    tick: Progress | None = None,
) -> Audit:
    """Audit the accepted scans of every backend against all training scans, labelled and not.

    Args:
        pool: Candidates; rejected ones count where they were rejected as copies.
        backends: The generators.
        filters: Holds the training scans and the bounds.
        held_out: Scans of subjects that nothing was learnt from, used as images only; None if there are none.
        config: Settings.
        seed: Seed of the planted copies and of the resampling.
        tick: Called with (scans compared, all).

    Raises:
        DataError: If a held-out subject is among the training subjects.
    """
    gallery = filters.gallery
    others = None if held_out is None or not len(held_out) else _reference(held_out, gallery)
    # Another seed than the filter's: the copies that the bound was set by do not test it.
    rows = chosen(len(gallery.ids), config.planted, derive(seed, "audit"))
    counts = [len(pool.accepted(backend.name)) for backend in backends]
    progress = _Progress(tick, sum(counts) + len(rows) * len(KINDS) + (0 if held_out is None else len(held_out)))
    controls = [*_planted(filters, rows, others, config, seed, progress)]
    problems = [f"{item.name}: {item.interval.estimate:.0%}, {item.expected}" for item in controls if not item.passed]
    unseen = None
    if others is None or held_out is None:
        problems.append("there is no held-out scan, so false alarms cannot be counted")
    else:
        unseen = _table(gallery, list(held_out.images), progress)
        controls.append(_negative(unseen, held_out, filters.copies, config))
        if not controls[-1].passed:
            problems.append(f"{controls[-1].name}: {controls[-1].interval.estimate:.0%}, {controls[-1].expected}")
        if len(set(held_out.subjects)) < 2:
            problems.append("there is only one held-out subject; expected two or more")
    if not math.isfinite(filters.copy_bound):
        problems.append(f"{len(set(gallery.subjects))} training subjects are too few for a bound; expected three")
    results = {}
    for backend in backends:
        reference = None if held_out is None or unseen is None else _Reference(held_out, others, unseen)
        results[backend.name] = _backend(pool, backend, filters, reference, config, seed, progress, not problems)
    return Audit(
        controls=tuple(controls),
        backends=results,
        bounds=filters.copies,
        training=(len(set(gallery.subjects)), len(gallery.ids)),
        held_out=(0, 0) if held_out is None else (len(set(held_out.subjects)), len(held_out)),
        problems=tuple(problems),
    )


@dataclass(frozen=True, eq=False)
class _Reference:
    """Held-out scans: the data, their gallery, and their likeness to the training scans (held-out, training)."""

    data: Dataset
    gallery: Gallery | None
    to_training: Table


class _Progress:
    def __init__(self, tick: Progress | None, total: int) -> None:
        self._tick, self._total, self._done = tick, total, 0

    def __call__(self) -> None:
        self._done += 1
        if self._tick is not None:
            self._tick(self._done, self._total)


def _reference(held_out: Dataset, gallery: Gallery) -> Gallery:
    guard_reference(gallery.subjects, held_out.subjects)
    return Gallery(held_out.images, held_out.ids, held_out.subjects)


def _table(gallery: Gallery, images: Sequence[Tensor], progress: _Progress | None = None) -> Table:
    """Likeness (images, scans of the gallery)."""
    rows = []
    for image in images:
        rows.append(gallery.correlations(image).double().numpy())
        if progress is not None:
            progress()
    return np.stack(rows)


def _planted(
    filters: Filter, rows: Sequence[int], others: Gallery | None, config: AuditConfig, seed: int, progress: _Progress
) -> list[Control]:
    """Positive controls: planted copies of each kind, and the membership attack on some of them."""
    gallery, images = filters.gallery, filters.sources.images
    controls = []
    for kind, text in KINDS.items():
        copies = [plant(images[row], kind, derive(seed, "planted", gallery.ids[row])) for row in rows]
        table = _table(gallery, copies, progress)
        # A copy counts as found if it is above the bound with the scan it was made from.
        found = sum(bool(table[number, row] > filters.copy_bound) for number, row in enumerate(rows))
        interval = binomial_interval(found, len(rows))
        passed = interval.estimate >= config.detection
        name = f"planted copies, {kind} ({text})"
        controls.append(Control(name, "positive", interval, f"at least {config.detection:.0%} flagged", passed))
        if kind == _ATTACKED and others is not None:
            members = table[:, rows].max(axis=0)
            strangers = _table(others, copies).max(axis=0)
            owners = [gallery.subjects[row] for row in rows]
            area = separation(members, owners, strangers, others.subjects, seed=seed, n=config.bootstrap)
            expected = f"an area of at least {config.attack:.2f}"
            passed = area.estimate >= config.attack
            controls.append(Control("membership attack on planted copies (AUC)", "positive", area, expected, passed))
    return controls


def _negative(unseen: Table, held_out: Dataset, bounds: CopyBounds, config: AuditConfig) -> Control:
    largest = by_subject(unseen.max(axis=1)[None], held_out.subjects)[0]
    interval = binomial_interval(int((~(largest <= bounds.copy)).sum()), len(largest))
    expected = f"at most {config.false_alarms:.0%} of the subjects flagged"
    passed = interval.estimate <= config.false_alarms
    return Control("held-out real scans", "negative", interval, expected, passed)


def _backend(
    pool: CandidatePool,
    backend: Backend,
    filters: Filter,
    reference: _Reference | None,
    config: AuditConfig,
    seed: int,
    progress: _Progress,
    valid: bool,
) -> BackendAudit:
    accepted = pool.accepted(backend.name)
    flagged, likeness, nearest = {}, {}, {}
    for candidate in accepted:
        if candidate.synthetic is None:
            raise DataError(f"{candidate.id}: was never sampled")
        nearest[candidate.id], found = filters.likeness(candidate.synthetic, derived=backend.derived)
        likeness[candidate.id] = max(item.value for item in found)
        reasons = [str(item) for item in found if item.copied]
        if reasons:
            flagged[candidate.id] = "; ".join(reasons)
        progress()
    checks: list[Check] = [_copied(pool, backend, flagged, filters, config)] if pool.of(backend.name) else []
    kept = [item.synthetic.image for item in accepted if item.synthetic is not None and item.id not in flagged]
    if kept and reference is not None and reference.gallery is not None and len(set(filters.gallery.subjects)) > 1:
        checks += _memberships([torch.from_numpy(image) for image in kept], filters, reference, config, seed)
    faces = len(filters.sources.faces)
    derivation = backend.derivation if backend.derived else ""
    stamp, reason = stamp_of(derivation, checks, len(flagged), bool(kept), valid, faces)
    return BackendAudit(
        backend.name,
        backend.sha256,
        backend.derived,
        len(accepted),
        tuple(checks),
        flagged,
        likeness,
        nearest,
        stamp,
        reason,
    )


def stamp_of(
    derivation: str, checks: Sequence[Check], flagged: int, kept: bool, valid: bool, faces: int
) -> tuple[str, str]:
    """What may be done with the scans of a backend, and why.

    Args:
        derivation: How they come from patients' scans, in words; empty if they are drawn from a model.
        checks: The numbers about them.
        flagged: How many count as copies.
        kept: Whether any other scan is left.
        valid: Whether the controls of the audit came out as expected.
        faces: How many of the scans that were learnt from may show a face.

    Returns:
        ``share``, ``internal use only`` or ``not audited``, and the reason.
    """
    shown = [f"{faces} of the scans it learnt from {_FACE}"] if faces else []
    if derivation:
        return INTERNAL, "; ".join([f"{derivation}, which cannot be anonymous", *shown])
    if not valid:
        return NOT_AUDITED, "the controls of the audit failed, so it says nothing"
    if not kept or not checks:
        return NOT_AUDITED, "no scan was left to audit"
    reasons = [f"{flagged} accepted scans count as copies of patients"] if flagged else []
    suspicious = [check.name for check in checks if check.suspicious]
    reasons += [f"suspicious: {'; '.join(suspicious)}"] if suspicious else []
    reasons += shown
    if reasons:
        return INTERNAL, "; ".join(reasons)
    return SHARE, "controls as expected, and no sign of copies or of membership"


def _copied(
    pool: CandidatePool, backend: Backend, flagged: Mapping[str, str], filters: Filter, config: AuditConfig
) -> Check:
    """Copies among everything the backend made, also those that the filter has taken out already."""
    name = "copies among all sampled scans"
    sampled = pool.of(backend.name)
    copied = sum(item.id in flagged or bool({"copy", "identity"} & set(item.filtered.reasons)) for item in sampled)
    interval = binomial_interval(copied, len(sampled))
    suspicious = interval.low > config.false_alarms
    words = f"{copied} of {len(sampled)} sampled scans count as copies and were taken out"
    return Check(name, interval, config.false_alarms, suspicious, words)


def _memberships(
    images: Sequence[Tensor], filters: Filter, reference: _Reference, config: AuditConfig, seed: int
) -> list[Check]:
    """The three group checks in image space and in the auditors' feature space."""
    if reference.gallery is None:
        return []
    train = filters.sources.images
    checks = _space(
        "image",
        _table(filters.gallery, images),
        _table(reference.gallery, images),
        reference.to_training,
        filters,
        reference,
        config,
        seed,
    )
    features = [
        torch.cat([segmenter.deepest(batch) for segmenter, _ in filters.auditors], dim=1)
        for batch in (torch.stack(list(images)), train, reference.data.images)
    ]
    centre, spread = torch.cat(features[1:]).mean(0), torch.cat(features[1:]).std(0).clamp_min(1e-6)
    made, known, unseen = ((item - centre) / spread for item in features)
    tables = [-torch.cdist(a.double(), b.double()).numpy() for a, b in ((made, known), (made, unseen), (unseen, known))]
    return checks + _space("feature", tables[0], tables[1], tables[2], filters, reference, config, seed)


def _space(
    space: str,
    to_training: Table,
    to_held_out: Table,
    held_out_to_training: Table,
    filters: Filter,
    reference: _Reference,
    config: AuditConfig,
    seed: int,
) -> list[Check]:
    """Checks from likenesses: of synthetic to training and to held-out scans, and of held-out to training scans."""
    owners, strangers = filters.gallery.subjects, reference.data.subjects
    made, seed = [str(row) for row in range(len(to_training))], derive(seed, "audit", space)
    train, held_out = by_subject(to_training, owners), by_subject(to_held_out, strangers)
    nearer = nearer_to_training(train, held_out, seed=seed, n=config.bootstrap)
    ratios = [neighbour_ratio(_distance(table, space)) for table in (train, by_subject(held_out_to_training, owners))]
    # A small ratio is suspicious, so the signs are turned.
    ratio = separation(-ratios[0], made, -ratios[1], strangers, seed=seed, n=config.bootstrap)
    scores = (to_training.max(axis=0), to_held_out.max(axis=0))
    attack = separation(scores[0], owners, scores[1], strangers, seed=seed, n=config.bootstrap)
    findings = (
        (
            f"nearer to training than to held-out subjects, {space} space",
            nearer,
            "synthetic scans are nearer to their training subjects than chance",
            "no nearer to training than to other subjects",
        ),
        (
            f"nearest-neighbour ratio below a held-out scan's, {space} space",
            ratio,
            "each synthetic scan singles out one training subject more than a new person does",
            "no training subject is singled out more than by a new person",
        ),
        (
            f"membership attack (AUC), {space} space",
            attack,
            "whether a person was learnt from can be told better than by chance",
            "cannot tell whether a person was learnt from",
        ),
    )
    return [
        Check(name, interval, 0.5, interval.low > 0.5, bad if interval.low > 0.5 else good)
        for name, interval, bad, good in findings
    ]


def _distance(likeness: Table, space: str) -> Table:
    """Euclidean distances: of unit vectors for correlations, else likenesses are negative distances already."""
    return np.sqrt(np.maximum(2 * (1 - likeness), 0)) if space == "image" else -likeness
