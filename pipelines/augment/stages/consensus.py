"""Unlabelled scans are labelled where that is credible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from medgen.report.augment.cohort import consensus_part, consensus_sentence
from medgen.report.html import Report
from medgen.report.methods.augment import inferred_labels
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.consensus import Consensus, label_unlabelled
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline, segmenter_estimate
from medgen.synthesis.lineage import guard_split
from medgen.synthesis.sources import Sources
from medgen.training.cost import Estimate

from ...stages import Stage
from ..config import AugmentRunConfig


class LabelUnlabelled(Stage[AugmentRunConfig]):
    """Takes what generators may learn from, and labels the unlabelled scans by several segmenters that must agree."""

    name = "consensus"
    needs = (CohortSplit, PreparedCohort)
    own_keys = (
        Key("labelled", "unlabelled scans that the consensus of segmenters labelled"),
        Key("left_out", "unlabelled scans on which they did not agree"),
    )
    makes = (Sources, Consensus)

    def estimate(
        self, config: AugmentRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """The segmenters."""
        outline, own = known[Outline], config.consensus
        members = own.trainings if outline.unlabelled else 0
        return {self.name: segmenter_estimate("consensus", own.segmenter, outline, config.device, members)}

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            AuditError: If somebody is both learnt from and held out.
        """
        parts = results[CohortSplit]
        sources = results[PreparedCohort].sources(parts)
        guard_split(sources.subjects, parts.held_out)
        with run.bars() as tick:
            consensus = label_unlabelled(
                sources,
                config.consensus,
                seed=run.derive(*config.stream("consensus")),
                device=config.device,
                workers=config.workers,
                store=run.checkpoints("consensus"),
                tick=partial(tick, f"labelling unlabelled scans{run.suffix}"),
            )
        labelled = 0 if consensus.scans is None else len(consensus.scans)
        run.stage.log_metrics({"labelled": labelled, "left_out": len(consensus.left_out)})
        return [replace(sources, consensus=consensus.scans, members=consensus.members), consensus]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """What became of the unlabelled scans, and how inferred labels compare with human ones."""
        found, names = results[Consensus], results[PreparedCohort].label_names
        return {
            "consensus": {
                "labelled": 0 if found.scans is None else len(found.scans),
                "left_out": list(found.left_out),
                "agreement": dict(found.agreement),
                "bound": found.bound,
                "bias": [{**item.to_plain(), "sentence": item.sentence(names[item.label])} for item in found.bias],
                "sentence": consensus_sentence(found, names),
            }
        }

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """What inferred labels are worth."""
        consensus_part(report, results[Consensus], results[PreparedCohort].label_names)

    def methods(self, text: MethodsText, config: AugmentRunConfig, results: Results) -> None:
        """How unlabelled scans got labels."""
        inferred_labels(text, config.consensus, results[Consensus])
