"""The value study alone: ordinary arms, synthetic scans made elsewhere, or those of an earlier augment run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError
from medgen.preprocessing.automatic import fit_preprocess
from medgen.report.augment.value import KINDS, STUDY_LIMITS, StudyResults, study_lines, study_metrics, study_section
from medgen.report.html import Report
from medgen.runs import tracking
from medgen.runs.folder import RunFolder, RunSummary, check_cohort, open_run
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline
from medgen.synthesis.value.arms import SYNTHETIC, Arm
from medgen.synthesis.value.scans_made_elsewhere import (
    ScansMadeElsewhere,
    check_foreign,
    check_run,
    guard_labels,
    read_foreign,
    read_run,
    together,
)
from medgen.synthesis.value.study import Material, Row
from medgen.training.cost import describe_memory

from .. import patient_names
from ..preflight import preflight
from .config import LabelledRunConfig
from .intake import admit
from .prepare import PreparedCohort, begin, split
from .study import judged, run_cells, study_estimate, track_verdict, write_value


class ValueRunConfig(LabelledRunConfig):
    """One study.

    Attributes:
        synthetic: Name → folder of synthetic scans with masks; arms name them as ``<ordinary>+<name>``.
        run: Folder of an earlier ``augment run`` of the same data, seed, test and validation, whose accepted scans
            are used as ``<ordinary>+<backend>``.
    """

    out: Path = Path("runs/value")
    synthetic: dict[str, Path] = Field(default_factory=dict)
    run: Path | None = None

    @field_validator("synthetic")
    @classmethod
    def _names(cls, value: dict[str, Path]) -> dict[str, Path]:
        for name in value:
            if name == SYNTHETIC or not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"synthetic: {name!r} cannot name a pool; expected letters, digits, '-' and '_'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ValueRunConfig:
        if not self.value.enabled:
            raise ValueError("value.enabled: expected true, since the study is all there is to run")
        if self.run is None:
            self.check_sources(tuple(self.synthetic), "synthetic scans")
            if self.value.sources and not self.synthetic:
                raise ValueError(
                    "value.arms name synthetic scans, and there are none; give synthetic.<name>=FOLDER or run=FOLDER, "
                    "or leave these arms out"
                )
        return self

    def inputs(self) -> dict[str, Path]:
        """The folders of synthetic scans."""
        found = {f"synthetic.{name}": folder for name, folder in self.synthetic.items()}
        return found if self.run is None else {**found, "run": self.run}


@dataclass(frozen=True, eq=False)
class _Cohort:
    manifest: Manifest
    parts: CohortSplit
    prepared: PreparedCohort
    pools: tuple[ScansMadeElsewhere, ...]


def run(config: ValueRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False) -> RunSummary:
    """Run the study; see the module.

    Returns:
        Exit code 1 if scans of the cohort could not be prepared.

    Raises:
        MedgenError: If configuration, data, synthetic scans or training are at fault.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    labelling = admit(config, manifest, progress)
    patient_names.announce(manifest)
    _check_synthetic(config, labelling.apply(manifest))
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder:
        manifest = manifest.with_hashes(config.workers)
        check_cohort(folder.out, manifest)
        settings, digest = config.model_dump(mode="json"), manifest.digest()
        with tracking.start(
            "augment-value", folder.out, config=settings, seed=config.seed, manifest_digest=digest
        ) as track:
            return _tracked(config, manifest, labelling, folder, track, progress)


def _check_synthetic(config: ValueRunConfig, manifest: Manifest) -> CohortSplit:
    """The parts of the study, once its synthetic scans are known to be there; no image is read."""
    parts = split(config, manifest)
    for folder in config.synthetic.values():
        check_foreign(folder)
    if config.run is not None:
        check_run(config.run, parts)
    return parts


def _tracked(
    config: ValueRunConfig,
    manifest: Manifest,
    labelling: Labelling,
    folder: RunFolder,
    track: tracking.Run,
    progress: bool,
) -> RunSummary:
    manifest, parts, prepared = begin(config, manifest, labelling, folder, track, progress)
    with track.stage("synthetic") as stage:
        pools = _pools(config, prepared, parts)
        stage.log_metrics({pool.name: len(pool.scans.images) for pool in pools})
    with track.stage("value") as stage:
        rows = run_cells(config, prepared, parts, _materials(prepared, pools), folder, stage, progress=progress)
        results = _results(rows, config, _Cohort(manifest, parts, prepared, pools))
    write_value(folder, rows)
    with track.stage("report"):
        folder.write_metrics(_metrics(results))
        _report(results, _Cohort(manifest, parts, prepared, pools), folder, track.id).write(folder.report)
    track_verdict(track, results)
    for name in ("report.html", "metrics.json", "manifest.csv", "splits.csv", "value.csv"):
        track.log_file(folder.out / name)
    lines = [*study_lines(results), _headline(results)[1], f"report: {folder.report}", f"MLflow store: {track.store}"]
    return RunSummary(folder.out, 1 if prepared.failures else 0, tuple(lines))


def _pools(config: ValueRunConfig, prepared: PreparedCohort, parts: CohortSplit) -> tuple[ScansMadeElsewhere, ...]:
    channels = prepared.data["labelled"].channels
    pools = [
        read_foreign(
            name,
            folder,
            preprocess=prepared.preprocess,
            template=prepared.template,
            labels=prepared.labels,
            channels=channels,
            parts=parts,
            workers=config.workers,
        )
        for name, folder in config.synthetic.items()
    ]
    if config.run is not None:
        pools += read_run(config.run, preprocess=prepared.preprocess, labels=prepared.labels, parts=parts)
    names = [pool.name for pool in pools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"synthetic: {twice[0]!r} is also a backend of {config.run}; choose another name")
    for arm in map(Arm.parse, config.value.arms):
        if arm.source is not None and arm.source not in ("", *names):
            raise ConfigError(f"value.arms: {arm.name!r} needs the scans {arm.source!r}; there are {', '.join(names)}")
    # The smallest number of subjects is the one that a generator is most likely to have seen more of.
    fewest = min(config.value.subjects, default=len(parts.labelled.subjects))
    guard_labels(pools, parts.fewer(fewest).labelled.subjects)
    return tuple(pools)


def _materials(prepared: PreparedCohort, pools: Sequence[ScansMadeElsewhere]) -> Any:
    def material(number: int, fewer: CohortSplit) -> Material:
        sources = prepared.sources(fewer)
        return Material(number, sources.labelled, together(pools), sources.unlabelled)

    return material


def _results(rows: Sequence[Row], config: ValueRunConfig, cohort: _Cohort) -> StudyResults:
    notes = []
    for pool in cohort.pools:
        count = len(pool.scans.images)
        text = f"**{pool.name}**: {count} synthetic scans, {pool.records} of them with a record of their parents."
        if pool.labelled is None:
            text += (
                " Which masks their generator saw is not recorded: the comparison is fair only if they are those of "
                "the real subjects here, or fewer."
            )
            if pool.records < count:
                text += " That no held-out scan was among the sources could be checked by names and files only."
        notes.append(text)
    return judged(rows, config, cohort.prepared, cohort.parts, notes)


def _headline(results: StudyResults) -> tuple[str, str]:
    judgement = results.judgement
    if judgement.word is not None:
        return judgement.word, judgement.sentence
    best = "; ".join(f"{arm} with {number} real subjects" for number, arm in judgement.best.items())
    return "NOT MEASURED", f"NOT MEASURED: no arm had synthetic scans. Best ordinary arm: {best}."


def _metrics(results: StudyResults) -> dict[str, Any]:
    word, sentence = _headline(results)
    return {"verdict": word, "sentence": sentence, **study_metrics(results)}


def _report(results: StudyResults, cohort: _Cohort, folder: RunFolder, run_id: str) -> Report:
    report = Report("Value study", cohort.manifest.name, run_id)
    word, sentence = _headline(results)
    kind: Any = KINDS.get(word, "neutral")
    report.verdict(sentence, kind)
    report.section("Cohort")
    rows = [
        (name, len(part.subjects), len(part), len(data) if (data := cohort.prepared.data.get(name)) is not None else 0)
        for name, part in cohort.parts.named().items()
    ]
    report.table(["part", "subjects", "scans", "prepared"], rows, "Parts are disjoint by subject.")
    patient_names.taken(report, cohort.manifest)
    if cohort.prepared.failures:
        report.table(["case", "reason"], [tuple(failure) for failure in cohort.prepared.failures], "Scans left out")
    study_section(report, results, folder)
    report.section("Limits", patient_names.limits(STUDY_LIMITS, cohort.manifest.named_by_folders))
    return report


def plan(config: ValueRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    if resume:
        check_cohort(config.out, manifest.with_hashes(config.workers))
    manifest = admit(config, manifest).apply(manifest)
    parts = _check_synthetic(config, manifest)
    preprocess = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    channels = len(next(iter(parts.labelled)).read_image().data)
    shape, labels = preprocess.shape, tuple(range(1, (len(manifest.labels) or 1) + 1))
    outline = Outline(shape, channels, labels, len(parts.labelled), len(parts.unlabelled))
    found = ", ".join(f"{len(part.subjects)} {name}" for name, part in parts.named().items())
    return [
        *account(manifest),
        f"cohort: subjects: {found}",
        f"grid: {' x '.join(map(str, shape))} voxels of {preprocess.spacing} mm, align: {preprocess.align}",
        describe_memory((channels + 1) * len(manifest) * math.prod(shape)),
        *study_estimate(config, outline).lines,
        f"output: {config.out}",
        tracking.place(config.out),
    ]
