"""Which scans a training run sees: prepared, and divided into parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from medgen.data.cases import Manifest, split_subjects, write_splits
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.cache.cached_dataset import cached_dataset
from medgen.preprocessing.cache.folder import CacheFolder
from medgen.preprocessing.dataset import Failure
from medgen.preprocessing.parts import prepare_parts, template_of
from medgen.preprocessing.recipe import Preprocess, Template
from medgen.progress import bars
from medgen.report.cohort import taken_table
from medgen.report.html import Report
from medgen.runs.context import Output, Results, RunContext
from medgen.seeds import derive
from medgen.training.batches import Scans
from medgen.transforms.affine_registration import register_affine
from medgen.transforms.kept_registrations import Register

from . import patient_names
from .stages import FAILED, MANIFEST, Stage
from .train_settings import TrainRunConfig

# All scans are prepared as one part: training and validation are subsets of them.
_ALL = "all"


class Parts(dict[str, Manifest]):
    """Cases to train on and, where the configuration asks for it, cases to validate on."""


@dataclass(frozen=True, eq=False)
class PreparedScans:
    """The cohort on the model grid.

    Attributes:
        template: What scans were registered to; None where the recipe registers none.
        dataset: All scans that could be prepared.
        failures: The others.
        recipe: How they were prepared.
    """

    template: Template | None
    dataset: Scans
    failures: tuple[Failure, ...]
    recipe: Preprocess


class Prepare(Stage[TrainRunConfig]):
    """Writes who is in which part, and brings every scan to the model grid."""

    name = "prepare"
    needs = (Manifest,)
    makes = (Parts, PreparedScans)

    def run(self, config: TrainRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        manifest, folder = results[Manifest], run.folder
        patient_names.write_manifest(manifest, folder.out / "manifest.csv")
        parts = split(manifest, config)
        write_splits(folder.out / "splits.csv", parts)
        prepared = prepare(manifest, parts, config, folder.registrations)
        folder.write_failures((failure.case, "preprocess", failure.message) for failure in prepared.failures)
        return [parts, prepared]

    def datasets(self, config: TrainRunConfig, results: Results) -> Mapping[str, Manifest]:
        """Training and validation scans that could be prepared."""
        there, manifest = {*results[PreparedScans].dataset.ids}, results[Manifest]
        names = {"train": "training"}
        return {
            names.get(name, name): manifest.subset([case.id for case in part if case.id in there])
            for name, part in results[Parts].items()
        }

    def outputs(self) -> tuple[Output, ...]:
        """Who is in which part, and what could not be prepared."""
        return (
            *MANIFEST,
            Output("splits.csv", "which part every scan is in", tracked=True),
            FAILED,
        )

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """The cohort."""
        report.section("Cohort")
        rows = [(name, len(part), len(part.subjects)) for name, part in results[Parts].items()]
        report.table(["part", "cases", "subjects"], rows)
        taken_table(report, results[Manifest])
        if failures := results[PreparedScans].failures:
            report.table(["case", "reason"], [(failure.case, failure.message) for failure in failures], "Left out")

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How many cases are missing."""
        failures, where = results[PreparedScans].failures, run.folder.out / FAILED.name
        return [f"{len(failures)} case(s) could not be prepared, see {where}"] if failures else []


@dataclass(frozen=True, eq=False)
class TrainingScans:
    """What the model sees.

    Attributes:
        train: Scans to learn from.
        validation: Scans to look at from time to time; None where there are none.
        cases: The cases that they are, or are made from.
        facts: Further plain data for the artifact: how they were made.
    """

    train: Scans
    validation: Scans | None
    cases: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Divide(Stage[TrainRunConfig]):
    """The scans of each part as they are."""

    name = "divide"
    needs = (Parts, PreparedScans)
    makes = (TrainingScans,)

    def run(self, config: TrainRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        return [divided(results[PreparedScans].dataset, results[Parts])]


def divided(dataset: Scans, parts: Parts) -> TrainingScans:
    """The prepared scans of each part."""
    there = {*dataset.ids}
    found = {name: [case.id for case in part if case.id in there] for name, part in parts.items()}
    validation = dataset.subset(found["validation"]) if "validation" in found else None
    return TrainingScans(dataset.subset(found["train"]), validation, tuple(found["train"]))


def split(manifest: Manifest, config: TrainRunConfig) -> Parts:
    """Who is for training and who for validation, by subject."""
    if not config.validation:
        return Parts(train=manifest)
    shares = {"train": 1 - config.validation, "validation": config.validation}
    return Parts(split_subjects(manifest, shares, derive(config.seed, "split")))


def prepare(
    manifest: Manifest, parts: Parts, config: TrainRunConfig, register: Register = register_affine
) -> PreparedScans:
    """All scans on the model grid.

    Raises:
        DataError: As :func:`medgen.preprocessing.parts.prepare_parts`.
    """
    recipe = recipe_of(config, parts["train"])
    with bars(False) as tick:
        if config.cache is not None:
            template = template_of(parts["train"], recipe, workers=config.workers, register=register, tick=tick)
            folder = CacheFolder(config.cache.folder, int(config.cache.gib * (1 << 30)))
            cached, failures = cached_dataset(
                manifest, recipe, folder, template, config.workers, partial(tick, "preparing scans"), register
            )
            return PreparedScans(template, cached, tuple(failures), recipe)
        made = prepare_parts(
            {_ALL: manifest}, parts["train"], recipe, workers=config.workers, register=register, tick=tick
        )
    return PreparedScans(made.template, made.data[_ALL], made.failures, recipe)


def recipe_of(config: TrainRunConfig, train: Manifest) -> Preprocess:
    """The recipe with what follows from the modality of the training scans, where the configuration leaves it open.

    Raises:
        ConfigError: If its keys do not go with the modality that is found, such as percentiles with CT.
        DataError: If the scans are of several modalities, or none can be read.
    """
    own = config.preprocess
    decided = {**own.model_dump(exclude_unset=True), "align": own.align, "brain": own.brain}
    return fit_preprocess(train, decided, max(own.shape))
