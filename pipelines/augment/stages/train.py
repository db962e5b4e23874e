"""The generators are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from medgen.data.cases import Manifest
from medgen.report.augment.training import training_section
from medgen.report.html import Report
from medgen.report.methods.augment import generators
from medgen.report.methods.text import MethodsText
from medgen.report.start import source_tags
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import TRAINING
from medgen.synthesis.backend import Backend, FitContext
from medgen.synthesis.backends import backend_class
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.estimates import Outline
from medgen.synthesis.sources import Sources
from medgen.training.cost import Estimate

from ...stages import Registered, Stage
from ..choice import Plan
from ..config import AugmentRunConfig


class Generators(tuple[Backend, ...]):
    """The trained generators, in the order in which they were trained."""

    __slots__ = ()


class Train(Stage[AugmentRunConfig]):
    """Fits every backend to the sources, each a child of its own in MLflow, and saves it."""

    name = "train"
    needs = (Manifest, PreparedCohort, Plan, Sources)
    makes = (Generators,)
    own_keys = TRAINING

    def estimate(
        self, config: AugmentRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Every backend, which says it itself."""
        return {
            name: backend_class(name).estimate(config.generators.of(name), known[Outline], config.device)
            for name in config.generators.names
        }

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        generators, preprocess = results[Plan].config.generators, results[PreparedCohort].preprocess
        trained: list[Backend] = []
        for name in generators.names:
            kind = backend_class(name)
            # The training loop of networks shows its own bar.
            with run.child(f"train-{name}") as child, run.bars(not kind.families) as tick:
                context = FitContext(
                    preprocess=preprocess,
                    seed=run.derive(*config.stream("generator", name)),
                    device=config.device,
                    out=run.checkpoints(name),
                    resume=run.resume,
                    progress=run.progress,
                    log=child.stage.log_metrics,
                    tick=partial(tick, f"{name}{run.suffix}: registering"),
                )
                backend = kind.fit(results[Sources], generators.of(name), context)
                child.stage.set_tags({"medgen.generator.sha256": backend.sha256})
                child.stage.set_tags(source_tags(*backend.starts.values()))
                child.stage.set_tags({f"medgen.alarm.{alarm.name}": alarm.message for alarm in backend.alarms})
            if not run.suffix:
                backend.save(run.folder.model / name)
            trained.append(backend)
        return [Generators(trained)]

    def outputs(self) -> tuple[Output, ...]:
        """The generators."""
        return (
            Output(
                "model/", "the generators, with what `medgen augment sample` needs to filter and audit", tracked=True
            ),
        )

    def models(self, config: AugmentRunConfig, results: Results) -> Iterable[Registered]:
        """Every generator."""
        cohort = results[Manifest].name
        return [
            Registered(
                f"medgen-augment-{cohort}-{backend.name}",
                f"model/{backend.name}",
                backend.sha256,
                "augment",
                f"Generator {backend.name} of labelled scans, trained on {cohort}",
            )
            for backend in results[Generators]
        ]

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The choice and the trainings."""
        training_section(report, results[Plan].routing.reasons, results[Generators])

    def methods(self, text: MethodsText, config: AugmentRunConfig, results: Results) -> None:
        """The generators."""
        routing = results[Plan].routing
        generators(text, results[Generators], routing.reasons if routing.automatic else ())
