"""What an augmentation run, and a value study alone, did: sentences for the methods section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medgen.data.cases import Manifest
from medgen.models.catalogue import family_class
from medgen.report.methods import references
from medgen.report.methods.text import MethodsText, count, listed, module_of, sources_in, summary
from medgen.segmentation.ordinary import available, describe
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.backend import Backend
from medgen.synthesis.cohort.consensus import Consensus, ConsensusConfig
from medgen.synthesis.fidelity.comparison import FidelityConfig
from medgen.synthesis.filtering.filter import FilterConfig
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.label_sources import source_class
from medgen.synthesis.painters import painter_class
from medgen.synthesis.pair import halves_of
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.verdict import Judgement

GENERATORS = "Generators"
SCANS = "Scans"
SYNTHETIC = "Synthetic scans"
STUDY = "Value study"


def parts(text: MethodsText, named: Mapping[str, Manifest], labels: Mapping[int, str], unprepared: int) -> None:
    """Who took part, and how people were divided.

    Args:
        text: Is added to.
        named: Parts of the cohort by name.
        labels: Names of the labels in use, by their numbers.
        unprepared: How many scans could not be prepared.
    """
    told = [
        f"{name}: {count(len(part), 'scan')} of {count(len(part.subjects), 'subject')}"
        for name, part in named.items()
        if len(part)
    ]
    lost = f"{count(unprepared, 'scan')} could not be prepared." if unprepared else ""
    text.add(
        SCANS,
        f"The cohort was divided at random by subject ({'; '.join(told)}); nothing was learnt from the held-out ones.",
        f"Labels in use: {listed([f'{number} {name}' for number, name in labels.items()])}.",
        lost,
    )


def inferred_labels(text: MethodsText, config: ConsensusConfig, found: Consensus) -> None:
    """How unlabelled scans got labels; nothing where none did.

    Args:
        text: Is added to.
        config: Settings.
        found: What came of it.
    """
    if found.scans is None or found.members is None:
        return
    again = f", in {config.rounds} rounds{text.cite(references.NOISY_STUDENT)}" if config.rounds > 1 else ""
    text.add(
        SCANS,
        f"{count(len(found.scans.ids), 'unlabelled scan')} got labels by the consensus of {config.members} segmenters"
        f"{text.cite(references.DEEP_ENSEMBLES)}{again}; {len(found.left_out)} on which they agree less than usual "
        "were left out.",
    )


def generators(text: MethodsText, backends: Sequence[Backend], reasons: Sequence[str]) -> None:
    """What made synthetic scans, with the works that it follows.

    Args:
        text: Is added to.
        backends: The generators.
        reasons: Why these were chosen.
    """
    if reasons:
        text.add(GENERATORS, "They were chosen by the cohort and the machine: " + " ".join(map(_sentence, reasons)))
    for backend in backends:
        name, halves = backend.name, halves_of(backend.name)
        kinds = [family_class(family) for family in dict.fromkeys(backend.families.values())]
        if halves is None:
            documented: list[type[Any]] = [type(backend)]
            what = summary(module_of(type(backend)))
        else:
            labels, painter = source_class(halves[0]), painter_class(halves[1])
            documented = [labels, painter]
            what = f"labels: {summary(module_of(labels))}; images: {summary(module_of(painter))}"
        cited = text.cite(*sources_in(*map(module_of, documented), *documented, *kinds))
        text.add(GENERATORS, f"`{name}`{cited}: {what}.")


def accepted(text: MethodsText, config: FilterConfig, pool: CandidatePool, backends: Sequence[Backend]) -> None:
    """How samples were filtered, and how many passed.

    Args:
        text: Is added to.
        config: Settings of the filter.
        pool: All samples.
        backends: The generators.
    """
    told = [f"{len(pool.accepted(own.name))} of {len(pool.of(own.name))} by `{own.name}`" for own in backends]
    text.add(
        SYNTHETIC,
        f"Of the samples {listed(told)} passed a filter whose bounds are those of real scans: agreement of the labels "
        f"with segmenters at percentile {config.agreement_percentile:g} of real scans, volumes within "
        f"{config.volume_sd:g} and intensities within {config.intensity_sd:g} standard deviations, components, "
        "centroids, looks, and likeness to training scans.",
    )


def audited(text: MethodsText, audit: Audit) -> None:
    """The memorisation audit.

    Args:
        text: Is added to.
        audit: What it found.
    """
    training, held_out = audit.training, audit.held_out
    cited = text.cite(references.DATA_COPYING, references.EXTRACTION, references.MEMBERSHIP)
    stamps = listed([f"`{name}` {own.stamp}" for name, own in audit.backends.items()]) if audit.backends else "none"
    text.add(
        SYNTHETIC,
        f"Copies of training scans and signs of membership were looked for{cited} against {count(training[1], 'scan')} "
        f"of {count(training[0], 'training subject')} and {count(held_out[1], 'scan')} of "
        f"{count(held_out[0], 'held-out subject')}; the audit was "
        + ("valid by its controls." if audit.valid else f"not valid ({'; '.join(audit.problems)})."),
        f"Stamps: {stamps}.",
    )


def compared(text: MethodsText, config: FidelityConfig) -> None:
    """How like real scans they were measured to be.

    Args:
        text: Is added to.
        config: Settings.
    """
    text.add(
        SYNTHETIC,
        f"Likeness was measured by KID{text.cite(references.KID)}, density and coverage"
        f"{text.cite(references.COVERAGE)} with {config.k} neighbours, MS-SSIM{text.cite(references.MS_SSIM)}, and "
        f"volumes and intensities of labels, beside what two halves of the real scans reach in "
        f"{config.splits} splits by subject.",
    )


def study(text: MethodsText, config: ValueConfig, judgement: Judgement, subjects: Mapping[str, int]) -> None:
    """How synthetic scans were tested in the training of a segmenter.

    Args:
        text: Is added to.
        config: Settings.
        judgement: What came of it.
        subjects: Numbers of subjects of the parts it was measured on.
    """
    told = listed([f"{number} {part}" for part, number in subjects.items()])
    text.add(
        STUDY,
        _segmenter(text, config.segmenter),
        f"Every arm was trained with {count(config.seeds, 'seed')}, and measured on {told} subjects in their own "
        f"space by Dice, 95th percentile of the Hausdorff distance and surface Dice at {config.tolerance_mm:g} mm"
        f"{text.cite(references.SURFACE_DICE)}.",
        f"Synthetic scans replaced real ones with probability {config.p_synthetic:g}, falling to 0 over the last "
        "quarter.",
    )
    for arm in config.arms:
        if arm in available():
            text.add(STUDY, f"Arm `{arm}`: {describe(arm).rstrip('.')}.")
    text.add(
        STUDY,
        "The synthetic arm that was best on validation subjects, or the first where there are none, was compared with "
        f"the best ordinary arm, paired by seed and subject: 95 % intervals and p from {config.bootstrap} resamples of "
        f"both{text.cite(references.BOOTSTRAP)}, p adjusted over the numbers of subjects{text.cite(references.HOLM)}.",
    )
    for comparison in judgement.comparisons:
        if comparison.role == "verdict":
            text.add(STUDY, _sentence(comparison.sentence))


def _segmenter(text: MethodsText, config: SegmenterConfig) -> str:
    widths = ", ".join(map(str, config.channels))
    cited, adamw = text.cite(references.UNET, references.MONAI), text.cite(references.ADAMW)
    return (
        f"The segmenter is a U-Net{cited} of widths {widths}, trained in every arm for {count(config.steps, 'step')} "
        f"of AdamW{adamw} with batches of {config.batch_size} and a learning rate of at most {config.lr:g}."
    )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
