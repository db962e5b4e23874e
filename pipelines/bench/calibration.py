"""The calibration played through on simulated cohorts: realised false-positive rates as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from medgen.anomaly.evaluation import simulated_groups
from medgen.anomaly.evaluation.simulated_groups import EFFECTS, GroupRates
from medgen.anomaly.evaluation.simulated_intervals import POPULATIONS, Coverage, simulated_intervals
from medgen.anomaly.evaluation.simulated_rates import Rate, simulated_rates
from medgen.progress import bars
from medgen.report.html import fmt
from medgen.runs.folder import RunSummary
from medgen.system.files import plain, write_json, write_text

SUBJECTS = (19, 29, 99)
TARGETS = (0.05, 0.1, 0.2)
# Expected false findings per healthy scan, and for how many subjects their interval is tried.
LEVELS = (0.5, 1.0)
FEW = (10, 19, 40)
# Each of these calibrations is followed by a thousand new scans, so fewer of them tell as much.
_SHARE = 2
# Subjects and target of the rates by group, for each of which cohorts are fitted twice.
BY_GROUP = (20, 40, 80)
GROUP_TARGET = 0.1
_GROUP_SHARE = 5
# Of what the models add to a map of their own, where subjects vary by 1.
MODEL_NOISE = (0.0, 0.5, 1.0)


def run(out: Path, *, cohorts: int, seed: int, progress: bool) -> RunSummary:
    """Simulate and write ``calibration.md`` and ``calibration.json``.

    Args:
        out: Folder of the two files.
        cohorts: Simulated cohorts for every number of subjects and every noise of the models.
        seed: Seed of the simulation.
        progress: Show progress bars.
    """
    found: list[tuple[float, Rate]] = []
    with bars(progress) as tick:
        jobs = [(noise, subjects) for noise in MODEL_NOISE for subjects in SUBJECTS]
        for noise, subjects in jobs:
            step = partial(tick, f"{subjects} subjects, models {noise:g}")
            found += [
                (noise, rate)
                for rate in simulated_rates(
                    subjects, TARGETS, cohorts, seed, model_noise=noise, progress=step, levels=LEVELS
                )
            ]
        covered = []
        for population in POPULATIONS:
            for subjects in FEW:
                step = partial(tick, f"intervals, {subjects} subjects, {population}")
                covered += simulated_intervals(population, subjects, LEVELS, max(2, cohorts // _SHARE), seed, step)
        groups: list[GroupRates] = []
        for subjects in BY_GROUP:
            for effect in EFFECTS:
                step = partial(tick, f"groups, {subjects} subjects, {effect.covariate}")
                groups += simulated_groups.simulated_groups(
                    effect, subjects, GROUP_TARGET, max(2, cohorts // _GROUP_SHARE), seed, progress=step
                )
    out.mkdir(parents=True, exist_ok=True)
    rows = [{"model_noise": noise, **plain(rate)} for noise, rate in found]
    write_json(
        out / "calibration.json",
        {"cohorts": cohorts, "seed": seed, "rates": rows, "intervals": covered, "groups": groups},
    )
    write_text(out / "calibration.md", table(found, covered, groups, cohorts, seed))
    above = [rate for _, rate in found if rate.realised.low > rate.target]
    verdict = f"{len(above)} of {len(found)} rates are too high" if above else f"{len(found)} rates, none too high"
    worst = min(item.covered.estimate for item in covered)
    verdict += f"; stated intervals hold in at least {100 * worst:.0f} % of calibrations"
    lines = (f"{verdict} ({cohorts} cohorts each, 95 % intervals)", f"{out / 'calibration.md'}")
    return RunSummary(out, 0, lines)


def table(
    found: Sequence[tuple[float, Rate]],
    covered: Sequence[Coverage],
    groups: Sequence[GroupRates],
    cohorts: int,
    seed: int,
) -> str:
    """The rates and intervals as a page in Markdown."""
    lines = [
        "# Realised false-positive rates of the calibration, simulated",
        "",
        f"`medgen bench calibration OUT --cohorts {cohorts} --seed {seed}`: {cohorts} cohorts for each line, one new "
        "healthy subject each; see `medgen/anomaly/evaluation/simulated_rates.py` for what is simulated. models: "
        "standard deviation of what each fold's model adds to a map, where subjects vary by 1. attainable: the largest "
        "rate at most the target that p-values in steps of 1/(n + 1) can have. Brackets: exact 95 % intervals.",
        "",
        "| models | subjects | target | attainable | family-wise (max) | scan score (top) |",
        "|---|---|---|---|---|---|",
    ]
    by_key = {(noise, rate.subjects, rate.target, rate.score): rate for noise, rate in found}
    shares = [(noise, rate) for noise, rate in found if rate.score != "findings"]
    for noise, subjects, target in dict.fromkeys((noise, rate.subjects, rate.target) for noise, rate in shares):
        first, second = (by_key[noise, subjects, target, score] for score in ("max", "top"))
        lines.append(
            f"| {noise:g} | {subjects} | {target:g} | {first.attainable:.3f} | {fmt(first.realised)} | "
            f"{fmt(second.realised)} |"
        )
    lines += [
        "",
        "## False findings per healthy scan",
        "",
        "The same cohorts: findings of the new healthy subject at a level of expected false findings.",
        "",
        "| models | subjects | level | attainable | false findings |",
        "|---|---|---|---|---|",
        *(
            f"| {noise:g} | {rate.subjects} | {rate.target:g} | {rate.attainable:.3f} | {fmt(rate.realised)} |"
            for noise, rate in found
            if rate.score == "findings"
        ),
        "",
        "## The interval that a calibration states",
        "",
        f"{max(2, cohorts // _SHARE)} calibrations for each line, each followed by new healthy scans: see "
        "`medgen/anomaly/evaluation/simulated_intervals.py`. mean: false findings per new healthy scan, on average "
        "over calibrations. spread: the middle 90 % of the calibrations' own rates. covered: share of calibrations "
        "whose stated 95 % interval holds their rate. width: mean width of it.",
        "",
        "| population | subjects | level | mean | spread | covered | width |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {item.population} | {item.subjects} | {item.level:g} | {fmt(item.mean)} | {item.spread[0]:.2f} to "
            f"{item.spread[1]:.2f} | {fmt(item.covered)} | {item.width:.2f} |"
            for item in covered
        ),
        "",
        "## Rates by age, sex and scanner",
        "",
        f"{max(2, cohorts // _GROUP_SHARE)} cohorts for each pair of lines, target {GROUP_TARGET:g}: see "
        "`medgen/anomaly/evaluation/simulated_groups.py`. mean, spread: what the covariate does to the mean at half of "
        "the places, in standard deviations, and to the logarithm of the standard deviation. Then shares of new people "
        "flagged by their hottest voxel: the youngest third or the first value, the oldest third or the second. found: "
        "the same of all of them with a hot spot.",
        "",
        *simulated_groups.table(groups),
    ]
    return "\n".join(lines) + "\n"
