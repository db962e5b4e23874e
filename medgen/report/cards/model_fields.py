"""The front matter of model cards: what may be said of a trained model, and in which form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medgen.config import Config
from medgen.data.cards.fields import Text

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(ge=1)]


class PartCount(Config):
    """How large a part of the cohort is.

    Attributes:
        scans: Scans in it.
        subjects: People in it.
    """

    scans: Annotated[int, Field(ge=0)]
    subjects: Annotated[int, Field(ge=0)]


class Grid(Config):
    """The grid that the model works on.

    Attributes:
        shape: Voxels along i, j, k.
        spacing: Voxel size (mm) along i, j, k.
    """

    shape: tuple[Positive, Positive, Positive]
    spacing: tuple[float, float, float]


class Measured(Config):
    """One measured number.

    Attributes:
        estimate: It.
        low: Lower limit of its interval, where there is one.
        high: Upper limit.
        n: Subjects behind it.
        level: Level of the interval.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    level: float | None = None


class Calibrated(Config):
    """What p-values and thresholds rest on.

    Attributes:
        subjects: Healthy subjects.
        target_fpr: Share of healthy scans that may exceed the family-wise threshold.
        threshold: That threshold, a z.
        false_findings: Expected false findings per healthy scan, up to which findings are listed.
        findings_threshold: From which z on that is.
    """

    subjects: Positive
    target_fpr: float | None = None
    threshold: float | None = None
    false_findings: float | None = None
    findings_threshold: float | None = None


class ModelCardFields(Config):
    """Front matter of a model card.

    Attributes:
        card: Which kind of card this is.
        name: Name of the model.
        version: Version of it.
        kind: What was trained.
        families: Families of the networks, or names of the generators.
        cohort: Name of the cohort that it learnt from.
        n_scans: Scans of the cohort.
        n_subjects: People in it.
        n_learnt_from: People that the model, or one that it started from, has learnt from; null where not on record.
        manifest_sha256: Digest of the list of its scans.
        parts: How large each part was.
        grid: The grid that the model works on.
        modality: Of the scans.
        seed: Of all random streams.
        performance: What was measured, by its name.
        calibration: What p-values rest on.
        gate: Whether scans unlike the healthy ones are refused.
        never_found: Kinds of implants of which none had a finding.
        smallest_lesion_mm: Smallest radius that was found, by region and contrast; null where none was.
        audit: What the audit for copies of patients lets be done with the scans of each generator.
        verdict: The word of the value study.
        artifacts_sha256: Digest of the trained model, or of each generator.
        weights_sha256: SHA-256 of every file of weights.
        run_id: The run that made it.
        config_sha256: Digest of its settings.
        commit: Source that it ran from; ``unknown`` in an installation.
        versions: Of Python, medgen and the packages that results depend on.
        intended_use: What it is good for.
        not_for: What it must not be used for.
        licence: Of the weights; the authors fill it in.
        contact: Whom to ask; the authors fill it in.
    """

    card: Literal["model"]
    name: Text
    version: Annotated[str, Field(min_length=1)]
    kind: Literal["anomaly detector", "generators of labelled scans", "generative model", "pretrained model"]
    families: Annotated[tuple[str, ...], Field(min_length=1)]
    cohort: Text
    n_scans: Positive
    n_subjects: Positive
    n_learnt_from: Positive | None
    manifest_sha256: Sha256 | None
    parts: dict[str, PartCount]
    grid: Grid
    modality: str | None = None
    seed: int
    performance: dict[str, Measured] = Field(default_factory=dict)
    calibration: Calibrated | None = None
    gate: bool | None = None
    never_found: tuple[str, ...] = ()
    smallest_lesion_mm: dict[str, float | None] = Field(default_factory=dict)
    audit: dict[str, str] = Field(default_factory=dict)
    verdict: str | None = None
    artifacts_sha256: Annotated[dict[str, Sha256], Field(min_length=1)]
    weights_sha256: Annotated[dict[str, Sha256], Field(min_length=1)]
    run_id: str | None
    config_sha256: Sha256 | None
    commit: str
    versions: dict[str, str]
    intended_use: Text
    not_for: Text
    licence: Text
    contact: Text


# Nobody but the authors knows these; what they write is not compared with the run.
AUTHORS_FIELDS = ("name", "version", "licence", "contact")
