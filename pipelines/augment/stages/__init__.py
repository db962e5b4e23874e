"""The stages of runs on labelled cohorts, one file each, and their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from medgen.data.cases import Manifest
from medgen.runs.context import Results
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline
from medgen.training.cost import Estimate

from ...stages import Pipeline
from ..choice import Plan
from ..config import AugmentRunConfig
from ..value_config import ValueRunConfig
from .audit import AuditCopies
from .choose import Choose
from .consensus import LabelUnlabelled
from .export import Export
from .features import ReadFeatures
from .fidelity import MeasureFidelity
from .filter import FitFilter
from .prepare import Prepare
from .sample import Sample
from .split import Split
from .synthetic import ReadSynthetic, StudyOfScans
from .train import Train
from .value import StudyOfGenerators

# Run again by the value study for every smaller number of subjects.
GENERATE = Pipeline[AugmentRunConfig](
    [LabelUnlabelled(), Train(), FitFilter(), Sample()], given=(Manifest, CohortSplit, PreparedCohort, Plan)
)
_JUDGE = (AuditCopies(), MeasureFidelity(), StudyOfGenerators(GENERATE), Export())


def estimates(config: AugmentRunConfig, outline: Outline) -> Mapping[str, Estimate]:
    """What the stages of a run with these generators cost, trainings for smaller numbers of subjects included.

    Args:
        config: With the generators chosen.
        outline: The cohort.
    """
    known, times = Results([outline]), config.trainings_of_generators
    found = GENERATE.estimates(config, known)
    if times > 1:
        found = {name: _repeated(item, times) for name, item in found.items()}
    for stage in AUGMENT.wanted(config):
        if stage not in GENERATE.stages:
            found |= stage.estimate(config, known, found)
    return found


def _repeated(item: Estimate, times: int) -> Estimate:
    lines = tuple(f"{line}, {times} times" for line in item.lines)
    return replace(item, seconds=item.seconds * times, lines=lines)


AUGMENT = Pipeline[AugmentRunConfig](
    [Split(), Prepare(), Choose(estimates), ReadFeatures(), *GENERATE.stages, *_JUDGE], given=(Manifest, Labelling)
)
VALUE = Pipeline[ValueRunConfig]([Split(), Prepare(), ReadSynthetic(), StudyOfScans()], given=(Manifest, Labelling))
