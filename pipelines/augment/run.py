"""Labelled synthesis, from a cohort to a verdict: split, train generators, sample, filter, measure, export, report."""

from __future__ import annotations

from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.report.augment.opening import Made, opening
from medgen.report.augment.value import STUDY_LIMITS, StudyResults
from medgen.report.html import Report
from medgen.runs.context import Results, RunContext, start_run
from medgen.runs.folder import RunSummary
from medgen.synthesis.backends import untried
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.fidelity.results import FidelityResults
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.value.undecided import counted

from .. import patient_names
from ..preflight import preflight
from .choice import Plan
from .config import AugmentRunConfig
from .intake import admit, check_sources, split
from .stages import AUGMENT
from .stages.export import Exported
from .stages.train import Generators

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
        lines = AUGMENT.finish(config, _opening(results, context), LIMITS, results, context, manifest.named_by_folders)
    folder = context.folder
    lines += [f"generators:       {folder.model}", f"report:           {folder.report}"]
    lines += [f"MLflow store:     {context.track.store}"]
    complete = results[Exported].written and not results[PreparedCohort].failures
    return RunSummary(config.out, 0 if complete else 1, tuple(lines))


def _opening(results: Results, context: RunContext) -> Report:
    exported, prepared, parts = results[Exported], results[PreparedCohort], results[CohortSplit]
    used = results[Plan].config.generators.names
    labelled, others = len(parts.labelled.subjects), len(parts.unlabelled)
    more = f" and {counted(others, 'unlabelled scan')}" if others else ""
    about = f"{results[Manifest].name}: {', '.join(used)}, trained on {counted(labelled, 'labelled patient')}{more}"
    report = Report("Labelled synthesis", about, context.track.id)
    made = Made(
        pool=results[CandidatePool],
        alarms={backend.name: len(backend.alarms) for backend in results[Generators]},
        audit=results[Audit],
        refused=exported.refused,
        fidelity=results.get(FidelityResults),
        label_names=prepared.label_names,
        untried=untried(used),
    )
    opening(report, exported.verdict, results.get(StudyResults), made, context.folder.out.name)
    return report
