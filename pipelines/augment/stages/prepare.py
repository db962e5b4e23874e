"""Every scan is brought to the model grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medgen.data.cases import Manifest
from medgen.errors import DataError
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.parts import prepare_parts
from medgen.report.augment.cohort import cohort_section
from medgen.report.html import Report
from medgen.report.methods.augment import parts
from medgen.report.methods.preparation import preparation
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit

from ...stages import FAILED, Stage
from ..config import LabelledRunConfig


class Prepare(Stage[LabelledRunConfig]):
    """Chooses the recipe and builds the template from labelled training scans, then prepares all scans."""

    name = "prepare"
    needs = (Manifest, CohortSplit)
    makes = (PreparedCohort,)
    own_keys = (
        Key("labelled", "labelled training scans"),
        Key("unlabelled", "training scans without labels"),
        Key("validation", "held-out scans that choices are made on"),
        Key("test", "held-out scans for the proof"),
    )

    def run(self, config: LabelledRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            DataError: If no scan of a part could be prepared, or no labelled one with its mask.
        """
        manifest, parts, folder = results[Manifest], results[CohortSplit], run.folder
        recipe = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
        with run.bars() as tick:
            made = prepare_parts(
                parts.named(),
                parts.labelled,
                recipe,
                workers=config.workers,
                register=folder.registrations,
                tick=tick,
            )
        seen = made.data["labelled"].labels
        if seen is None:
            raise DataError(f"{manifest.name}: the labelled training scans could not be prepared with their masks")
        labels = tuple(sorted(manifest.labels)) or tuple(int(value) for value in seen.unique() if value > 0)
        run.stage.log_metrics({name: len(data) for name, data in made.data.items()})
        folder.write_failures((failure.case, "preprocess", failure.message) for failure in made.failures)
        return [PreparedCohort(recipe, made.template, made.data, labels, manifest, made.failures)]

    def datasets(self, config: LabelledRunConfig, results: Results) -> Mapping[str, Manifest]:
        """The scans of every part that could be prepared; unlabelled ones lend their images alone."""
        manifest, data = results[Manifest], results[PreparedCohort].data
        names = {"labelled": "training", "unlabelled": "training, unlabelled"}
        return {names.get(name, name): manifest.subset(own.ids) for name, own in data.items() if len(own)}

    def outputs(self) -> tuple[Output, ...]:
        """What could not be prepared."""
        return (FAILED,)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The model grid."""
        grid = results[PreparedCohort].preprocess.canonical()
        return {"grid": {"shape": list(grid.shape), "spacing": list(grid.spacing)}}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The cohort."""
        cohort_section(report, results[Manifest], results[CohortSplit], results[PreparedCohort])

    def methods(self, text: MethodsText, config: LabelledRunConfig, results: Results) -> None:
        """Who took part, and the recipe."""
        prepared = results[PreparedCohort]
        parts(text, results[CohortSplit].named(), prepared.label_names, len(prepared.failures))
        preparation(text, prepared.preprocess)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many scans are missing."""
        failures, where = results[PreparedCohort].failures, run.folder.out / FAILED.name
        return [f"{len(failures)} scan(s) could not be prepared, see {where}"] if failures else []
