"""Which generators are trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medgen.runs.context import Output, Results, RunContext
from medgen.synthesis.cohort.label_facts import label_facts
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline
from medgen.system.files import write_json

from ...stages import Stage
from ..choice import STUDIED, Estimates, Plan, choose
from ..config import AugmentRunConfig


@dataclass(frozen=True)
class Choose(Stage[AugmentRunConfig]):
    """Chooses the generators by cohort and machine, or takes those that are configured, and refuses what cannot fit.

    Attributes:
        estimates: What the stages that follow cost.
    """

    estimates: Estimates

    name = "plan"
    needs = (CohortSplit, PreparedCohort)
    makes = (Plan,)

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        prepared, sources = results[PreparedCohort], results[PreparedCohort].sources(results[CohortSplit])
        studied = sources.labelled.subset(sources.labelled.ids[:STUDIED])
        outline = Outline(
            shape=sources.labelled.shape,
            channels=sources.labelled.channels,
            labels=prepared.labels,
            labelled=len(sources.labelled),
            unlabelled=0 if sources.unlabelled is None else len(sources.unlabelled),
            facts=label_facts(studied, prepared.labels),
        )
        plan = choose(config, outline, self.estimates)
        write_json(run.folder.out / "plan.json", plan.to_plain())
        run.stage.set_tags({"medgen.generators": ", ".join(plan.routing.backends)})
        if run.progress:
            print("\n".join(plan.lines), file=sys.stderr)
        return [plan]

    def outputs(self) -> tuple[Output, ...]:
        """The plan."""
        return (Output("plan.json", "which generators were chosen, why, and what was expected to cost", tracked=True),)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The plan."""
        return {"plan": results[Plan].to_plain()}
