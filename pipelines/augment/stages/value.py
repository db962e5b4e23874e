"""Whether synthetic scans improve the training of a segmenter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from medgen.data.cases import Manifest
from medgen.report.augment.value import StudyResults, study_lines, study_metrics, study_section
from medgen.report.html import Report
from medgen.report.methods.augment import study
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.sources import Sources
from medgen.synthesis.value.study import Material
from medgen.training.cost import Estimate

from ...stages import FIGURES, Pipeline, Stage
from ..choice import Plan
from ..config import AugmentRunConfig, LabelledRunConfig
from ..study import (
    STUDY_KEYS,
    STUDY_OUTPUTS,
    judged,
    run_cells,
    study_estimate,
    study_summary,
    track_verdict,
    write_value,
)

C_contra = TypeVar("C_contra", bound=LabelledRunConfig, contravariant=True)


class Study(Stage[C_contra]):
    """Trains the same segmenter with and without synthetic scans, and judges the difference on held-out scans."""

    name = "value"
    makes = (StudyResults,)
    keys = STUDY_KEYS
    own_keys = (
        Key("dice", "mean Dice of a segmenter on the test scans"),
        Key("hd95_mm", "95th percentile of surface distances, in mm"),
        Key("nsd", "share of the surface within the tolerance"),
        Key("seconds", "time of its training, in seconds"),
    )

    def wanted(self, config: C_contra) -> bool:
        """Unless it is switched off."""
        return config.value.enabled

    def estimate(self, config: C_contra, known: Results, before: Mapping[str, Estimate]) -> Mapping[str, Estimate]:
        """All segmenters."""
        return {self.name: study_estimate(config, known[Outline])}

    @abstractmethod
    def material(self, config: C_contra, results: Results, run: RunContext) -> Callable[[int, CohortSplit], Material]:
        """What the cells for a number of subjects, and the parts of the cohort with so many, train on."""

    def notes(self, results: Results) -> Sequence[str]:
        """What the report says of the synthetic scans, in Markdown."""
        return ()

    def run(self, config: C_contra, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        rows = run_cells(config, results, run, self.material(config, results, run))
        study = judged(rows, config, results, self.notes(results))
        track_verdict(run.track, study)
        write_value(run.folder.out, rows)
        return [study]

    def outputs(self) -> tuple[Output, ...]:
        """All measurements."""
        return (*STUDY_OUTPUTS, FIGURES)

    def summary(self, results: Results) -> Mapping[str, Any]:
        """The verdict's numbers."""
        study = results.get(StudyResults)
        return {} if study is None else study_summary(study)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Means, differences and verdicts."""
        study = results.get(StudyResults)
        return {} if study is None else study_metrics(study)

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The study."""
        study_section(report, results[StudyResults], run.folder)

    def methods(self, text: MethodsText, config: C_contra, results: Results) -> None:
        """Arms, segmenter and judgement."""
        found = results[StudyResults]
        study(text, found.config, found.judgement, found.subjects)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """The study as a table, and what it says."""
        return study_lines(results[StudyResults])


class StudyOfGenerators(Study[AugmentRunConfig]):
    """The study of the run's own generators, which are trained anew for every number of subjects.

    A generator that has seen more subjects than the segmenter would bring their labels in by the back door.

    Args:
        generate: The stages that train generators and sample them.
    """

    needs = (Manifest, CohortSplit, PreparedCohort, Plan, Sources, CandidatePool)

    def __init__(self, generate: Pipeline[AugmentRunConfig]) -> None:
        self._generate = generate

    def material(
        self, config: AugmentRunConfig, results: Results, run: RunContext
    ) -> Callable[[int, CohortSplit], Material]:
        """Real scans of so many subjects, and scans of generators that have seen no others."""

        def trained_on(number: int, fewer: CohortSplit) -> Material:
            made = results
            if number != len(results[CohortSplit].labelled.subjects):
                made = results.having(fewer)
                self._generate.run(config, made, run.again(f"-n{number}"))
            pool, sources = made[CandidatePool], made[Sources]
            names = ("", *results[Plan].config.generators.names)
            scans = {name: pool.training_set(name or None) for name in names}
            return Material(number, sources.labelled, scans, sources.unlabelled)

        return trained_on
