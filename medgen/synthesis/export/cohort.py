"""Accepted and audited scans as a cohort that segmentation tools read, one provenance record per scan, a card."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from medgen.data import cards
from medgen.data.intake import Intake
from medgen.errors import AuditError, DataError
from medgen.synthesis.backend import Backend
from medgen.synthesis.export.layouts import (
    About,
    Layout,
    check_layout,
    describe,
    renumbered_regions,
    scan_files,
    write_scan,
)
from medgen.synthesis.export.provenance import AUDIT, FOLDER, LEARNT_FROM, learnt_from, provenance, sealed
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.lineage import guard, guard_split
from medgen.synthesis.privacy.results import INTERNAL, NOT_AUDITED, SHARE, Audit
from medgen.synthesis.sources import Sources
from medgen.synthesis.usefulness import HARMFUL, NOT_MEASURED, Usefulness
from medgen.system import files
from medgen.volume import Grid


class ExportRefused(AuditError):
    """The audit does not allow these scans to leave the run: it is missing, of other scans, void, or found copies."""


def export_pool(
    pool: CandidatePool,
    out: Path,
    *,
    audit: Audit | None,
    grid: Grid,
    sources: Sources,
    backends: Sequence[Backend],
    label_names: Mapping[int, str],
    seed: int,
    config_sha256: str,
    cohort: str,
    modality: str = "unknown",
    original_labels: Mapping[int, int] | None = None,
    layout: Layout = "nnunet",
    held_out: Collection[str] = (),
    intake: Intake | None = None,
    verdict: Usefulness | None = None,
) -> list[Path]:
    """Write every accepted scan that was audited and is no copy.

    Args:
        pool: Candidates; only accepted ones are written.
        out: New folder, in the layout's own form, with ``provenance/<id>.json`` per scan,
            ``provenance/learnt_from.json``, ``provenance/audit.json`` and ``card.md``.
        audit: The memorisation audit of this pool; without one nothing is exported.
        grid: The model grid around the origin.
        sources: What the generators learnt from.
        backends: The generators.
        label_names: Label → name.
        seed: Seed of the run, from which every random stream is derived.
        config_sha256: Digest of the run's configuration.
        cohort: Name of the cohort that was learnt from.
        modality: For the describing files and the card.
        original_labels: Label → its number in the cohort's own masks, where the run had to renumber.
        layout: ``nnunet``, ``msd`` or ``bids``.
        held_out: Subjects of validation and test; none may have been learnt from.
        intake: How the cohort was found: names of its channels, and regions of its labels, are kept.
        verdict: What the value study found: goes into card, ``dataset.json`` and every record; None if there was none.

    Returns:
        The files written.

    Raises:
        ExportRefused: If there is no audit, it is of other scans or generators, or no backend could be audited.
        AuditError: If a parent or a held-out subject leaks.
        DataError: If nothing was accepted, or a file cannot be written.
        ConfigError: If the layout is unknown or cannot hold the scans.
    """
    by_name = {backend.name: backend for backend in backends}
    verdict = verdict or NOT_MEASURED
    accepted = exportable(pool, audit, by_name, out)
    if audit is None:  # exportable has refused it
        raise AuditError(f"{out}: no audit")
    guard_split(sources.subjects, held_out)
    for candidate in accepted:
        guard(candidate.synthetic.parents if candidate.synthetic is not None else (), sources.ids)
    first = accepted[0].synthetic
    channels = 0 if first is None else len(first.image)
    check_layout(layout, channels)
    written: list[Path] = []
    for candidate in accepted:
        if candidate.synthetic is None:
            raise DataError(f"{candidate.id}: was never sampled")
        record = provenance(
            candidate,
            by_name[candidate.backend],
            sources,
            audit,
            grid=grid,
            layout=layout,
            seed=seed,
            config_sha256=config_sha256,
        )
        record["modality"] = modality
        record["verdict"] = asdict(verdict)
        content = scan_files(candidate.synthetic, candidate.id, grid, layout, modality)
        hashes = write_scan(content, out, candidate.backend, record["stamp"])
        written += [out / name for name in hashes] + [out / FOLDER / f"{candidate.id}.json"]
        files.write_json(written[-1], sealed(record, hashes))
    source = intake or Intake()
    mine = {number: label for label, number in (original_labels or {label: label for label in label_names}).items()}
    known = (source.channels, *renumbered_regions(source.regions, source.class_order, mine))
    used = sorted({candidate.backend for candidate in accepted})
    stamp = SHARE if all(audit.stamp(name) == SHARE for name in used) else INTERNAL
    scans = tuple((item.id, item.backend, audit.stamp(item.backend)) for item in accepted)
    about = About(
        cohort, modality, label_names, channels, stamp, tuple(used), scans, original_labels or {}, *known, verdict
    )
    written += describe(out, layout, about)
    files.write_json(out / FOLDER / LEARNT_FROM, learnt_from(sources, backends))
    files.write_json(out / FOLDER / AUDIT, audit.to_plain())
    use = "; ".join(f"{name}: {audit.stamp(name)} ({audit.backends[name].reason})" for name in used)
    files.write_text(
        out / "card.md",
        _card(accepted, used, grid, sources, by_name, label_names, seed, cohort, modality, f"{stamp}. {use}", verdict),
    )
    return [*written, out / FOLDER / LEARNT_FROM, out / FOLDER / AUDIT, out / "card.md"]


def exportable(
    pool: CandidatePool, audit: Audit | None, backends: Mapping[str, Backend], out: Path
) -> tuple[Candidate, ...]:
    """The accepted scans that may be exported: audited, and no copy of a patient.

    Raises:
        ExportRefused: If there is no audit, it is of other scans or generators, or no backend could be audited.
        DataError: If nothing was accepted.
    """
    if not pool.accepted() and (audit is None or not audit.flagged):
        raise DataError(f"{out}: no synthetic scan passed the filter; there is nothing to export")
    if audit is None:
        raise ExportRefused(f"{out}: export refused: no memorisation audit of these scans; run audit_pool first")
    for candidate in pool.accepted():
        result = audit.backends.get(candidate.backend)
        if result is None or candidate.id not in result.likeness:
            raise ExportRefused(f"{out}: export refused: scan {candidate.id} was not audited; audit this very pool")
        if result.generator_sha256 != backends[candidate.backend].sha256:
            raise ExportRefused(f"{out}: export refused: the audit is of another {candidate.backend} generator")
    # A pool that was cleaned already holds flagged scans as rejected ones.
    clean = audit.clean(pool).accepted()
    allowed = tuple(item for item in clean if audit.stamp(item.backend) != NOT_AUDITED)
    if not allowed:
        reasons = [result.reason for result in audit.backends.values() if result.stamp == NOT_AUDITED]
        reasons = [*reasons, *audit.problems] if clean else ["every accepted scan counts as a copy of a patient"]
        raise ExportRefused(f"{out}: export refused: {'; '.join(dict.fromkeys(reasons))}")
    return allowed


def _card(
    accepted: Sequence[Candidate],
    used: Sequence[str],
    grid: Grid,
    sources: Sources,
    backends: Mapping[str, Backend],
    label_names: Mapping[int, str],
    seed: int,
    cohort: str,
    modality: str,
    privacy: str,
    verdict: Usefulness,
) -> str:
    people = people_of(sources)
    hashed = {name: dict(sources.hashes.get(name, {})) for name in sources.ids}
    return cards.synthetic_card(
        f"{cohort} synthetic",
        kind="synthetic",
        n_cases=len(accepted),
        n_subjects=len(accepted),
        spacing=grid.spacing,
        labels=label_names,
        seeds=[seed],
        generator=f"augment run, {' and '.join(used)}",
        description=f"Synthetic labelled scans, learnt from {people} of {cohort}.",
        modality=modality,
        licence="as the scans it was learnt from",
        known_biases=[
            f"made from {people}: it cannot show anatomy that none of them hints at",
            "intensities are those of the preprocessing recipe, not of a scanner",
        ],
        privacy=privacy,
        intended_use="none: they made segmentation worse in the value study of their run"
        if verdict.word == HARMFUL
        else "training segmentation models beside real scans",
        not_for="testing or validation, and training without real scans",
        artifact_sha256=backends[used[0]].sha256
        if len(used) == 1
        else files.sha256_json({name: backends[name].sha256 for name in used}),
        parents_sha256=files.sha256_json(hashed),
        sections={
            "Composition": f"{len(accepted)} scans on a grid of {' x '.join(map(str, grid.shape))} voxels.\n\n"
            + "\n".join(f"- {name}: {sum(item.backend == name for item in accepted)} scans" for name in used),
            "Collection": "Sampled from generators and filtered: agreement of labels and image, volumes, components "
            "and centroids of labels, likeness to every training scan. Each scan has a record in provenance/ with "
            "its generator, seed, parents, filter scores and audit numbers.",
            "Use": "Mix with real training scans, on top of ordinary augmentation; keep out of validation and test.",
            "Limits": f"Value study of the run that made them: {verdict.sentence} On other data the answer may differ.",
        },
    )


def people_of(sources: Sources) -> str:
    """Whom generators learnt from, in words: subjects whose labels they saw, and further ones that lent images."""
    labelled = set(sources.labelled.subjects)
    further = set() if sources.unlabelled is None else set(sources.unlabelled.subjects) - labelled
    if not further:
        return f"{len(labelled)} labelled subjects"
    return f"{len(labelled)} labelled and {len(further)} unlabelled subjects"
