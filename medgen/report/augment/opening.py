"""What a run on synthetic scans says first: whether to use them, how sure that is, why, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from medgen.metrics.interval import Interval
from medgen.report.augment.fidelity import unmet_goals
from medgen.report.augment.value import KINDS, StudyResults, is_mean_dice
from medgen.report.html import Report
from medgen.synthesis.fidelity.results import FidelityResults
from medgen.synthesis.filtering.checks import check_name
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.usefulness import Usefulness
from medgen.synthesis.value.undecided import counted
from medgen.synthesis.value.verdict import ENOUGH_SEEDS, Comparison, listed

# Below half of the samples accepted, or after an alarm, a generator is named as a reason.
_FEW_ACCEPTED = 0.5


@dataclass(frozen=True, eq=False)
class Made:
    """What a run has made, besides its study.

    Attributes:
        pool: All samples with their verdicts, after the audit.
        alarms: Generator → number of alarms of its training; every generator is in it.
        audit: What was found about copies.
        refused: Why the audit refused the export; empty if it did not.
        fidelity: How like real scans they are; None if it was not measured.
        label_names: Label → name.
        untried: Generators that can be chosen and were not.
    """

    pool: CandidatePool
    alarms: Mapping[str, int]
    audit: Audit
    refused: str
    fidelity: FidelityResults | None
    label_names: Mapping[int, str]
    untried: tuple[str, ...] = ()


def opening(report: Report, verdict: Usefulness, study: StudyResults | None, made: Made | None, folder: str) -> None:
    """The first screen: the verdict in a box, some facts, why, and what next.

    Args:
        report: Before its first section.
        verdict: What goes with the scans.
        study: The value study; None if it was left out.
        made: What the run itself has made; None where scans were made elsewhere.
        folder: Name of the run's folder, for commands.
    """
    report.verdict(answer_words(verdict, study), KINDS.get(verdict.word, "neutral"))
    if made is not None and made.refused:
        report.verdict(f"**Nothing was exported**: {made.refused}.", "bad")
    facts = {} if made is None else made_facts(made)
    report.facts(facts | ({} if study is None else sure_facts(study)))
    if reasons := why_words(verdict, study, made):
        report.text("**What stands behind it**\n\n" + "\n".join(f"- {reason}" for reason in reasons))
    report.text("**Next**\n\n" + "\n".join(f"- {step}" for step in next_words(verdict, study, made, folder)))


def decisive(study: StudyResults) -> Comparison | None:
    """The comparison that the verdict is told by: of those with its word the one with most real subjects."""
    own = [item for item in study.judgement.verdicts if item.word == study.judgement.word]
    return max(own, key=lambda item: item.subjects, default=None)


def answer_words(verdict: Usefulness, study: StudyResults | None) -> str:
    """The verdict as a reader takes it: the word, what it means, and the two numbers that it compares."""
    meaning = {
        "USE": "training with these synthetic scans segments better",
        "HARMFUL": "do not train with these synthetic scans",
        "NO EVIDENCE": "nothing shows that these synthetic scans help",
        "NOT MEASURED": "whether these synthetic scans help is not known",
    }[verdict.word]
    said = f"**{verdict.word}: {meaning}.**"
    told = None if study is None else decisive(study)
    if study is None or told is None:
        return f"{said} {_why_unmeasured(verdict, study)}"
    dice = {(item.arm, item.subjects): item.interval for item in study.judgement.summaries if is_mean_dice(item)}
    own, other = (dice[name, told.subjects].estimate for name in (told.arm, told.ordinary))
    text = (
        f"{said} A segmenter trained on {counted(told.subjects, 'patient')} with them (`{told.arm}`) agrees with the "
        f"true outlines to a Dice of **{own:.3f}** (1 is perfect), without them, by the best ordinary training "
        f"(`{told.ordinary}`), to **{other:.3f}**: a difference of {_signed(told.difference)} on "
        f"{counted(study.subjects['test'], 'patient')} that nothing was trained on."
    )
    if told.undecided:
        text += f" **The study cannot decide**: {told.undecided}."
    if len(study.judgement.verdicts) > 1:
        text += f"\n\nOver all numbers of patients: {study.judgement.sentence}"
    return text


def made_facts(made: Made) -> dict[str, str]:
    """How many scans there are, and whether they copy anybody."""
    accepted, samples = len(made.pool.accepted()), len(made.pool.candidates)
    flagged = len(made.audit.flagged)
    copies = f"{flagged} found and taken out" if flagged else "none found"
    copies += " by an audit that caught the planted ones" if made.audit.valid else "; the audit is NOT valid"
    stamps = ", ".join(f"{name}: {item.stamp}" for name, item in made.audit.backends.items())
    return {
        "synthetic scans": f"{accepted} accepted of {counted(samples, 'sample')}",
        "copies of patients": copies,
        "may be shared": stamps or "nothing to share",
    }


def sure_facts(study: StudyResults) -> dict[str, str]:
    """How sure the verdict is: repetitions, test patients, and which differences would have been missed."""
    told, facts = decisive(study), {}
    if told is not None:
        smallest = (told.difference.high - told.difference.low) / 2
        facts["how sure"] = (
            f"p = {told.p_holm:.3g}, {counted(told.seeds, 'training')} of each kind, "
            f"{counted(study.subjects['test'], 'test patient')}"
        )
        if told.seeds >= ENOUGH_SEEDS:
            facts["what it would miss"] = f"true differences of less than about {smallest:.3f} Dice"
    worths = [item for item in study.judgement.worths if told is not None and item.subjects == told.subjects]
    if worths:
        facts[f"worth in real patients, by {worths[0].reference}"] = f"{worths[0].text}, of {worths[0].subjects} real"
    return facts


def why_words(verdict: Usefulness, study: StudyResults | None, made: Made | None) -> list[str]:
    """What was seen that may explain the verdict, each in a sentence; the strongest signs first."""
    reasons: list[str] = []
    told = None if study is None else decisive(study)
    if told is not None and told.of_the_base:
        reasons.append(f"Part of the loss is not of the synthetic scans{told.of_the_base}.")
    if made is None:
        return reasons
    for name, count in made.alarms.items():
        if count:
            reasons.append(f"The training of {name} raised {counted(count, 'alarm')}: see Training.")
        accepted, rejected = len(made.pool.accepted(name)), len(made.pool.rejected(name))
        if accepted < _FEW_ACCEPTED * (accepted + rejected):
            reasons.append(
                f"The filter accepted {accepted} of {accepted + rejected} samples of {name}{_most_failed(made, name)}."
            )
    if made.fidelity is not None:
        reasons += [f"{name} scans are not like real ones in {listed(goals)}." for name, goals in _unmet(made.fidelity)]
        for name, count in made.fidelity.short.items():
            reasons.append(
                f"{name} has {counted(count, 'accepted scan')}: too few to say how like real scans they are."
            )
    if not reasons and verdict.word != "USE":
        likeness = "how like real scans they are was not measured"
        if made.fidelity is not None:
            likeness = "no goal of likeness was clearly missed"
        reasons.append(f"No training raised an alarm, most samples were accepted, and {likeness}.")
    return reasons


def next_words(verdict: Usefulness, study: StudyResults | None, made: Made | None, folder: str) -> list[str]:
    """What to do with the outcome, each in a sentence."""
    told = None if study is None else decisive(study)
    steps: list[str] = []
    if verdict.word == "USE" and told is not None:
        steps.append(
            f"Train with them as `{told.arm}` did: real and synthetic scans mixed"
            + (f", {study.config.p_synthetic:.0%} synthetic in a batch." if study is not None else ".")
        )
        if made is not None:
            steps.append(
                f"`medgen augment nnunet {folder} --out nnUNet_raw --id 501 --name NAME` writes both for nnU-Net; "
                f"`medgen augment sample --model {folder}/model --out FOLDER` makes more, filtered and audited alike."
            )
    elif told is not None:
        steps.append(f"Train your segmenter by `{told.ordinary}`, without synthetic scans.")
    if study is not None and told is not None and told.seeds < ENOUGH_SEEDS:
        steps.append(
            f"Repeat with `value.seeds={ENOUGH_SEEDS}` or more before you rely on the word: "
            f"{counted(told.seeds, 'training')} of each kind cannot show how much trainings differ by chance."
        )
    if study is None:
        steps.append("Run it again with `value.enabled=true` before you train with these scans.")
    elif told is not None and verdict.word == "NO EVIDENCE" and not told.undecided:
        steps.append(
            "More test patients narrow the interval most; more synthetic scans of the same generators do not change "
            "what they show."
        )
    elif told is not None and told.undecided:
        steps.append("Let the segmenters train longer: raise `value.segmenter.steps`.")
    if verdict.word != "USE" and made is not None:
        steps += _other_generators(study, told, made)
    return steps


def _other_generators(study: StudyResults | None, told: Comparison | None, made: Made) -> list[str]:
    """Which generators to look at next: one of this run that came off better, or those that were not tried."""
    steps = []
    others = (
        []
        if study is None or told is None
        else [item for item in study.judgement.comparisons if item.role == "other" and item.subjects == told.subjects]
    )
    better = [item for item in others if told is not None and item.difference.estimate > told.difference.estimate]
    if better:
        best = max(better, key=lambda item: item.difference.estimate)
        steps.append(
            f"Of this run's other mixtures `{best.arm}` came off better on the test patients "
            f"({_signed(best.difference)}); that was seen after the fact: confirm it in a run of its own."
        )
    if made.untried:
        steps.append(f"Generators that were not tried: {listed(list(made.untried))} (`generators`).")
    return steps


def _why_unmeasured(verdict: Usefulness, study: StudyResults | None) -> str:
    if study is None:
        return "The value study was left out."
    _, _, rest = verdict.sentence.partition(": ")
    return rest[:1].upper() + rest[1:]


def _most_failed(made: Made, name: str) -> str:
    failed = Counter(
        check_name(reason, made.label_names)
        for candidate in made.pool.rejected(name)
        for reason in candidate.filtered.reasons
    )
    if not failed:
        return ""
    check, count = failed.most_common(1)[0]
    return f"; most often failed: {check}, by {count}"


def _unmet(fidelity: FidelityResults) -> list[tuple[str, list[str]]]:
    return [(name, goals) for name, goals in unmet_goals(fidelity).items() if goals]


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
