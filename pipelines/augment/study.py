"""The value study of a run: what its cells train on, the cells themselves, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medgen.preprocessing.recipe import Preprocess
from medgen.report.augment.opening import decisive
from medgen.report.augment.value import StudyResults, is_mean_dice
from medgen.report.start import source_tags
from medgen.runs import tracking
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.segmentation.start import segmenter_start
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline, segmenter_estimate
from medgen.synthesis.usefulness import Usefulness
from medgen.synthesis.value.arms import Arm
from medgen.synthesis.value.blind import blind_dice
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.study import Material, Row, TestSet, run_study
from medgen.synthesis.value.tables import METRICS
from medgen.synthesis.value.undecided import Learning
from medgen.synthesis.value.verdict import judge
from medgen.system.files import write_csv
from medgen.training.cost import Estimate

from .config import LabelledRunConfig

STUDY_KEYS = (
    Key("value.dice", "mean Dice with synthetic scans, on the test subjects", "higher"),
    Key("value.dice_ordinary", "mean Dice of the best ordinary training"),
    Key("value.dice_difference", "the difference of both, which decides the verdict", "higher"),
    Key("value.p", "its p-value after Holm"),
    Key("value.trainings", "trainings of each kind"),
    Key("value.subjects", "real labelled subjects that the segmenters learnt from"),
    Key("value.test_subjects", "subjects that nothing was trained on"),
    Key("value.dice_difference_by_subjects", "the differences; the step is the number of real subjects"),
    Key("value.worth.<arm>", "real subjects that the scans are worth; the step is the number of real subjects"),
)
STUDY_OUTPUTS = (
    Output("value.csv", "Dice and surface distances of every training of the study, by label", tracked=True),
    Output("value_cases.csv", "the same for every test scan"),
)
_CASES = ("arm", "subjects", "seed", "part", "case", "subject", "label", *METRICS, "synthetic_scans", "seconds")
_CELLS = ("arm", "subjects", "seed", "part", "label", *METRICS, "cases", "synthetic_scans", "seconds")


def run_cells(
    config: LabelledRunConfig,
    results: Results,
    run: RunContext,
    material: Callable[[int, CohortSplit], Material],
) -> list[Row]:
    """Every cell of the configured study, kept in the run's checkpoints, each a child of the stage at work.

    Args:
        config: What to run.
        results: With the cohort and its parts.
        run: The run.
        material: Number of subjects and parts with so many → what its cells train on.
    """
    prepared, parts = results[PreparedCohort], results[CohortSplit]
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
    with run.bars() as tick:
        finished = 0

        def done(name: str, means: Mapping[str, float], span: tuple[int, int] | None) -> None:
            nonlocal finished
            finished += 1
            tick("value study", finished, cells)
            if span is None:
                with run.child(name) as cell:
                    cell.stage.log_metrics(means)
            else:
                run.stage.past(f"{name}{run.suffix}", *span, means)

        return run_study(
            spaced(value, prepared.preprocess),
            materials,
            held_out(prepared, parts, "test"),
            prepared.labels,
            validation=held_out(prepared, parts, "validation") if "validation" in prepared.data else None,
            seed=run.derive("study"),
            device=config.device,
            spread=config.spread,
            store=run.folder.checkpoints / "value",
            done=done,
        )


def _start_record(study: ValueConfig, prepared: PreparedCohort) -> dict[str, Any] | None:
    """What every segmenter of the study has taken from a trained one."""
    if study.init is None:
        return None
    images = prepared.data["labelled"].images
    start = segmenter_start(study.init, study.segmenter, images, prepared.labels)
    return start.record(study.segmenter.model(images.shape[1:], len(prepared.labels) + 1))


def spaced(study: ValueConfig, preprocess: Preprocess) -> ValueConfig:
    """The study with an ordinary augmentation that knows the voxel size, unless the configuration says another one."""
    if study.augment.spacing is not None:
        return study
    augment = study.augment.model_copy(update={"spacing": preprocess.spacing})
    return study.model_copy(update={"augment": augment})


def judged(rows: Sequence[Row], config: LabelledRunConfig, results: Results, notes: Sequence[str] = ()) -> StudyResults:
    """What the rows of a study say, with what its report needs."""
    prepared, parts = results[PreparedCohort], results[CohortSplit]
    test = held_out(prepared, parts, "test")
    numbers = sorted({int(row["subjects"]) for row in rows})
    blind = {
        number: blind_dice(prepared.sources(parts.fewer(number)).labelled, test, prepared.labels) for number in numbers
    }
    learning = Learning(config.value.segmenter.steps, blind)
    return StudyResults(
        judgement=judge(rows, config.seed, config.value.bootstrap, learning=learning),
        config=config.value,
        label_names=prepared.label_names,
        subjects={name: len(parts.named()[name].subjects) for name in ("validation", "test") if name in parts.named()},
        notes=tuple(notes),
        start=_start_record(config.value, prepared),
    )


def track_verdict(track: tracking.Run, results: StudyResults) -> None:
    """The verdict as a tag, and by number of real subjects its differences and what the scans are worth."""
    track.set_tags({"medgen.verdict": results.judgement.word, **source_tags(results.start)})
    for item in results.judgement.verdicts:
        track.log_metrics({"value.dice_difference_by_subjects": item.difference.estimate}, item.subjects)
    for worth in results.judgement.worths:
        track.log_metrics({f"value.worth.{worth.reference}": worth.estimate}, worth.subjects)


def study_summary(results: StudyResults) -> dict[str, Any]:
    """The numbers that the report's first screen tells the verdict by, by :data:`STUDY_KEYS`."""
    told = decisive(results)
    if told is None:
        return {}
    means = {(item.arm, item.subjects): item.interval for item in results.judgement.summaries if is_mean_dice(item)}
    return {
        "value.dice": means[told.arm, told.subjects],
        "value.dice_ordinary": means[told.ordinary, told.subjects],
        "value.dice_difference": told.difference,
        "value.p": told.p_holm,
        "value.trainings": told.seeds,
        "value.subjects": told.subjects,
        "value.test_subjects": results.subjects["test"],
    }


def usefulness(study: StudyResults | None) -> Usefulness:
    """The verdict that goes with synthetic scans, whether or not a study was made of them."""
    if study is None:
        sentence = "NOT MEASURED: the value study was left out; nothing says that these scans help."
        return Usefulness("NOT MEASURED", sentence)
    if study.judgement.word is not None:
        return Usefulness(study.judgement.word, study.judgement.sentence + _started(study))
    return Usefulness("NO EVIDENCE", "NO EVIDENCE: no synthetic arm could be run, since no scan passed the filter.")


def _started(study: StudyResults) -> str:
    return "" if study.start is None else f" Its segmenters started from the artifact {study.start['sha256'][:12]}."


def headline(study: StudyResults) -> tuple[str, str]:
    """The verdict of a study without generators of its own: the word and the sentence."""
    judgement = study.judgement
    if judgement.word is not None:
        return judgement.word, judgement.sentence
    best = "; ".join(f"{arm} with {number} real subjects" for number, arm in judgement.best.items())
    return "NOT MEASURED", f"NOT MEASURED: no arm had synthetic scans. Best ordinary arm: {best}."


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


def write_value(out: Path, rows: Sequence[Row]) -> None:
    """Write ``value.csv``, one row per cell, part and label (and their mean), and ``value_cases.csv``, one per case."""
    write_csv(out / "value_cases.csv", rows, _CASES)
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
    write_csv(out / "value.csv", summary, _CELLS)


def study_cells(config: LabelledRunConfig) -> int:
    """Segmenters that a study trains."""
    value = config.value
    ordinary = sum(Arm.parse(name).source is None for name in value.arms)
    extra = len(set(value.real_only) - set(value.subjects))
    return (len(value.subjects or (0,)) * len(value.arms) + extra * ordinary) * value.seeds


def study_estimate(config: LabelledRunConfig, outline: Outline) -> Estimate:
    """What the study takes in computing time, measured on a few steps; ``workers`` cells share it on a CPU."""
    cells = study_cells(config)
    found = segmenter_estimate("value study", config.value.segmenter, outline, config.device, cells)
    return replace(found, lines=(*found.lines, *config.spread_lines("value study", cells)))
