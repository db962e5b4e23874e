"""The accepted scans become a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medgen.data.cases import Manifest
from medgen.report.augment.value import StudyResults
from medgen.runs.context import Output, Results, RunContext
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.export.cohort import ExportRefused, export_pool
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.sources import Sources
from medgen.synthesis.usefulness import Usefulness

from ...stages import Stage
from ..config import AugmentRunConfig
from ..study import usefulness
from .train import Generators


@dataclass(frozen=True)
class Exported:
    """What became of the accepted scans.

    Attributes:
        written: Whether there is a synthetic cohort.
        refused: Why the audit refused it; empty if it did not.
        verdict: What goes with the scans: whether they help.
    """

    written: bool
    refused: str
    verdict: Usefulness


class Export(Stage[AugmentRunConfig]):
    """Writes the synthetic cohort with its card and the record of every scan, unless no scan was accepted."""

    name = "export"
    needs = (Manifest, Labelling, CohortSplit, PreparedCohort, Sources, Generators, CandidatePool, Audit)
    makes = (Exported,)

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        pool, audit, prepared = results[CandidatePool], results[Audit], results[PreparedCohort]
        verdict, folder = usefulness(results.get(StudyResults)), run.folder.synthetic
        refused = ""
        if pool.accepted() or audit.flagged:
            intake = prepared.manifest.intake
            try:
                export_pool(
                    pool,
                    folder,
                    audit=audit,
                    grid=prepared.preprocess.canonical(),
                    sources=results[Sources],
                    backends=results[Generators],
                    label_names=prepared.label_names,
                    original_labels=results[Labelling].original,
                    seed=config.seed,
                    config_sha256=config.digest(),
                    cohort=results[Manifest].name,
                    modality=config.modality_of(intake.channels),
                    held_out=results[CohortSplit].held_out,
                    intake=intake,
                    verdict=verdict,
                )
            except ExportRefused as error:
                refused = str(error).removeprefix(f"{folder}: ")
        return [Exported((folder / "card.md").is_file(), refused, verdict)]

    def outputs(self) -> tuple[Output, ...]:
        """The cohort."""
        return (
            Output(
                "synthetic/", "the synthetic cohort in the layout of nnU-Net, with a record of every scan's parents"
            ),
            Output("synthetic/card.md", "its data card", tracked=True),
            Output("synthetic/dataset.json", "its channels and labels", tracked=True),
        )

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The verdict."""
        verdict = results[Exported].verdict
        return {"verdict": verdict.word, "sentence": verdict.sentence}

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """The verdict, where no line of the study has said it, and where the cohort is."""
        exported, study = results[Exported], results.get(StudyResults)
        said = [] if study is None else [item.sentence for item in study.judgement.comparisons]
        verdict = exported.verdict
        nothing = exported.refused or "no scan passed the filter, see rejections.csv"
        cohort = f"{run.folder.synthetic} ({verdict.word})" if exported.written else f"none: {nothing}"
        return [*([] if verdict.sentence in said else [verdict.sentence]), f"synthetic cohort: {cohort}"]
