"""Accepted and audited scans as a cohort that segmentation tools read, one provenance record per scan, a card."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from medgen.data.cards.card import render
from medgen.data.intake import Intake
from medgen.errors import AuditError, DataError
from medgen.synthesis.backend import Backend
from medgen.synthesis.export.card import CardFacts, Generated, fields_of, parents_digest, people_in, sections_of
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
from medgen.synthesis.usefulness import NOT_MEASURED, Usefulness
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
    facts = _facts(audit, pool, accepted, grid, sources, by_name, label_names, seed, cohort, modality, verdict)
    files.write_text(out / "card.md", render(fields_of(facts), sections_of(facts)))
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


def _facts(
    audit: Audit,
    pool: CandidatePool,
    accepted: Sequence[Candidate],
    grid: Grid,
    sources: Sources,
    backends: Mapping[str, Backend],
    label_names: Mapping[int, str],
    seed: int,
    cohort: str,
    modality: str,
    verdict: Usefulness,
) -> CardFacts:
    """What the card says."""
    labelled, unlabelled = people_in(sources)
    clean = audit.clean(pool)
    return CardFacts(
        cohort=cohort,
        modality=modality,
        labels=label_names,
        shape=grid.shape,
        spacing=grid.spacing,
        seed=seed,
        labelled=labelled,
        unlabelled=unlabelled,
        parents_sha256=parents_digest({name: sources.hashes.get(name, {}) for name in sources.ids}),
        generators={
            name: Generated(
                accepted=len(clean.accepted(name)),
                rejected=len(clean.rejected(name)),
                exported=sum(item.backend == name for item in accepted),
                stamp=audit.stamp(name),
                reason=audit.backends[name].reason if name in audit.backends else "no scan passed the filter",
                sha256=backend.sha256,
            )
            for name, backend in sorted(backends.items())
        },
        audit_valid=audit.valid,
        verdict=verdict,
    )
