"""Scans are sampled and filtered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from medgen.report.augment import samples
from medgen.report.augment.filter import filter_section
from medgen.report.html import Report
from medgen.report.methods.augment import accepted
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.estimates import Outline
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import CandidatePool, sample_pool
from medgen.synthesis.planning.stages import sampling_estimate
from medgen.training.cost import Estimate

from ...stages import FIGURES, Stage
from ..choice import Plan
from ..config import AugmentRunConfig
from ..rejections import REJECTIONS, write_rejections
from .train import Generators

VIEWERS = Output(
    samples.VIEWERS,
    "pages that flip between a synthetic scan and the real scan that it resembles most: patients' scans",
)


class Sample(Stage[AugmentRunConfig]):
    """Samples every generator until enough scans pass the filter, and lists those that do not."""

    name = "sample"
    needs = (PreparedCohort, Plan, Generators, Filter)
    makes = (CandidatePool,)
    keys = (
        Key("synthetic.accepted", "samples that passed filter and audit"),
        Key("synthetic.rejected", "samples that did not"),
        Key("synthetic.accepted.<generator>", "accepted samples of one generator"),
        Key("synthetic.acceptance.<generator>", "share of its samples that passed", "higher"),
        Key("training.alarms.<generator>", "alarms of its training, such as mode collapse", "lower"),
    )
    own_keys = (Key("accepted", "samples that passed the filter"), Key("rejected", "samples that did not"))

    def estimate(
        self, config: AugmentRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Samples and their judgement."""
        backends = {name: before[name] for name in config.generators.names}
        made = sampling_estimate(config.scans, config.attempts, backends, before["filter"], known[Outline])
        return {"sampling": made}

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        with run.bars() as tick:
            pool = sample_pool(
                results[Generators],
                dict.fromkeys(results[Plan].config.generators.names, config.scans),
                results[Filter],
                seed=run.derive(*config.stream("samples")),
                attempts=config.attempts,
                tick=partial(tick, f"accepted scans{run.suffix}"),
            )
        run.stage.log_metrics({"accepted": len(pool.accepted()), "rejected": len(pool.rejected())})
        if not run.suffix:
            write_rejections(run.folder.out / REJECTIONS.name, pool)
        return [pool]

    def outputs(self) -> tuple[Output, ...]:
        """Pictures, pages to flip a scan and its nearest real one, and what was refused."""
        return (REJECTIONS, FIGURES, VIEWERS)

    def summary(self, results: Results) -> Mapping[str, Any]:
        """How many scans there are, after the audit, and of which generator."""
        pool = results[CandidatePool]
        found: dict[str, Any] = {
            "synthetic.accepted": len(pool.accepted()),
            "synthetic.rejected": len(pool.rejected()),
        }
        for backend in results[Generators]:
            accepted, rejected = len(pool.accepted(backend.name)), len(pool.rejected(backend.name))
            found[f"synthetic.accepted.{backend.name}"] = accepted
            found[f"synthetic.acceptance.{backend.name}"] = accepted / max(accepted + rejected, 1)
            found[f"training.alarms.{backend.name}"] = len(backend.alarms)
        return found

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Every generator with the numbers of its scans, and what the filter measured of each sample."""
        pool, found = results[CandidatePool], {}
        for backend in results[Generators]:
            accepted, rejected = len(pool.accepted(backend.name)), len(pool.rejected(backend.name))
            found[backend.name] = {
                "sha256": backend.sha256,
                "sampling": backend.sampling.model_dump(mode="json"),
                "accepted": accepted,
                "rejected": rejected,
                "acceptance": accepted / max(accepted + rejected, 1),
                "alarms": [asdict(alarm) for alarm in backend.alarms],
            }
        samples = {candidate.id: dict(candidate.filtered.scores) for candidate in pool.candidates}
        return {"generators": found, "samples": samples}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Samples, and what the filter did."""
        pool, backends, prepared = results[CandidatePool], results[Generators], results[PreparedCohort]
        samples.samples_section(report, pool, backends, results[Filter], prepared, run.folder, run.seed)
        filter_section(report, pool, backends, results[Filter], prepared.label_names)

    def methods(self, text: MethodsText, config: AugmentRunConfig, results: Results) -> None:
        """What passed the filter."""
        accepted(text, config.filter, results[CandidatePool], results[Generators])

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many scans of each generator there are, and its alarms."""
        pool, lines = results[CandidatePool], []
        for backend in results[Generators]:
            accepted, rejected = len(pool.accepted(backend.name)), len(pool.rejected(backend.name))
            lines.append(f"{backend.name}: {accepted} scans accepted, {rejected} rejected")
            lines += [f"{backend.name}: ALARM at step {alarm.step}: {alarm.message}" for alarm in backend.alarms]
        return lines
