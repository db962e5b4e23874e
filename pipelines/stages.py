"""What a stage of a run is, and how a list of stages is planned, run, reported and tracked."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from medgen.config import Config
from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.models.artifact import TrainedModel
from medgen.progress import step
from medgen.report import cohort as cohort_words
from medgen.report.cards.model_card import NAME as MODEL_CARD
from medgen.report.cards.model_card import write_model_card
from medgen.report.cards.records import records_in_progress
from medgen.report.first_screen import markdown, pictures
from medgen.report.html import Report
from medgen.report.methods.text import MethodsText, software
from medgen.runs import tracking
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.environment import commit, versions
from medgen.runs.folder import FAILURES, RunConfig, check_cohort
from medgen.runs.keys import Key, check_known, spread
from medgen.runs.machine_sizes import said
from medgen.runs.outputs import sha256_of
from medgen.runs.recorded_environment import DIFF, ENVIRONMENT
from medgen.training.cost import Estimate

from .preflight import preflight

C_contra = TypeVar("C_contra", bound=Config, contravariant=True)
P = TypeVar("P", bound=Config)

METHODS = "methods.md"
# What every run folder has, whatever its stages.
EVERY_RUN = (
    Output("metrics.json", "every number of the report, with its interval", tracked=True),
    Output("report.html", "the report, one file that opens offline", tracked=True),
    Output(METHODS, "text for the methods section of a paper: what was done, with versions, settings and references"),
    Output("config.yaml", "the configuration as resolved, with which the run can be repeated"),
    Output(
        ENVIRONMENT, "versions of all packages, processor and settings of the system that the run was computed with"
    ),
    Output("journal.jsonl", "all that was tracked, as it was sent to MLflow"),
    Output("outputs.json", "the hash of every file here and of all that they were made from"),
)
# Some have these as well.
_SOME_RUNS = (Output(DIFF, "how the code differed from its commit, where it did"),)

_MODEL = "model/"
# Of runs that leave a model.
CARD = Output(
    MODEL_CARD, "the model card: what was trained, on whom, how well it does and what it misses", tracked=True
)


@dataclass(frozen=True)
class Registered:
    """A model of a run, as MLflow's registry lists it.

    Attributes:
        name: Of the registered model, whose versions are those of later runs.
        path: Its folder in the folder of the run, which is tracked.
        sha256: Its digest, by which scoring runs find it.
        kind: ``anomaly``, ``augment`` or ``train``.
        about: What it is, a sentence without its full stop.
    """

    name: str
    path: str
    sha256: str
    kind: str
    about: str


class StageSeconds(dict[str, float]):
    """Time that each stage of a run took, in seconds."""


class Stage(ABC, Generic[C_contra]):
    """One step of a run. Subclasses are final, one per file; a pipeline is a list of them.

    Attributes:
        name: Name of the stage in MLflow.
        needs: Types that :meth:`run` asks the results for.
        makes: Types that it adds to them.
        keys: What the numbers of :meth:`summary` are.
        own_keys: What the numbers are that the stage and its parts log of themselves.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[type, ...]] = ()
    makes: ClassVar[tuple[type, ...]] = ()
    keys: ClassVar[tuple[Key, ...]] = ()
    own_keys: ClassVar[tuple[Key, ...]] = ()

    def wanted(self, config: C_contra) -> bool:
        """Whether the configuration asks for this stage."""
        return True

    def estimate(self, config: C_contra, known: Results, before: Mapping[str, Estimate]) -> Mapping[str, Estimate]:
        """What the stage will do and cost, by what it does; the lines of ``--dry-run``.

        Args:
            config: The configuration.
            known: What is known without running anything, such as the outline of the cohort.
            before: Estimates of the stages before.
        """
        return {}

    @abstractmethod
    def run(self, config: C_contra, results: Results, run: RunContext) -> Iterable[Any]:
        """Do the work; returns what it made, one object of each type in ``makes``."""

    def outputs(self) -> tuple[Output, ...]:
        """Files and folders that it leaves, some of them only where there is something to put in."""
        return ()

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Entries of ``metrics.json``; asked for also where the stage was left out (:meth:`Results.get`)."""
        return {}

    def summary(self, results: Results) -> Mapping[str, Any]:
        """The few numbers that the run stands for in MLflow, by :attr:`keys`: numbers, intervals, or None."""
        return {}

    def datasets(self, config: C_contra, results: Results) -> Mapping[str, Manifest]:
        """The scans that the run has read, with hashes, by what they are for: training, calibration, test."""
        return {}

    def models(self, config: C_contra, results: Results) -> Iterable[Registered]:
        """The models that it leaves."""
        return ()

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Add its sections to the report."""

    def methods(self, text: MethodsText, config: C_contra, results: Results) -> None:
        """Say in the methods section what it did."""

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """What the console says when the run is over."""
        return []


class Pipeline(Generic[P]):
    """A list of stages, run one after the other.

    Args:
        stages: In their order.
        given: Types that the results hold before the first stage.

    Raises:
        TypeError: If two stages share a name, or one needs what none before it makes: a bug, seen when it is imported.
    """

    def __init__(self, stages: Sequence[Stage[P]], given: Sequence[type] = ()) -> None:
        self.stages = tuple(stages)
        there, names = {*given}, set[str]()
        for stage in self.stages:
            if missing := [kind.__name__ for kind in stage.needs if kind not in there]:
                raise TypeError(f"stage {stage.name!r} needs {missing[0]}, which no stage before it makes")
            if stage.name in names:
                raise TypeError(f"two stages are called {stage.name!r}")
            there |= {*stage.makes}
            names.add(stage.name)

    def wanted(self, config: P) -> Iterator[Stage[P]]:
        """The stages that a configuration asks for."""
        return (stage for stage in self.stages if stage.wanted(config))

    def outputs(self) -> tuple[Output, ...]:
        """All that a run may leave, in the order in which it is made."""
        own = [output for stage in self.stages for output in stage.outputs()]
        card = [CARD] if any(output.name == _MODEL for output in own) else []
        return tuple(dict.fromkeys((*own, *card, *EVERY_RUN, *_SOME_RUNS)))

    def summary_keys(self) -> tuple[Key, ...]:
        """What the numbers are that a run stands for in MLflow, besides those of every run."""
        return tuple(dict.fromkeys(key for stage in self.stages for key in stage.keys))

    def estimates(self, config: P, known: Results) -> dict[str, Estimate]:
        """What each stage will do and cost."""
        found: dict[str, Estimate] = {}
        for stage in self.wanted(config):
            found |= stage.estimate(config, known, found)
        return found

    def run(self, config: P, results: Results, run: RunContext) -> None:
        """Run the stages; the results hold what they make."""
        wanted, took = list(self.wanted(config)), StageSeconds()
        results.add(took)
        for number, stage in enumerate(wanted, start=1):
            if run.progress:
                step(stage.name, number, len(wanted))
            begun = time.monotonic()
            with run.child(stage.name) as inner:
                results.add(*stage.run(config, results, inner))
            # What runs again on other subjects is a part of the stage at work.
            if not run.suffix:
                took[stage.name] = round(time.monotonic() - begun, 3)
                for context, scans in stage.datasets(config, results).items():
                    numbers = {"scans": len(scans), "subjects": len(scans.subjects)}
                    run.track.log_dataset(scans.name, context, scans.digest(), numbers)

    def finish(
        self, config: P, report: Report, limits: str, results: Results, run: RunContext, named_by_folders: bool
    ) -> list[str]:
        """Write ``metrics.json`` and the report, keep tracked outputs in MLflow, and say what was found and where.

        Args:
            config: The configuration.
            report: With what stands above the first section.
            limits: What the results do not show, a list in Markdown.
            results: What all stages have made.
            run: The run.
            named_by_folders: Whether ids are the names of DICOM folders, which may name patients.

        Returns:
            The lines for the console.
        """
        folder = run.folder
        done = list(self.wanted(config))
        with run.child("report"):
            metrics: dict[str, Any] = {}
            # Those of a stage that was left out as well: their keys are there, with nothing in them.
            for stage in self.stages:
                metrics |= stage.metrics(results)
            folder.write_metrics(metrics)
            with run.bars() as tick:
                for number, stage in enumerate(done, start=1):
                    stage.report(report, results, run)
                    tick("writing the report", number, len(done))
            self._write_methods(config, results, run)
            if CARD in self.outputs():
                write_model_card(folder.out, records_in_progress(folder.out))
            report.section("Limits", cohort_words.limits(limits, named_by_folders))
            there = [item for item in self.outputs() if item in EVERY_RUN or (folder.out / item.name).exists()]
            there = [item for item in there if item.name != folder.report.name]
            report.section("Files", "What this run has left in its folder.")
            report.links([(item.name, item.holds) for item in there])
            report.write(folder.report)
        self._track(config, report, results, run)
        return [line for stage in done for line in stage.lines(results, run)]

    def _track(self, config: P, report: Report, results: Results, run: RunContext) -> None:
        """Tell MLflow what the run stands for; give it the tracked outputs, the report's pictures and the models."""
        out, track, done = run.folder.out, run.track, list(self.wanted(config))
        numbers: dict[str, float] = {}
        for stage in done:
            own = stage.summary(results)
            check_known(own, stage.keys, stage.name)
            numbers |= spread(own)
        # Behind the numbers of the report, since MLflow lists them in this order.
        track.log_metrics(numbers)
        track.log_metrics({f"seconds.{name}": seconds for name, seconds in results[StageSeconds].items()})
        words = markdown(report)
        track.describe(words)
        for output in self.outputs():
            path = out / output.name
            if output.tracked and path.exists():
                above = path.relative_to(out).parent.as_posix()
                track.log_file(path, "" if above == "." else above)
                if path.suffix == ".csv":
                    track.log_table(path, f"tables/{path.stem}.json")
        for title, number, picture in pictures(report):
            track.log_image(out / EVERY_RUN[1].name, title, number, picture)
        for stage in done:
            for model in stage.models(config, results):
                facts = {"medgen.kind": model.kind, "medgen.run": track.id, "medgen.seed": run.seed}
                track.log_model(model.name, model.path, model.sha256, facts, f"{model.about}.\n\n{words}")

    def _write_methods(self, config: P, results: Results, run: RunContext) -> None:
        text, source = MethodsText("Methods"), commit()
        for stage in self.wanted(config):
            stage.methods(text, config, results)
        software(text, versions(), source.id, source.dirty, run.seed)
        text.write(run.folder.out / METHODS)


MANIFEST = (
    Output("manifest.csv", "every scan of the cohort with the hashes of its files", tracked=True),
    Output("manifest.json", "how the cohort was found and read"),
)
FIGURES = Output("figures/", "the pictures of the report as PNG files")
FAILED = Output(FAILURES, "every case that could not be processed, at which stage and why")


def source_of(model: Path, artifact: TrainedModel) -> dict[str, Any]:
    """What is known of the model that a run uses: its hash, its weights, the run and the cases it was made from."""
    weights = {f"model/{path.name}": sha256_of(path) for path in sorted(model.glob("*.safetensors"))}
    facts = {key: artifact.meta.get(key) for key in ("run_id", "config_sha256", "manifest_sha256", "seed", "inputs")}
    return {"sha256": artifact.sha256, "weights": weights, "cases": artifact.meta.get("cases"), **facts}


def cohort_to_plan(config: RunConfig, *, resume: bool, overwrite: bool) -> Manifest:
    """The cohort of a plan, after all that a run would refuse before it reads a scan.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    if resume:
        check_cohort(config.out, manifest.with_hashes(config.workers))
    return manifest


def plan_lines(config: RunConfig, manifest: Manifest, lines: Iterable[str]) -> list[str]:
    """The lines of ``--dry-run``: what the cohort was taken for, what would be done, and where it would go."""
    size = [] if config.scaled_to is None else [said(config.scaled_to)]
    return [*account(manifest), *size, *lines, f"output: {config.out}", tracking.place(config.out)]
