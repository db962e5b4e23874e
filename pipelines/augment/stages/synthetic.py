"""Synthetic scans that were made elsewhere, or by an earlier run, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from medgen.errors import ConfigError
from medgen.report.augment.value import StudyResults
from medgen.runs.context import Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.value.arms import Arm
from medgen.synthesis.value.scans_made_elsewhere import (
    ScansMadeElsewhere,
    guard_labels,
    read_foreign,
    read_run,
    together,
)
from medgen.synthesis.value.study import Material

from ...stages import Stage
from ..study import headline
from ..value_config import ValueRunConfig
from .value import Study


class SyntheticScans(tuple[ScansMadeElsewhere, ...]):
    """The synthetic scans of a study, by where they come from."""

    __slots__ = ()


class ReadSynthetic(Stage[ValueRunConfig]):
    """Reads and prepares the synthetic scans, and refuses those whose generator has seen held-out subjects."""

    name = "synthetic"
    needs = (CohortSplit, PreparedCohort)
    own_keys = (Key("<pool>", "synthetic scans of a folder"),)
    makes = (SyntheticScans,)

    def run(self, config: ValueRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            AuditError: If a generator has seen subjects that its scans are tested on.
            ConfigError: If an arm names scans that are not there, or two sources share a name.
        """
        prepared, parts = results[PreparedCohort], results[CohortSplit]
        pools = [
            read_foreign(
                name,
                folder,
                preprocess=prepared.preprocess,
                template=prepared.template,
                labels=prepared.labels,
                channels=prepared.data["labelled"].channels,
                parts=parts,
                workers=config.workers,
            )
            for name, folder in config.synthetic.items()
        ]
        if config.run is not None:
            pools += read_run(config.run, preprocess=prepared.preprocess, labels=prepared.labels, parts=parts)
        _check_names([pool.name for pool in pools], config)
        # The smallest number of subjects is the one that a generator is most likely to have seen more of.
        fewest = min(config.value.subjects, default=len(parts.labelled.subjects))
        guard_labels(pools, parts.fewer(fewest).labelled.subjects)
        run.stage.log_metrics({pool.name: len(pool.scans.images) for pool in pools})
        return [SyntheticScans(pools)]


class StudyOfScans(Study[ValueRunConfig]):
    """The study of scans that are there already."""

    needs = (CohortSplit, PreparedCohort, SyntheticScans)

    def material(
        self, config: ValueRunConfig, results: Results, run: RunContext
    ) -> Callable[[int, CohortSplit], Material]:
        """Real scans of so many subjects, and all synthetic scans."""
        prepared, pools = results[PreparedCohort], results[SyntheticScans]

        def trained_on(number: int, fewer: CohortSplit) -> Material:
            sources = prepared.sources(fewer)
            return Material(number, sources.labelled, together(pools), sources.unlabelled)

        return trained_on

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """The verdict, then means and differences."""
        word, sentence = headline(results[StudyResults])
        return {"verdict": word, "sentence": sentence, **super().metrics(results)}

    def notes(self, results: Results) -> Sequence[str]:
        """How many scans there are, and what is known of who their generator has learnt from."""
        notes = []
        for pool in results[SyntheticScans]:
            count = len(pool.scans.images)
            text = f"**{pool.name}**: {count} synthetic scans, {pool.records} of them with a record of their parents."
            if pool.labelled is None:
                text += (
                    " Which masks their generator saw is not recorded: the comparison is fair only if they are those "
                    "of the real subjects here, or fewer."
                )
                if pool.records < count:
                    text += " That no held-out scan was among the sources could be checked by names and files only."
            notes.append(text)
        return notes


def _check_names(names: Sequence[str], config: ValueRunConfig) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"synthetic: {twice[0]!r} is also a backend of {config.run}; choose another name")
    for arm in map(Arm.parse, config.value.arms):
        if arm.source is not None and arm.source not in ("", *names):
            raise ConfigError(f"value.arms: {arm.name!r} needs the scans {arm.source!r}; there are {', '.join(names)}")
