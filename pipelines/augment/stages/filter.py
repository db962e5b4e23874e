"""What a synthetic scan must pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from medgen.runs.context import Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.estimates import Outline
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.planning.stages import filter_estimate
from medgen.synthesis.sources import Sources
from medgen.training.cost import Estimate

from ...stages import Stage
from ..config import AugmentRunConfig


class FitFilter(Stage[AugmentRunConfig]):
    """Fits the filter to real labelled scans: auditors, bounds on labels and likeness."""

    name = "filter"
    needs = (PreparedCohort, Sources)
    own_keys = (
        Key("agreement_bound", "least Dice between a sample's labels and what the auditors see"),
        Key("copy_bound", "likeness above which a sample counts as a copy"),
    )
    makes = (Filter,)

    def estimate(
        self, config: AugmentRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """The auditors."""
        return {self.name: filter_estimate(config.filter, known[Outline], config.device)}

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        with run.bars() as tick:
            fitted = Filter.fit(
                results[Sources],
                config.filter,
                seed=run.derive("filter"),
                device=config.device,
                spacing=results[PreparedCohort].preprocess.spacing,
                tick=partial(tick, f"auditors{run.suffix}"),
            )
        run.stage.log_metrics({"agreement_bound": fitted.agreement_bound, "copy_bound": fitted.copy_bound})
        return [fitted]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The bounds."""
        fitted = results[Filter]
        return {
            "filter": {
                "agreement_bound": fitted.agreement_bound,
                "copy_bound": fitted.copy_bound,
                "identity_bound": fitted.identity_bound,
                "real_agreement": dict(fitted.agreement),
            }
        }
