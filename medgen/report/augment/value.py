"""What a value study says about itself: sentences, table, learning curve, differences; for every report with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medgen.metrics.interval import Interval
from medgen.report.figures.curves import interval_plot, learning_curve
from medgen.report.html import Kind, Report, fmt, png
from medgen.report.start import start_section
from medgen.runs.folder import RunFolder
from medgen.segmentation.ordinary import available, describe
from medgen.synthesis.value.arms import STANDARD, Arm
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.verdict import Judgement, Role, Summary
from medgen.system.files import write_bytes

KINDS: Mapping[str, Kind] = {"USE": "good", "HARMFUL": "bad", "NO EVIDENCE": "neutral"}
STUDY_LIMITS = """
- The verdict holds for this cohort, this segmenter, these numbers of real subjects and this number of steps.
- The best ordinary arm is chosen on the test subjects, which favours the ordinary arm; the synthetic arm of the \
verdict is chosen on validation subjects, or is the first one where there are none.
- Generators see the same labelled subjects as the segmenter, and unlabelled images where the cohort has them. Of the \
ordinary arms only those that learn from unlabelled scans see these too.
- The interval covers other seeds and other test subjects of the same population, not another choice of training \
subjects.
"""
_ROLES: dict[Role, str] = {
    "verdict": "decides",
    "other": "other backend",
    "same scans": "saw the same unlabelled scans",
    "standard": "standard",
}


@dataclass(frozen=True)
class StudyResults:
    """A finished study with what its report needs.

    Attributes:
        judgement: What its rows say.
        config: Its settings.
        label_names: Label → name.
        subjects: Part (``test``, ``validation``) → number of subjects.
        notes: Further sentences for the report.
        start: Record of what every segmenter started from; None for random weights.
    """

    judgement: Judgement
    config: ValueConfig
    label_names: Mapping[int, str]
    subjects: Mapping[str, int]
    notes: tuple[str, ...] = ()
    start: Mapping[str, Any] | None = None


def study_metrics(results: StudyResults) -> dict[str, Any]:
    """Every number of the study, for ``metrics.json``."""
    judged = results.judgement
    return {
        "value": [asdict(summary) for summary in judged.summaries],
        "comparisons": [{**asdict(item), "sentence": item.sentence} for item in judged.comparisons],
        "choices": [asdict(choice) for choice in judged.choices],
        "best_ordinary": {str(number): arm for number, arm in judged.best.items()},
        "worth": [{**asdict(item), "text": item.text, "sentence": item.sentence} for item in judged.worths],
        "caution": judged.caution,
        "init": results.start,
        "learning": None if judged.learning is None else asdict(judged.learning),
    }


def study_lines(results: StudyResults) -> list[str]:
    """The study as text, for the terminal."""
    if not results.judgement.summaries:
        return []
    columns, rows = _table(results)
    widths = [max(len(str(row[k])) for row in [columns, *rows]) for k in range(len(columns))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [columns, *rows]
    ]
    judged = results.judgement
    return [*lines, *(item.sentence for item in judged.comparisons), *(item.sentence for item in judged.worths)]


def study_section(report: Report, results: StudyResults, folder: RunFolder) -> None:
    """The section of the report; its figures are also written to ``figures/``."""
    config, judged = results.config, results.judgement
    where = f"{results.subjects['test']} test subjects"
    report.section(
        "Value study",
        f"The same U-Net, {config.segmenter.steps} steps of {config.segmenter.batch_size} scans and {config.seeds} "
        f"seeds for every arm, tested in native space on {where} that nothing was trained on.",
    )
    if not judged.summaries:
        report.text("No arm was run.")
        return
    start_section(report, results.start, "value.init")
    for note in results.notes:
        report.text(note)
    if judged.caution:
        report.text(judged.caution)
    for item in judged.verdicts:
        report.text(item.sentence)
    curve = _curve(judged)
    if curve is not None:
        figure = learning_curve(*curve, xlabel="real labelled subjects", ylabel="mean Dice", title="Learning curve")
        write_bytes(folder.figures / "learning-curve.png", png(figure))
        caption = (
            f"Dice over the number of real subjects, with 95 % intervals over seeds and {where}. Most of their width "
            "is the difference between test subjects, which all arms share; the paired differences below leave it out."
        )
        report.figure(figure, caption, "Learning curves of the ordinary arms and of the chosen synthetic arm")
    for worth in judged.worths:
        report.text(worth.sentence)
    if judged.worths:
        report.text(
            "The worth is read on the ordinary arm's learning curve, made monotone and linear in the logarithm of the "
            "number of subjects, in the same resamples; beyond the ends of the curve nothing is extrapolated."
        )
    _differences(report, results, folder)
    report.section("Numbers of the value study", layer="appendix")
    columns, rows = _table(results)
    bold = [row for row, (arm, number, *_) in enumerate(rows) if _marked(judged, arm, int(number))]
    caption = (
        f"Mean [95 % interval] over seeds and {where}, both resampled. Dice is the mean over labels. Bold: the best "
        "ordinary arm of each number of subjects and the synthetic arm of the verdict."
    )
    report.table(columns, rows, caption, highlight=bold)
    _choices(report, results)
    _comparisons(report, results)
    names = [name for name in dict.fromkeys(Arm.parse(arm).ordinary for arm in config.arms) if name in available()]
    report.table(
        ["ordinary arm", "what it is"], [(name, describe(name)) for name in names if name], "The ordinary arms in use."
    )


def _differences(report: Report, results: StudyResults, folder: RunFolder) -> None:
    comparisons = results.judgement.comparisons
    if not comparisons:
        return
    figure = interval_plot(
        [f"N = {item.subjects}: {item.arm} - {item.ordinary}" for item in comparisons],
        [item.difference for item in comparisons],
        "difference of mean Dice, 95 % interval",
        reference=0.0,
        highlight=[row for row, item in enumerate(comparisons) if item.role == "verdict"],
    )
    write_bytes(folder.figures / "differences.png", png(figure))
    report.figure(
        figure,
        "Synthetic minus ordinary arms, paired by seed and test subject. In colour: the comparisons that decide. "
        "Intervals are not adjusted for their number; the p-values below are (Holm): the deciding comparisons among "
        "themselves, the others among themselves.",
        "Differences of mean Dice with intervals",
    )


def _comparisons(report: Report, results: StudyResults) -> None:
    comparisons = results.judgement.comparisons
    if not comparisons:
        return
    report.table(
        ["real subjects", "arm", "against", "role", "difference of Dice", "p", "p (Holm)", "result"],
        [
            (item.subjects, item.arm, item.ordinary, _ROLES[item.role], item.difference, item.p, item.p_holm, item.word)
            for item in comparisons
        ],
        "Every comparison that was made, whatever it says.",
        highlight=[row for row, item in enumerate(comparisons) if item.role == "verdict"],
    )


def _choices(report: Report, results: StudyResults) -> None:
    choices = results.judgement.choices
    if not choices:
        return
    if any(choice.on == "order" for choice in choices):
        report.text("There is no validation part: the verdict is about the first synthetic arm of the configuration.")
        return
    arms = list(dict.fromkeys(arm for choice in choices for arm in choice.scores))
    report.table(
        ["real subjects", "chosen", *arms],
        [(choice.subjects, choice.arm, *(choice.scores.get(arm) for arm in arms)) for choice in choices],
        "The verdict is about the synthetic arm with the highest mean Dice on "
        f"{results.subjects['validation']} validation subjects; test subjects play no part in the choice.",
    )


def _marked(judged: Judgement, arm: str, number: int) -> bool:
    chosen = {(choice.subjects, choice.arm) for choice in judged.choices}
    return (number, arm) in chosen or judged.best.get(number) == arm


def _table(results: StudyResults) -> tuple[list[str], list[list[str]]]:
    names = results.label_names
    columns = ["arm", "real subjects", "Dice", *(f"Dice {name}" for name in names.values()), "HD95 mm", "NSD"]
    cells: dict[tuple[str, int], dict[tuple[str, int | None], Interval]] = {}
    for item in results.judgement.summaries:
        cells.setdefault((item.arm, item.subjects), {})[(item.metric, item.label)] = item.interval
    keys: list[tuple[str, int | None]] = [("dice", None), *(("dice", label) for label in names)]
    keys += [("hd95_mm", None), ("nsd", None)]
    rows = [[arm, str(number), *(fmt(found[key]) for key in keys)] for (arm, number), found in cells.items()]
    return columns, rows


def _curve(judged: Judgement) -> tuple[list[int], dict[str, Sequence[Interval | None]]] | None:
    """Sizes, and Dice of standard, of the best ordinary arm at each size, and of the chosen arm; None for one size."""
    means = {(item.arm, item.subjects): item.interval for item in judged.summaries if is_mean_dice(item)}
    sizes = sorted({number for _, number in means})
    if len(sizes) < 2:
        return None
    chosen = {choice.subjects: choice.arm for choice in judged.choices}
    series: dict[str, Sequence[Interval | None]] = {}
    lines: dict[str, Mapping[int, str]] = {
        STANDARD: dict.fromkeys(sizes, STANDARD),
        "best ordinary arm": judged.best,
        "with synthetic scans": chosen,
    }
    for name, arms in lines.items():
        values = [means.get((arms[size], size)) if size in arms else None for size in sizes]
        if any(value is not None for value in values):
            series[name] = values
    if series.get(STANDARD) == series.get("best ordinary arm"):
        del series["best ordinary arm"]
    return sizes, series


def is_mean_dice(item: Summary) -> bool:
    """Whether a summary of a study is the mean Dice over labels."""
    return bool(item.metric == "dice" and item.label is None)
