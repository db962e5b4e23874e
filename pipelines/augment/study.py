"""The value study of a run: what its cells train on, the cells themselves, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medgen.preprocessing.recipe import Preprocess
from medgen.report.augment.value import StudyResults
from medgen.runs import tracking
from medgen.runs.folder import RunFolder
from medgen.runs.progress import bars
from medgen.seeds import derive
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Estimate, Outline, segmenter_estimate
from medgen.synthesis.value.arms import Arm
from medgen.synthesis.value.blind import blind_dice
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.study import Material, Row, TestSet, run_study
from medgen.synthesis.value.tables import METRICS
from medgen.synthesis.value.undecided import Learning
from medgen.synthesis.value.verdict import judge
from medgen.system.files import write_csv

from .config import AugmentRunConfig, LabelledRunConfig
from .generate import Generated, generate
from .prepare import PreparedCohort

_CASES = ("arm", "subjects", "seed", "part", "case", "subject", "label", *METRICS, "synthetic_scans", "seconds")
_CELLS = ("arm", "subjects", "seed", "part", "label", *METRICS, "cases", "synthetic_scans", "seconds")


def study(
    config: AugmentRunConfig,
    prepared: PreparedCohort,
    parts: CohortSplit,
    generated: Generated,
    folder: RunFolder,
    stage: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> list[Row]:
    """The study with the run's own generators, trained anew for every number of subjects."""

    def pools(number: int, fewer: CohortSplit) -> Material:
        made = generated
        if number != len(parts.labelled.subjects):
            # A generator that has seen more subjects than the segmenter would bring their labels in by the back door.
            made = generate(config, prepared, fewer, folder, stage, f"-n{number}", resume=resume, progress=progress)
        scans = {name: made.pool.training_set(name or None) for name in ("", *config.generators.names)}
        return Material(number, made.sources.labelled, scans, made.sources.unlabelled)

    return run_cells(config, prepared, parts, pools, folder, stage, progress=progress)


def run_cells(
    config: LabelledRunConfig,
    prepared: PreparedCohort,
    parts: CohortSplit,
    material: Callable[[int, CohortSplit], Material],
    folder: RunFolder,
    stage: tracking.Run,
    *,
    progress: bool,
) -> list[Row]:
    """Every cell of the configured study, kept in the run's checkpoints, each a child of the stage.

    Args:
        config: Settings.
        prepared: The cohort.
        parts: All of it.
        material: Number of subjects and parts with so many → what its cells train on.
        folder: Of the run.
        stage: Of the study.
        progress: Whether to show a bar.
    """
    value = config.value
    numbers = value.subjects or (len(parts.labelled.subjects),)
    materials = []
    for number in sorted({*numbers, *value.real_only}):
        fewer = parts.fewer(number)
        if number in numbers:
            materials.append(material(number, fewer))
        else:
            sources = prepared.sources(fewer)
            materials.append(Material(number, sources.labelled, {}, sources.unlabelled))
    cells = sum(cells_of(value.arms, item.pools) * value.seeds for item in materials)
    with bars(progress) as tick:
        finished = 0

        def done(name: str, means: Mapping[str, float]) -> None:
            nonlocal finished
            finished += 1
            tick("value study", finished, cells)
            with stage.stage(name) as cell:
                cell.log_metrics(means)

        return run_study(
            spaced(value, prepared.preprocess),
            materials,
            held_out(prepared, parts, "test"),
            prepared.labels,
            validation=held_out(prepared, parts, "validation") if "validation" in prepared.data else None,
            seed=derive(config.seed, "study"),
            device=config.device,
            workers=config.workers,
            store=folder.checkpoints / "value",
            done=done,
        )


def spaced(study: ValueConfig, preprocess: Preprocess) -> ValueConfig:
    """The study with an ordinary augmentation that knows the voxel size, unless the configuration says another one."""
    if "spacing" in study.augment.model_fields_set:
        return study
    augment = study.augment.model_copy(update={"spacing": preprocess.spacing})
    return study.model_copy(update={"augment": augment})


def judged(
    rows: Sequence[Row],
    config: LabelledRunConfig,
    prepared: PreparedCohort,
    parts: CohortSplit,
    notes: Sequence[str] = (),
) -> StudyResults:
    """What the rows of a study say, with what its report needs."""
    test = held_out(prepared, parts, "test")
    numbers = sorted({int(row["subjects"]) for row in rows})
    blind = {
        number: blind_dice(prepared.sources(parts.fewer(number)).labelled, test, prepared.labels) for number in numbers
    }
    learning = Learning(config.value.segmenter.steps, blind)
    return StudyResults(
        judgement=judge(rows, config.seed, config.value.bootstrap, learning=learning),
        config=config.value,
        label_names={label: prepared.manifest.labels.get(label, f"label {label}") for label in prepared.labels},
        subjects={name: len(parts.named()[name].subjects) for name in ("validation", "test") if name in parts.named()},
        notes=tuple(notes),
    )


def track_verdict(track: tracking.Run, results: StudyResults) -> None:
    """The verdict as a tag and the deciding differences as metrics of the run."""
    track.set_tags({"medgen.verdict": results.judgement.word})
    for item in results.judgement.verdicts:
        track.log_metrics({"value.dice_difference": item.difference.estimate}, item.subjects)
    for worth in results.judgement.worths:
        track.log_metrics({f"value.worth.{worth.reference}": worth.estimate}, worth.subjects)


def cells_of(arms: Sequence[str], pools: Mapping[str, object]) -> int:
    """Number of arms that can be run with these pools."""
    sources = [Arm.parse(name).source for name in arms]
    return sum(source is None or pools.get(source) is not None for source in sources)


def held_out(prepared: PreparedCohort, parts: CohortSplit, part: str) -> TestSet:
    """The scans of ``test`` or ``validation`` that could be prepared, with their native masks."""
    data = prepared.data[part]
    masks = {case.id: case.read_mask() for case in parts.named()[part] if case.id in {*data.ids}}
    truth = tuple(mask for name in data.ids if (mask := masks[name]) is not None)
    return TestSet(data, truth, prepared.preprocess)


def write_value(folder: RunFolder, rows: Sequence[Row]) -> None:
    """Write ``value.csv``, one row per cell, part and label (and their mean), and ``value_cases.csv``, one per case."""
    write_csv(folder.out / "value_cases.csv", rows, _CASES)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for label in (row["label"], "mean"):
            groups.setdefault((row["arm"], row["subjects"], row["seed"], row["part"], label), []).append(row)
    summary = []
    for key, members in groups.items():
        means = {name: sum(row[name] for row in members) / len(members) for name in METRICS}
        shared = {name: members[0][name] for name in ("synthetic_scans", "seconds")}
        cell = dict(zip(_CELLS, key, strict=False))
        summary.append({**cell, **means, **shared, "cases": len({row["case"] for row in members})})
    write_csv(folder.out / "value.csv", summary, _CELLS)


def study_cells(config: LabelledRunConfig) -> int:
    """Segmenters that a study trains."""
    value = config.value
    ordinary = sum(Arm.parse(name).source is None for name in value.arms)
    extra = len(set(value.real_only) - set(value.subjects))
    return (len(value.subjects or (0,)) * len(value.arms) + extra * ordinary) * value.seeds


def study_estimate(config: LabelledRunConfig, outline: Outline) -> Estimate:
    """What the study takes in computing time, measured on a few steps; ``workers`` cells share it on a CPU."""
    return segmenter_estimate("value study", config.value.segmenter, outline, config.device, study_cells(config))
