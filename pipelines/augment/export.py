"""The accepted scans as a cohort."""

from __future__ import annotations

from collections.abc import Mapping

from medgen.runs.folder import RunFolder
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.export.cohort import ExportRefused, export_pool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.usefulness import Usefulness

from .config import AugmentRunConfig
from .generate import Generated
from .prepare import PreparedCohort, label_names


def export(
    config: AugmentRunConfig,
    prepared: PreparedCohort,
    parts: CohortSplit,
    generated: Generated,
    audit: Audit,
    folder: RunFolder,
    cohort: str,
    original: Mapping[int, int],
    verdict: Usefulness,
) -> str:
    """Write ``synthetic/``, unless no scan was accepted; ``original`` gives the cohort's number of each label.

    ``verdict`` goes with the scans.

    Returns:
        Why the export was refused by the audit; empty if it was not.
    """
    if not generated.pool.accepted() and not audit.flagged:
        return ""
    try:
        export_pool(
            generated.pool,
            folder.synthetic,
            audit=audit,
            grid=prepared.preprocess.canonical(),
            sources=generated.sources,
            backends=generated.backends,
            label_names=label_names(prepared),
            original_labels=original,
            seed=config.seed,
            config_sha256=config.digest(),
            cohort=cohort,
            modality=config.modality_of(prepared.manifest.intake.channels),
            held_out=parts.held_out,
            intake=prepared.manifest.intake,
            verdict=verdict,
        )
    except ExportRefused as error:
        return str(error).removeprefix(f"{folder.synthetic}: ")
    return ""
