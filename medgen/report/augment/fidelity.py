"""How like real scans the synthetic ones are: the section of the report and the lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from medgen.metrics.halves import Measure
from medgen.report.figures.likeness import likeness_figure, principal_components
from medgen.report.html import Report, fmt
from medgen.synthesis.fidelity.comparison import VOLUME, Fidelity
from medgen.synthesis.fidelity.results import ALL, HELD_OUT, TRAINING, FidelityResults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAMES = {
    "kid": "distance of looks, cubic kernel (KID)",
    "mmd": "distance of looks, Gaussian kernel (MMD²)",
    "density": "how densely real scans lie around synthetic ones (density)",
    "coverage": "share of real scans with a synthetic one nearby (coverage)",
    "ms_ssim": "alikeness of scans of different subjects (MS-SSIM)",
}
_PLAIN = {
    "kid": "how they look",
    "mmd": "how they look",
    "density": "how near they come to real scans",
    "coverage": "how many kinds of real scan they cover",
    "ms_ssim": "variety",
}
_MEANING = {TRAINING: "the scans that generators have learnt from", HELD_OUT: "subjects that nothing was trained on"}
_MOST_ROWS, _MOST_PANELS = 12, 6
_TEXT = """
Each number stands beside what real scans reach. Real scans are split into halves by subject many times. The column
real against real compares the two halves; the floor is the size that a distance has between two halves (root mean
square), and for the other numbers the real value itself. A ratio of 1 is as good as real. Goals: KID and MMD at most
3 times the floor, coverage at least 0.7, MS-SSIM within 10 % of real (more means that scans repeat themselves).
Intervals are 95 %; "not sure" says that the interval crosses the goal.

A likeness to training scans can also come from copying them; that is what the filter's copy check and the comparison
with held-out subjects are for.
"""


def section_fidelity(report: Report, results: FidelityResults, label_names: Mapping[int, str]) -> None:
    """Tables per real set, the statistics that differ, and one figure."""
    report.section("How like real scans are they?", _TEXT, layer="appendix")
    for name, count in results.short.items():
        report.text(
            f"**{name}** has {count} accepted scans. It is not measured: at least {results.fewest} are needed "
            "(`fidelity.fewest`)."
        )
    if not results.comparisons:
        return
    report.facts({"features": results.source})
    for real in (TRAINING, HELD_OUT):
        items = [item for item in results.comparisons if item.real == real]
        if not items:
            continue
        rows = [
            (
                item.synthetic,
                _measure_name(measure, label_names),
                measure.synthetic,
                measure.real,
                measure.ratio,
                goal_words(measure),
            )
            for item in items
            for measure in item.measures
        ]
        first = items[0]
        report.table(
            ["synthetic scans", "measure", "synthetic", "real against real", "ratio to floor", "goal"],
            rows,
            f"Against {real} scans ({_MEANING[real]}): {first.real_scans} scans of {first.subjects} subjects, "
            f"{first.labelled} of them with labels. Synthetic: "
            f"{', '.join(f'{item.synthetic} {item.scans}' for item in items)}.",
        )
        if not math.isfinite(first.measures[0].floor):
            report.text(f"There are too few {real} subjects ({first.subjects}) to split them: no floor can be given.")
    _statistics(report, results, label_names)
    _figure(report, results, label_names)


def fidelity_lines(results: FidelityResults) -> list[str]:
    """One line per backend for the terminal: what meets its goal, and what does not."""
    lines = [
        f"{name}: {count} accepted scans, too few to compare with real scans (at least {results.fewest})"
        for name, count in results.short.items()
    ]
    for item in _strictest(results):
        parts = [f"{_printed_name(m)} {fmt(_judged(m))}: {goal_words(m)}" for m in item.measures if m.goal is not None]
        lines.append(f"{item.synthetic}, likeness to {item.real} scans: {'; '.join(parts)}")
    return lines


def unmet_goals(results: FidelityResults) -> dict[str, list[str]]:
    """Generator → the goals of likeness that it clearly misses, each in words with the number and the goal.

    Compared as in :func:`fidelity_lines`; a goal that the interval crosses is not named.
    """
    return {
        item.synthetic: [
            f"{_PLAIN.get(m.name, m.name)} ({_plain_number(m)}; goal {_goal(m)})"
            for m in item.measures
            if m.met is False and m.sure
        ]
        for item in _strictest(results)
    }


def _plain_number(measure: Measure) -> str:
    number = fmt(_judged(measure))
    return (
        f"{measure.name}: {number} times what two halves of the real scans reach"
        if measure.judged == "ratio"
        else (f"{measure.name}: {number}")
    )


def _printed_name(measure: Measure) -> str:
    """What the printed number is: the measure itself, or its ratio to what real scans reach."""
    return f"{measure.name} / floor" if measure.judged == "ratio" else measure.name


def goal_words(measure: Measure) -> str:
    """Whether the goal is met, and how surely; a dash where there is no goal."""
    if measure.goal is None:
        return "\N{EN DASH}"
    bound = _goal(measure)
    what = "ratio" if measure.judged == "ratio" else "value"
    if measure.met is None:
        return f"cannot be judged ({what} {bound})"
    return f"{'met' if measure.met else 'not met'}{'' if measure.sure else ', not sure'} ({what} {bound})"


def _goal(measure: Measure) -> str:
    low, high = measure.goal or (-math.inf, math.inf)
    if math.isfinite(low + high):
        return f"{low:g} to {high:g}"
    return f"at most {high:g}" if low < 0 else f"at least {low:g}"


def _strictest(results: FidelityResults) -> list[Fidelity]:
    """One comparison per backend: with held-out scans if there are any, where copies cannot pass for likeness."""
    chosen = {item.synthetic: item for item in results.comparisons if item.synthetic != ALL}
    held_out = {item.synthetic: item for item in results.comparisons if item.real == HELD_OUT}
    return [held_out.get(name, item) for name, item in chosen.items()]


def _judged(measure: Measure) -> float:
    return (measure.ratio if measure.judged == "ratio" else measure.synthetic).estimate


def _measure_name(measure: Measure, label_names: Mapping[int, str]) -> str:
    kind, _, label = measure.name.partition("volume_")
    if kind or not label:
        return _NAMES[measure.name]
    return f"volume of {label_names[int(label)]}, mm³ moved (Wasserstein)"


def _statistics(report: Report, results: FidelityResults, label_names: Mapping[int, str]) -> None:
    items = _strictest(results)
    rows = [
        (
            item.synthetic,
            label_names[row.label],
            row.statistic,
            f"{fmt(row.real[0])} ± {fmt(row.real[1])}",
            f"{fmt(row.synthetic[0])} ± {fmt(row.synthetic[1])}",
            row.difference,
            row.ks,
            row.ks_real,
        )
        for item in items
        for row in sorted((row for row in item.statistics if row.unlike), key=lambda row: -abs(row.difference))
    ]
    total = sum(math.isfinite(row.ks_real) for item in items for row in item.statistics)
    if not total:
        report.text("There are too few labelled subjects to judge size, shape and brightness of the labels.")
        return
    real = " and ".join(dict.fromkeys(item.real for item in items))
    text = (
        f"Size, shape and brightness of the labels: {len(rows)} of {total} statistics differ from labelled {real} "
        "scans more than 95 % of their halves differ from each other; `fidelity.csv` has all of them."
    )
    report.text(text)
    if rows:
        columns = ["synthetic scans", "label", "statistic", "real", "synthetic", "standardised difference"]
        report.table(
            [*columns, "KS distance", "KS of real halves"],
            rows[:_MOST_ROWS],
            "The largest differences. Mean ± standard deviation, brightness in model units; KS is the largest gap "
            "between the distribution functions.",
        )


def _figure(report: Report, results: FidelityResults, label_names: Mapping[int, str]) -> None:
    sets = [name for name in results.described if name != ALL]
    reference = results.described[TRAINING]
    others = [name for name in sets if name != TRAINING]
    points = principal_components(reference.features, [results.described[name].features for name in others])
    shown = list(reference.statistics)[:_MOST_PANELS]
    which = "each label" if len(shown) == len(reference.statistics) else f"the first {len(shown)} labels"
    labelled = [results.described[name] for name in sets if results.described[name].labelled]
    volumes: dict[str, dict[str, NDArray[np.float64]]] = {
        label_names[label]: {item.name: item.statistics[label][VOLUME] / 1000 for item in labelled} for label in shown
    }
    report.figure(
        likeness_figure(volumes, dict(zip([TRAINING, *others], points, strict=True)), "ml"),
        f"Left: volume of {which}, a dot per scan, a bar at the median. Right: features on their two main axes among "
        "training scans; synthetic dots should lie among the real ones and spread as widely.",
        "Label volumes and features of real and synthetic scans",
    )
