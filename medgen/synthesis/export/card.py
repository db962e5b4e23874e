"""The card of a synthetic cohort, made of what its run knows: in the run, and again later to compare a card with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import medgen
from medgen.data.cards.fields import CardFields, GeneratedBy, Synthesis, generated_fields
from medgen.synthesis.privacy.results import INTERNAL, SHARE
from medgen.synthesis.sources import Sources
from medgen.synthesis.usefulness import HARMFUL, Usefulness
from medgen.system import files


@dataclass(frozen=True)
class Generated:
    """What one generator has given.

    Attributes:
        accepted: Samples that passed the filter and are no copies.
        rejected: Samples that did not, or are.
        exported: Scans of it in the cohort.
        stamp: What may be done with them, by the audit.
        reason: Why.
        sha256: Hash of the generator.
    """

    accepted: int
    rejected: int
    exported: int
    stamp: str
    reason: str
    sha256: str


@dataclass(frozen=True)
class CardFacts:
    """All that a card says.

    Attributes:
        cohort: Name of the cohort that was learnt from.
        modality: Of its scans.
        labels: Label → name.
        shape: Voxels along i, j, k.
        spacing: Voxel size (mm) along i, j, k.
        seed: Seed of the run.
        labelled: Subjects whose labels the generators saw.
        unlabelled: Further subjects that lent images only.
        parents_sha256: Digest of the files that were learnt from, :func:`parents_digest`.
        generators: Name → what it has given.
        audit_valid: Whether the controls of the audit passed.
        verdict: Whether the scans help.
        medgen: Version that made them.
    """

    cohort: str
    modality: str
    labels: Mapping[int, str]
    shape: Sequence[int]
    spacing: Sequence[float]
    seed: int
    labelled: int
    unlabelled: int
    parents_sha256: str
    generators: Mapping[str, Generated]
    audit_valid: bool
    verdict: Usefulness
    medgen: str = medgen.__version__

    @property
    def used(self) -> list[str]:
        """Generators with scans in the cohort, sorted."""
        return sorted(name for name, own in self.generators.items() if own.exported)

    @property
    def scans(self) -> int:
        """Scans in the cohort."""
        return sum(own.exported for own in self.generators.values())

    @property
    def stamp(self) -> str:
        """What may be done with the whole cohort."""
        return SHARE if all(self.generators[name].stamp == SHARE for name in self.used) else INTERNAL


def fields_of(facts: CardFacts) -> CardFields:
    """The front matter of the card."""
    people, used = people_of(facts.labelled, facts.unlabelled), facts.used
    reasons = "; ".join(f"{name}: {facts.generators[name].stamp} ({facts.generators[name].reason})" for name in used)
    hashes = {name: facts.generators[name].sha256 for name in used}
    i, j, k = facts.shape
    return generated_fields(
        f"{facts.cohort} synthetic",
        kind="synthetic",
        n_cases=facts.scans,
        n_subjects=facts.scans,
        spacing=facts.spacing,
        labels=facts.labels,
        seeds=[facts.seed],
        generator=f"augment run, {' and '.join(used)}",
        description=f"Synthetic labelled scans, learnt from {people} of {facts.cohort}.",
        modality=facts.modality,
        licence="as the scans it was learnt from",
        known_biases=[
            f"made from {people}: it cannot show anatomy that none of them hints at",
            "intensities are those of the preprocessing recipe, not of a scanner",
        ],
        privacy=f"{facts.stamp}. {reasons}",
        intended_use="none: they made segmentation worse in the value study of their run"
        if facts.verdict.word == HARMFUL
        else "training segmentation models beside real scans",
        not_for="testing or validation, and training without real scans",
        artifact_sha256=hashes[used[0]] if len(used) == 1 else files.sha256_json(hashes),
        parents_sha256=facts.parents_sha256,
        medgen=facts.medgen,
        measured=Synthesis(
            verdict=facts.verdict.word,
            stamp=facts.stamp,
            audit_valid=facts.audit_valid,
            shape=(int(i), int(j), int(k)),
            learnt_from=facts.labelled + facts.unlabelled,
            generators={name: _measured(own) for name, own in facts.generators.items()},
        ),
    )


def sections_of(facts: CardFacts) -> dict[str, str]:
    """The text below the front matter, by section."""
    made = [f"- {name}: {facts.generators[name].exported} scans" for name in facts.used]
    passed = [
        f"- {name}: {own.accepted} of {own.accepted + own.rejected} samples passed filter and copy check"
        for name, own in facts.generators.items()
    ]
    return {
        "Composition": f"{facts.scans} scans on a grid of {' x '.join(map(str, facts.shape))} voxels.\n\n"
        + "\n".join(made),
        "Collection": "Sampled from generators and filtered: agreement of labels and image, volumes, components "
        "and centroids of labels, likeness to every training scan. Each scan has a record in provenance/ with "
        "its generator, seed, parents, filter scores and audit numbers.\n\n" + "\n".join(passed),
        "Use": "Mix with real training scans, on top of ordinary augmentation; keep out of validation and test.",
        "Limits": f"Value study of the run that made them: {facts.verdict.sentence} On other data the answer may "
        "differ.",
    }


def parents_digest(hashes: Mapping[str, Mapping[str, str]]) -> str:
    """Digest of the scans that were learnt from: case → file → SHA-256."""
    return files.sha256_json({name: dict(own) for name, own in hashes.items()})


def people_in(sources: Sources) -> tuple[int, int]:
    """How many subjects lent labels, and how many further ones images only."""
    labelled = set(sources.labelled.subjects)
    further = set() if sources.unlabelled is None else set(sources.unlabelled.subjects) - labelled
    return len(labelled), len(further)


def people_of(labelled: int, unlabelled: int) -> str:
    """Whom generators learnt from, in words: subjects whose labels they saw, and further ones that lent images.

    >>> people_of(6, 0), people_of(6, 4)
    ('6 labelled subjects', '6 labelled and 4 unlabelled subjects')
    """
    if not unlabelled:
        return f"{labelled} labelled subjects"
    return f"{labelled} labelled and {unlabelled} unlabelled subjects"


def _measured(own: Generated) -> GeneratedBy:
    share = own.accepted / max(own.accepted + own.rejected, 1)
    return GeneratedBy(
        accepted=own.accepted,
        rejected=own.rejected,
        acceptance=float(f"{share:.4g}"),
        exported=own.exported,
        stamp=own.stamp,
        artifact_sha256=own.sha256,
    )
