"""From the rows of a value study to intervals and one word: USE, HARMFUL or NO EVIDENCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from medgen.errors import DataError
from medgen.metrics.bootstrap import hierarchical_bootstrap, hierarchical_draws, holm, tail_p
from medgen.metrics.interval import Interval, percentile_interval
from medgen.segmentation.ordinary import available, needs_unlabelled
from medgen.synthesis.value.arms import STANDARD, Arm
from medgen.synthesis.value.tables import METRICS, TEST, VALIDATION, Row, by_arm, of_part, table
from medgen.synthesis.value.undecided import PLAIN, Learning, counted, harm_without_scans
from medgen.synthesis.value.worth_in_subjects import Worth, best_over_sizes, worth

# With two seeds a study without any effect said USE in 4 % of simulations, twice the nominal share.
ENOUGH_SEEDS = 5
Word = Literal["USE", "HARMFUL", "NO EVIDENCE"]
Role = Literal["verdict", "other", "same scans", "standard"]


@dataclass(frozen=True)
class Summary:
    """One arm of a study, on the test subjects.

    Attributes:
        arm: Name.
        subjects: Number of real labelled subjects.
        metric: ``dice``, ``hd95_mm`` or ``nsd``.
        label: Label number, or None for the mean over labels.
        interval: Mean over seeds and test subjects.
    """

    arm: str
    subjects: int
    metric: str
    label: int | None
    interval: Interval


@dataclass(frozen=True)
class Choice:
    """The synthetic arm that the verdict is about, for one number of real subjects.

    Attributes:
        subjects: Number of real labelled subjects.
        arm: The arm.
        on: ``validation``, or ``order`` (the first one) where there are no validation subjects.
        scores: Mean validation Dice of every synthetic arm; empty without validation subjects.
    """

    subjects: int
    arm: str
    on: Literal["validation", "order"]
    scores: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """A synthetic arm against an ordinary one, on the test subjects.

    Attributes:
        arm: The synthetic arm.
        ordinary: The ordinary arm.
        subjects: Number of real labelled subjects.
        role: ``verdict``: the chosen synthetic arm against the ordinary arm with the highest mean Dice on the same
            test subjects, which favours the ordinary arm. ``other``: another synthetic arm against it.
            ``same scans``: the chosen arm against the best of the ordinary arms that learnt from the same unlabelled
            scans, ``standard``: against standard augmentation, where these are not the best one.
        difference: Mean Dice difference over seeds and test subjects, paired, with its interval at the stated level,
            not adjusted for the number of comparisons.
        p: Two-sided p-value from the same resamples.
        p_holm: Adjusted by Holm's procedure: the comparisons of the role ``verdict`` among themselves, all others
            among themselves.
        word: What ``p_holm`` and the sign of the difference say; ``NO EVIDENCE`` if ``undecided`` says something.
        seeds: Repetitions behind it.
        undecided: Why such a study cannot decide; empty if it can.
        base: The ordinary arm that the synthetic arm trains by (``standard`` of ``standard+synthetic``), if it is
            another one than ``ordinary`` and was run; else empty.
        base_difference: That arm minus ``ordinary``: the part of the difference that is not of synthetic scans.
    """

    arm: str
    ordinary: str
    subjects: int
    role: Role
    difference: Interval
    p: float
    p_holm: float
    word: Word
    seeds: int
    undecided: str = ""
    base: str = ""
    base_difference: Interval | None = None

    @property
    def of_the_base(self) -> str:
        """That part of a harm is of the ordinary arm underneath, without synthetic scans; empty where it is not."""
        below = self.base_difference
        if self.word != "HARMFUL" or below is None or below.high >= 0:
            return ""
        sign = ", as after too few steps" if self.ordinary == PLAIN else ""
        return (
            f" ({self.base} alone, without synthetic scans, loses {-below.estimate:.4f} "
            f"[{-below.high:.4f}, {-below.low:.4f}]{sign})"
        )

    @property
    def sentence(self) -> str:
        """The result in words."""
        d = self.difference
        size = f"mean Dice {d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}] ({d.level:.0%} interval"
        which = {
            "verdict": "the best ordinary arm",
            "other": "the best ordinary arm",
            "same scans": "the best ordinary arm that saw the same unlabelled scans",
            "standard": "standard augmentation",
        }[self.role]
        meaning = {
            "USE": "the synthetic scans helped",
            "HARMFUL": f"the synthetic scans made segmentation worse; do not train with them{self.of_the_base}",
            "NO EVIDENCE": "the difference may be chance; there is no evidence that the synthetic scans help",
        }[self.word]
        if self.undecided:
            meaning = f"the study cannot decide: {self.undecided}"
        elif self.word != "NO EVIDENCE" and self.seeds < ENOUGH_SEEDS:
            meaning += (
                f", unless {ENOUGH_SEEDS} or more seeds say otherwise (with {counted(self.seeds, 'seed')} words come "
                "too easily)"
            )
        named = which if self.role == "standard" else f"{self.ordinary}, {which},"
        return (
            f"{self.word}: {self.arm}, {size}; p = {self.p_holm:.3g} after Holm) against {named} with "
            f"{self.subjects} real subjects: {meaning}."
        )


@dataclass(frozen=True)
class Judgement:
    """Everything that is concluded from a study's rows.

    Attributes:
        summaries: Mean and interval per arm, number of subjects, label and metric.
        choices: The synthetic arm that the verdict is about, per number of subjects; empty without synthetic arms.
        best: Number of subjects → ordinary arm with the highest mean test Dice.
        comparisons: Those of the role ``verdict`` first, by number of subjects.
        worths: Worth in real subjects of the chosen arms, on the curves of ``standard`` and of the best ordinary arm.
        learning: Whether the segmenters have learnt anything; None if that was not asked.
    """

    summaries: tuple[Summary, ...]
    choices: tuple[Choice, ...]
    best: dict[int, str]
    comparisons: tuple[Comparison, ...]
    worths: tuple[Worth, ...]
    learning: Learning | None = None

    @property
    def verdicts(self) -> tuple[Comparison, ...]:
        """The comparisons that decide, one per number of subjects."""
        return tuple(item for item in self.comparisons if item.role == "verdict")

    @property
    def word(self) -> Word | None:
        """HARMFUL if any number of subjects says so, else USE if any does; None without synthetic arms."""
        words = {item.word for item in self.verdicts}
        order: tuple[Word, ...] = ("HARMFUL", "USE", "NO EVIDENCE")
        return next((word for word in order if word in words), None)

    @property
    def sentence(self) -> str:
        """The verdict in words, over all numbers of subjects; empty without synthetic arms."""
        verdicts = self.verdicts
        if len(verdicts) == 1:
            return verdicts[0].sentence
        parts = []
        for word in ("HARMFUL", "USE", "NO EVIDENCE"):
            numbers = [str(item.subjects) for item in verdicts if item.word == word]
            if numbers:
                parts.append(f"{word} with {listed(numbers)}")
        if not parts:
            return ""
        said = f"{'; '.join(parts)} real subjects, against the best ordinary arm of each."
        open_ = [
            f"With {item.subjects} the study cannot decide: {item.undecided}." for item in verdicts if item.undecided
        ]
        return " ".join([said, *open_, *([self.caution] if self.caution else [])])

    @property
    def caution(self) -> str:
        """That there are too few seeds to rely on a word, if one was said; else empty."""
        seeds = min((item.seeds for item in self.comparisons), default=ENOUGH_SEEDS)
        if seeds >= ENOUGH_SEEDS:
            return ""
        return (
            f"{counted(seeds, 'seed')} cannot show how much trainings differ by chance: intervals are too narrow, "
            f"and words come too easily. USE and HARMFUL hold here until {ENOUGH_SEEDS} or more seeds say otherwise."
        )


def judge(
    rows: Sequence[Row], seed: int, bootstrap: int, level: float = 0.95, *, learning: Learning | None = None
) -> Judgement:
    """Everything that is said about a study.

    Args:
        rows: What :func:`medgen.synthesis.value.study.run_study` returned: a row per cell, held-out case and label.
        seed: Seed of the random resampling; equal seeds give equal results.
        bootstrap: Resamples.
        level: Confidence level.
        learning: What tells whether the segmenters have learnt anything; None does not ask.
    """
    choices = choose(rows)
    test = of_part(rows, TEST)
    worths = []
    for choice in choices:
        references = list(dict.fromkeys(name for name in (STANDARD, _steady(test)) if name is not None))
        found = [worth(test, choice.arm, choice.subjects, name, seed, bootstrap, level) for name in references]
        worths += [item for item in found if item is not None]
    return Judgement(
        summaries=tuple(summarise(rows, seed, bootstrap, level)),
        choices=tuple(choices),
        best=best_ordinary(rows),
        comparisons=tuple(compare(rows, seed, bootstrap, level, learning=learning)),
        worths=tuple(worths),
        learning=learning,
    )


def summarise(rows: Sequence[Row], seed: int, bootstrap: int, level: float = 0.95) -> list[Summary]:
    """Mean and interval of every metric on the test subjects, for every arm, number of subjects and label."""
    summaries = []
    for subjects, arms in by_arm(of_part(rows, TEST)).items():
        for arm, own in arms.items():
            for label in (None, *sorted({row["label"] for row in own})):
                chosen = [row for row in own if label in (None, row["label"])]
                for metric in METRICS:
                    interval = hierarchical_bootstrap(table(chosen, metric), n=bootstrap, seed=seed, level=level)
                    summaries.append(Summary(arm, subjects, metric, label, interval))
    return summaries


def choose(rows: Sequence[Row]) -> list[Choice]:
    """The synthetic arm with the highest mean validation Dice, for every number of subjects; test rows are not read.

    Without validation rows the first synthetic arm is taken, which is a choice made before anything was measured.
    """
    validation = by_arm(of_part(rows, VALIDATION))
    choices = []
    for subjects, arms in by_arm(rows).items():
        synthetic = [arm for arm in arms if Arm.parse(arm).source is not None]
        if not synthetic:
            continue
        measured = validation.get(subjects, {})
        scores = {arm: float(table(measured[arm], "dice").mean()) for arm in synthetic if arm in measured}
        if scores:
            choices.append(Choice(subjects, max(scores, key=scores.__getitem__), "validation", scores))
        else:
            choices.append(Choice(subjects, synthetic[0], "order", {}))
    return choices


def best_ordinary(rows: Sequence[Row]) -> dict[int, str]:
    """Number of subjects → ordinary arm with the highest mean Dice on the test subjects.

    It is taken on the test subjects themselves, which favours it: the largest of several noisy means is too large on
    average, and a synthetic arm has to beat that.
    """
    best = {}
    for subjects, arms in by_arm(of_part(rows, TEST)).items():
        means = {arm: float(table(own, "dice").mean()) for arm, own in arms.items() if Arm.parse(arm).source is None}
        if means:
            best[subjects] = max(means, key=means.__getitem__)
    return best


def compare(
    rows: Sequence[Row], seed: int, bootstrap: int, level: float = 0.95, *, learning: Learning | None = None
) -> list[Comparison]:
    """Synthetic arms against ordinary arms with the same real subjects; see :class:`Comparison` for which.

    Seeds and test subjects are both resampled, in pairs: arms share seeds' streams and test scans.

    Args:
        rows: What :func:`medgen.synthesis.value.study.run_study` returned: a row per cell, held-out case and label.
        seed: Seed of the random resampling; equal seeds give equal results.
        bootstrap: Resamples.
        level: Confidence level of each interval, and of each family of words.
        learning: What tells whether the segmenters have learnt anything; None does not ask.

    Returns:
        Those of the role ``verdict`` first, by number of subjects; empty if there is no synthetic arm.

    Raises:
        DataError: If a synthetic arm has no ordinary arm to be compared with, or the study is incomplete.
    """
    best = best_ordinary(rows)
    groups = by_arm(of_part(rows, TEST))
    pairs: list[tuple[Role, int, str, str]] = []
    for choice in choose(rows):
        subjects, arms = choice.subjects, groups[choice.subjects]
        if subjects not in best:
            raise DataError("the study has no ordinary arm to compare with; add standard to value.arms")
        top = best[subjects]
        pairs.append(("verdict", subjects, choice.arm, top))
        others = [arm for arm in arms if Arm.parse(arm).source is not None and arm != choice.arm]
        pairs += [("other", subjects, arm, top) for arm in others]
        means = {arm: float(table(own, "dice").mean()) for arm, own in arms.items() if _same_scans(arm)}
        if means and (rival := max(means, key=means.__getitem__)) != top:
            pairs.append(("same scans", subjects, choice.arm, rival))
        if STANDARD in arms and top != STANDARD:
            pairs.append(("standard", subjects, choice.arm, STANDARD))
    measured: list[Comparison] = []
    for role, subjects, arm, ordinary in pairs:
        first, second = (table(groups[subjects][name], "dice") for name in (arm, ordinary))
        if first.shape != second.shape:
            raise DataError(f"the study is incomplete: {arm} and {ordinary} were not run with the same seeds")
        base = Arm.parse(arm).ordinary or ""
        tables = [first - second]
        if base in groups[subjects] and base != ordinary:
            under = table(groups[subjects][base], "dice")
            tables += [under - second, first - under]
        draws = hierarchical_draws(tables, bootstrap, seed)
        difference, *split = (
            percentile_interval(float(values.mean()), drawn, first.shape[1], level)
            for values, drawn in zip(tables, draws, strict=True)
        )
        best_dice = float(table(groups[subjects][best[subjects]], "dice").mean())
        undecided = "" if learning is None else learning.missing(subjects, best[subjects], best_dice)
        if split and not undecided:
            undecided = harm_without_scans(difference, *split, names=(arm, base, ordinary))
        p = tail_p(draws[0])
        found = Comparison(arm, ordinary, subjects, role, difference, p, p, "NO EVIDENCE", len(first), undecided)
        measured.append(replace(found, base=base, base_difference=split[0]) if split else found)
    results = []
    for deciding in (True, False):
        family = [item for item in measured if (item.role == "verdict") == deciding]
        adjusted = holm([item.p for item in family]) if family else []
        for item, p_holm in zip(family, adjusted, strict=True):
            said = "NO EVIDENCE" if item.undecided else word(item.difference.estimate, p_holm, 1 - level)
            results.append(replace(item, p_holm=p_holm, word=said))
    return results


def word(difference: float, p: float, alpha: float = 0.05) -> Word:
    """USE or HARMFUL, by the sign of the difference, if the p-value is at most ``alpha``, else NO EVIDENCE.

    >>> word(0.01, 0.004), word(0.01, 0.2), word(-0.01, 0.004)
    ('USE', 'NO EVIDENCE', 'HARMFUL')
    """
    if p > alpha + 1e-12:
        return "NO EVIDENCE"
    return "USE" if difference > 0 else "HARMFUL"


def listed(names: Sequence[str]) -> str:
    """Names as they stand in a sentence.

    >>> listed(["5", "10", "20"]), listed(["5"])
    ('5, 10 and 20', '5')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _same_scans(arm: str) -> bool:
    parsed = Arm.parse(arm)
    known = parsed.source is None and parsed.ordinary in available()
    return known and parsed.ordinary is not None and needs_unlabelled(parsed.ordinary)


def _steady(rows: Sequence[Row]) -> str | None:
    """The best ordinary arm over all numbers of subjects."""
    means: dict[str, dict[int, float]] = {}
    for subjects, arms in by_arm(rows).items():
        for arm, own in arms.items():
            if Arm.parse(arm).source is None:
                means.setdefault(arm, {})[subjects] = float(table(own, "dice").mean())
    return best_over_sizes(means)
