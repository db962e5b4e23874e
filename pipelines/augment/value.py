"""The value study alone: ordinary arms, synthetic scans made elsewhere, or those of an earlier augment run."""

from __future__ import annotations

import math

from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.preprocessing.automatic import fit_preprocess
from medgen.report.augment.opening import opening
from medgen.report.augment.value import STUDY_LIMITS, StudyResults
from medgen.report.html import Report
from medgen.runs.context import Results, start_run
from medgen.runs.folder import RunSummary
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline
from medgen.synthesis.usefulness import Usefulness
from medgen.synthesis.value.scans_made_elsewhere import check_foreign, check_run
from medgen.training.cost import describe_memory

from .. import patient_names
from ..preflight import preflight
from ..stages import cohort_to_plan, plan_lines
from .intake import admit, check_sources, split
from .stages import VALUE
from .study import headline
from .value_config import ValueRunConfig


def run(config: ValueRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False) -> RunSummary:
    """Run the study; see the module.

    Returns:
        Exit code 1 if scans of the cohort could not be prepared.

    Raises:
        MedgenError: If configuration, data, synthetic scans or training are at fault.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    labelling = admit(config, manifest, progress)
    patient_names.announce(manifest)
    parts = _check_synthetic(config, labelling.apply(manifest))
    manifest = manifest.with_hashes(config.workers)
    check_sources(config, manifest, parts)
    with start_run("augment-value", config, manifest, resume=resume, overwrite=overwrite, progress=progress) as context:
        results = Results([manifest, labelling])
        VALUE.run(config, results, context)
        study = results[StudyResults]
        word, sentence = headline(study)
        subjects = ", ".join(str(number) for number in study.judgement.best)
        report = Report("Value study", f"{manifest.name}: {subjects} real patients", context.track.id)
        opening(report, Usefulness(word, sentence), study, None, context.folder.out.name)
        lines = VALUE.finish(config, report, STUDY_LIMITS, results, context, manifest.named_by_folders)
    lines += [sentence, f"report: {context.folder.report}", f"MLflow store: {context.track.store}"]
    return RunSummary(config.out, 1 if results[PreparedCohort].failures else 0, tuple(lines))


def _check_synthetic(config: ValueRunConfig, manifest: Manifest) -> CohortSplit:
    """The parts of the study, once its synthetic scans are known to be there; no image is read."""
    parts = split(config, manifest)
    for folder in config.synthetic.values():
        check_foreign(folder)
    if config.run is not None:
        check_run(config.run, parts)
    return parts


def plan(config: ValueRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    manifest = cohort_to_plan(config, resume=resume, overwrite=overwrite)
    manifest = admit(config, manifest).apply(manifest)
    parts = _check_synthetic(config, manifest)
    check_sources(config, manifest, parts)
    preprocess = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    channels = len(next(iter(parts.labelled)).read_image().data)
    shape, labels = preprocess.shape, tuple(range(1, (len(manifest.labels) or 1) + 1))
    outline = Outline(shape, channels, labels, len(parts.labelled), len(parts.unlabelled))
    found = ", ".join(f"{len(part.subjects)} {name}" for name, part in parts.named().items())
    lines = [
        f"cohort: subjects: {found}",
        f"grid: {' x '.join(map(str, shape))} voxels of {preprocess.spacing} mm, align: {preprocess.align}",
        describe_memory((channels + 1) * len(manifest) * math.prod(shape)),
        *(line for item in VALUE.estimates(config, Results([outline])).values() for line in item.lines),
    ]
    return plan_lines(config, manifest, lines)
