"""The front matter of data cards: what may be said of a data set, and in which form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from medgen import __version__
from medgen.config import Config

# Cards round shares to four digits.
_SHARE_TOLERANCE = 5e-4

Text = Annotated[str, Field(min_length=2)]
Pair = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Counts = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Provenance(Config):
    """How generated data came about; empty for collected data.

    Attributes:
        generator: Program and version, or backend, that made the data.
        artifact_sha256: Hash of the trained model that made it; none for simulation.
        seeds: Seeds of the random streams.
        parents_sha256: Digest of the manifest the model was trained on.
        manifest_sha256: Digest of this data set's own manifest.
    """

    generator: str | None = None
    artifact_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    seeds: tuple[int, ...] = ()
    parents_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class GeneratedBy(Config):
    """What one generator has given to a synthetic cohort.

    Attributes:
        accepted: Samples that passed the filter and are no copies.
        rejected: Samples that did not, or are.
        acceptance: Share that passed.
        exported: Scans of it in the cohort.
        stamp: What may be done with them, by the audit for copies of patients.
        artifact_sha256: Hash of the generator.
    """

    accepted: Annotated[int, Field(ge=0)]
    rejected: Annotated[int, Field(ge=0)]
    acceptance: Annotated[float, Field(ge=0, le=1)]
    exported: Annotated[int, Field(ge=0)]
    stamp: Annotated[str, Field(min_length=2)]
    artifact_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Synthesis(Config):
    """What was measured of a synthetic cohort.

    Attributes:
        verdict: Whether its scans help a segmenter: ``USE``, ``NO EVIDENCE``, ``HARMFUL`` or ``NOT MEASURED``.
        stamp: What may be done with all of them.
        audit_valid: Whether the controls of the audit passed.
        shape: Voxels along i, j, k.
        learnt_from: People that the generators have learnt from.
        generators: Of each generator, by its name.
    """

    verdict: Annotated[str, Field(min_length=2)]
    stamp: Annotated[str, Field(min_length=2)]
    audit_valid: bool
    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    learnt_from: Annotated[int, Field(ge=1)]
    generators: Annotated[dict[str, GeneratedBy], Field(min_length=1)]


class CardFields(Config):
    """Front matter of a data card.

    Attributes:
        name: Name of the data set.
        version: Version of the data set, or the date it was obtained.
        kind: Whether the scans show people or were generated.
        description: One or two sentences.
        modality: Such as ``"MR T1-weighted"``.
        n_cases: Number of scans.
        n_subjects: Number of people, or of simulated subjects.
        spacing: Voxel size (mm) along i, j, k; the median if it varies.
        spacing_range: Lowest and highest voxel size (mm) along i, j, k, where it was measured.
        shape_range: Fewest and most voxels along i, j, k, where they were counted.
        orientation: Directions of the array axes, such as ``RAS``, most frequent first.
        sex: Number of people by sex, of those of whom it is stated.
        age: Lowest and highest age in years, of those of whom it is stated.
        labels: Name per label value, without background.
        licence: Name of the licence, SPDX where there is one.
        source: Where it comes from, in words or as a public address.
        citation: What to cite.
        intended_use: What it is good for.
        not_for: What it must not be used for.
        known_biases: Each known bias; at least one.
        preprocessing: What was done to the scans before they were listed here.
        privacy: What could identify a person, and what was done about it.
        provenance: How generated data came about.
        measured: What was measured of a synthetic cohort; none for other data.
    """

    name: Text
    version: Annotated[str, Field(min_length=1)]
    kind: Literal["collected", "simulated", "synthetic", "implanted"]
    description: Text
    modality: Text
    n_cases: Annotated[int, Field(ge=1)]
    n_subjects: Annotated[int, Field(ge=1)]
    spacing: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    spacing_range: tuple[Pair, Pair, Pair] | None = None
    shape_range: tuple[Counts, Counts, Counts] | None = None
    orientation: tuple[str, ...] = ()
    sex: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    age: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(lt=90)]] | None = None
    labels: dict[int, str] = Field(default_factory=dict)
    licence: Text
    source: Text
    citation: Text
    intended_use: Text
    not_for: Text
    known_biases: Annotated[tuple[Text, ...], Field(min_length=1)]
    preprocessing: Text
    privacy: Text
    provenance: Provenance = Provenance()
    measured: Synthesis | None = None

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_text(cls, value: Any) -> Any:
        # YAML reads 1.0 as a number and 2026-01-31 as a date.
        return value if isinstance(value, str) or value is None else str(value)


def generated_fields(
    name: str,
    *,
    kind: Literal["simulated", "synthetic", "implanted"],
    n_cases: int,
    n_subjects: int,
    spacing: Sequence[float],
    labels: Mapping[int, str],
    seeds: Sequence[int],
    generator: str,
    description: str,
    modality: str,
    licence: str,
    known_biases: Sequence[str],
    privacy: str,
    intended_use: str,
    not_for: str,
    artifact_sha256: str | None = None,
    parents_sha256: str | None = None,
    manifest_sha256: str | None = None,
    measured: Synthesis | None = None,
    medgen: str = __version__,
) -> CardFields:
    """The front matter of a generated cohort's card: fields of :class:`CardFields` and :class:`Provenance`.

    ``generator`` and ``medgen``, the version, say what generated it.

    Raises:
        pydantic.ValidationError: If a field is out of range.
    """
    i, j, k = (round(float(step), 4) for step in spacing)
    return CardFields(
        name=name,
        version="1",
        kind=kind,
        description=description,
        modality=modality,
        n_cases=n_cases,
        n_subjects=n_subjects,
        spacing=(i, j, k),
        labels=dict(labels),
        licence=licence,
        source=f"generated by medgen {medgen}: {generator}",
        citation=f"medgen {medgen}, {generator}",
        intended_use=intended_use,
        not_for=f"{not_for.rstrip('. ')}. Not for clinical use.",
        known_biases=tuple(known_biases),
        preprocessing="none after generation",
        privacy=privacy,
        provenance=Provenance(
            generator=f"medgen {medgen}, {generator}",
            artifact_sha256=artifact_sha256,
            seeds=tuple(seeds),
            parents_sha256=parents_sha256,
            manifest_sha256=manifest_sha256,
        ),
        measured=measured,
    )


def contradictions(fields: CardFields) -> list[str]:
    """What does not go together in front matter that is well formed, one line each."""
    problems = []
    if fields.n_subjects > fields.n_cases:
        problems.append(
            f"n_subjects is {fields.n_subjects}, n_cases {fields.n_cases}; expected at least a case per subject"
        )
    if any(value < 1 for value in fields.labels):
        problems.append("labels: expected values from 1 (0 is background)")
    if fields.kind != "collected" and not (fields.provenance.generator and fields.provenance.seeds):
        problems.append(f"provenance: {fields.kind} data needs generator and seeds")
    if fields.kind == "synthetic" and not (fields.provenance.artifact_sha256 and fields.provenance.parents_sha256):
        problems.append("provenance: synthetic data needs artifact_sha256 and parents_sha256")
    return problems + _uneven(fields)


def _uneven(fields: CardFields) -> list[str]:
    """Where the counts of a synthetic cohort do not add up."""
    if fields.measured is None:
        return []
    problems, made = [], fields.measured.generators
    if (exported := sum(own.exported for own in made.values())) != fields.n_cases:
        problems.append(f"measured.generators: {exported} exported, n_cases is {fields.n_cases}; expected the same")
    for name, own in made.items():
        share = own.accepted / max(own.accepted + own.rejected, 1)
        if abs(own.acceptance - share) > _SHARE_TOLERANCE:
            problems.append(
                f"measured.generators.{name}.acceptance is {own.acceptance:g}; expected accepted over all, {share:.4g}"
            )
    return problems
