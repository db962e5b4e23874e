"""Labelled synthesis, from a cohort to a verdict: split, train generators, sample, filter, measure, export, report."""

from __future__ import annotations

from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.report.augment.value import KINDS, STUDY_LIMITS
from medgen.report.html import Report
from medgen.runs.context import Results, start_run
from medgen.runs.folder import RunSummary
from medgen.synthesis.cohort.prepared import PreparedCohort

from .. import patient_names
from ..preflight import preflight
from .config import AugmentRunConfig
from .intake import admit, check_sources, split
from .stages import AUGMENT
from .stages.export import Exported

LIMITS = f"""{STUDY_LIMITS.rstrip()}
- The audit looks for copies and for signs of membership. It does not prove that nothing about a patient can be \
inferred.
- Deformed scans are patients' scans in another shape: internal use only.
- Synthetic scans are for training, never for testing, and nothing here is for clinical use.
"""


def run(
    config: AugmentRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False
) -> RunSummary:
    """Run the whole pipeline; see the module.

    Returns:
        Exit code 1 if scans could not be prepared or no synthetic scan was exported.

    Raises:
        MedgenError: If configuration, data or training are at fault.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    labelling = admit(config, manifest, progress)
    patient_names.announce(manifest)
    manifest = manifest.with_hashes(config.workers)
    check_sources(config, manifest, split(config, labelling.apply(manifest)))
    with start_run("augment", config, manifest, resume=resume, overwrite=overwrite, progress=progress) as context:
        results = Results([manifest, labelling])
        AUGMENT.run(config, results, context)
        verdict = results[Exported].verdict
        report = Report("Labelled synthesis", results[Manifest].name, context.track.id)
        report.verdict(verdict.sentence, KINDS.get(verdict.word, "neutral"))
        lines = AUGMENT.finish(config, report, LIMITS, results, context, manifest.named_by_folders)
    folder = context.folder
    lines += [f"generators:       {folder.model}", f"report:           {folder.report}"]
    lines += [f"MLflow store:     {context.track.store}"]
    complete = results[Exported].written and not results[PreparedCohort].failures
    return RunSummary(config.out, 0 if complete else 1, tuple(lines))
