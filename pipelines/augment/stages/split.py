"""Who is labelled, unlabelled, held out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medgen.data.cases import Manifest, write_splits
from medgen.runs.context import Output, Results, RunContext
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.cohort.split import CohortSplit

from ... import patient_names
from ...stages import MANIFEST, Stage
from .. import intake
from ..config import LabelledRunConfig


class Split(Stage[LabelledRunConfig]):
    """Applies the labels in use to the cohort, splits it by subject, and writes who is where."""

    name = "split"
    needs = (Manifest, Labelling)
    makes = (Manifest, CohortSplit)

    def run(self, config: LabelledRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        patient_names.write_manifest(results[Manifest], run.folder.out / "manifest.csv")
        manifest = results[Labelling].apply(results[Manifest])
        parts = intake.split(config, manifest)
        write_splits(run.folder.out / "splits.csv", parts.named())
        return [manifest, parts]

    def outputs(self) -> tuple[Output, ...]:
        """The cohort and its parts."""
        return (
            *MANIFEST,
            Output("splits.csv", "which part every scan is in", tracked=True),
        )
