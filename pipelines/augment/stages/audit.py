"""Accepted scans against all training scans, held-out ones as the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from medgen.data.cases import Manifest
from medgen.preprocessing.dataset import join
from medgen.report.augment.audit import audit_section, printed_audit
from medgen.report.augment.samples import beside
from medgen.report.html import Report
from medgen.report.methods.augment import audited
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.memorisation import audit_pool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.privacy.saved_filter import FOLDER, FilterState, save_filter

from ...stages import Stage
from ..config import AugmentRunConfig
from ..rejections import REJECTIONS, write_rejections
from .export import Exported
from .train import Generators


class AuditCopies(Stage[AugmentRunConfig]):
    """Looks for copies of patients, takes them out of the pool, and keeps what later sampling needs."""

    name = "audit"
    needs = (Manifest, Labelling, PreparedCohort, Generators, Filter, CandidatePool)
    keys = (
        Key("audit.copies", "copies of patients that the audit found and took out", "lower"),
        Key("audit.valid", "1 if the audit caught the planted copies, else 0"),
    )
    own_keys = (Key("flagged.<generator>", "copies among the scans of a generator"),)
    makes = (CandidatePool, Audit)

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        prepared, pool, backends = results[PreparedCohort], results[CandidatePool], results[Generators]
        parts = [replace(prepared.data[name], labels=None) for name in ("validation", "test") if name in prepared.data]
        held_out = join(parts) if parts else None
        with run.bars() as tick:
            audit = audit_pool(
                pool,
                backends,
                results[Filter],
                held_out,
                config.audit,
                seed=run.derive("audit"),
                tick=partial(tick, "memorisation audit"),
            )
        intake = prepared.manifest.intake
        state = FilterState(
            filters=results[Filter],
            held_out=held_out,
            preprocess=prepared.preprocess,
            audit=config.audit,
            label_names=prepared.label_names,
            cohort=results[Manifest].name,
            modality=config.modality_of(intake.channels),
            config_sha256=config.digest(),
            original_labels=results[Labelling].original,
            intake=intake,
        )
        save_filter(state, run.folder.model / FOLDER)
        run.stage.set_tags({"medgen.audit.verify.valid": str(audit.valid).lower()})
        for name, result in audit.backends.items():
            run.stage.set_tags({f"medgen.audit.verify.stamp.{name}": result.stamp})
            run.stage.log_metrics({f"flagged.{name}": len(result.flagged)})
        if audit.flagged:
            pool = audit.clean(pool)
            write_rejections(run.folder.out / REJECTIONS.name, pool)
        return [pool, audit]

    def summary(self, results: Results) -> Mapping[str, Any]:
        """What the audit found, and whether it can be relied on."""
        audit = results[Audit]
        return {"audit.copies": len(audit.flagged), "audit.valid": float(audit.valid)}

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Controls, checks and stamps, and why nothing was exported."""
        return {"audit": {**results[Audit].to_plain(), "export_refused": results[Exported].refused}}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The audit, with the scans that are most like a patient's."""
        prepared, sources = results[PreparedCohort], results[Filter].sources
        shown = partial(beside, sources, prepared.preprocess.canonical())
        audit_section(report, results[Audit], results[CandidatePool], shown, prepared.label_names, run.folder)

    def methods(self, text: MethodsText, config: AugmentRunConfig, results: Results) -> None:
        """The audit."""
        audited(text, results[Audit])

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """The stamp of every generator."""
        return printed_audit(results[Audit])
