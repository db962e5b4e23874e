"""Labelled synthesis, from a cohort to a verdict: split, train generators, sample, filter, measure, export, report."""

from __future__ import annotations

import sys

from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.report.augment.value import StudyResults
from medgen.runs import tracking
from medgen.runs.folder import RunFolder, RunSummary, check_cohort, open_run
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.fidelity.results import FidelityResults
from medgen.synthesis.usefulness import Usefulness
from medgen.system.files import write_json

from .. import patient_names
from ..preflight import preflight
from .audit import audit_stage
from .config import AugmentRunConfig, GeneratorsConfig
from .export import export
from .fidelity import measure_fidelity, read_feature_file
from .generate import generate
from .intake import admit
from .plan import decide, plan
from .prepare import begin
from .report import Results, build_report, metrics_of, printed, verdict_of
from .study import judged, study, track_verdict, write_value

__all__ = ["AugmentRunConfig", "GeneratorsConfig", "plan", "run"]


def run(
    config: AugmentRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False
) -> RunSummary:
    """Run the whole pipeline; see the module.

    Returns:
        Exit code 1 if scans could not be prepared or no synthetic scan was exported.

    Raises:
        MedgenError: If configuration, data or training are at fault.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    labelling = admit(config, manifest, progress)
    patient_names.announce(manifest)
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder:
        manifest = manifest.with_hashes(config.workers)
        check_cohort(folder.out, manifest)
        settings = config.model_dump(mode="json")
        digest = manifest.digest()
        with tracking.start("augment", folder.out, config=settings, seed=config.seed, manifest_digest=digest) as track:
            return _tracked(config, manifest, labelling, folder, track, resume=resume, progress=progress)


def _tracked(
    config: AugmentRunConfig,
    manifest: Manifest,
    labelling: Labelling,
    folder: RunFolder,
    track: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> RunSummary:
    manifest, parts, prepared = begin(config, manifest, labelling, folder, track, progress)
    with track.stage("plan") as stage:
        made = decide(config, prepared, parts)
        config = made.config
        write_json(folder.out / "plan.json", made.record())
        stage.set_tags({"medgen.generators": ", ".join(made.routing.backends)})
        if progress:
            print("\n".join(made.lines), file=sys.stderr)
    table = read_feature_file(config, prepared)
    generated = generate(config, prepared, parts, folder, track, "", resume=resume, progress=progress)
    for backend in generated.backends:
        backend.save(folder.model / backend.name)
    with track.stage("audit") as stage:
        generated, audit = audit_stage(
            config, prepared, generated, folder, stage, manifest.name, labelling.original, progress=progress
        )
    likeness: FidelityResults | None = None
    if config.fidelity.enabled:
        with track.stage("fidelity") as stage:
            likeness = measure_fidelity(config, prepared, generated, table, folder, stage, progress=progress)
    measured: StudyResults | None = None
    if config.value.enabled:
        with track.stage("value") as stage:
            rows = study(config, prepared, parts, generated, folder, stage, resume=resume, progress=progress)
            measured = judged(rows, config, prepared, parts)
        write_value(folder, rows)
    said = Usefulness(*verdict_of(measured))
    with track.stage("export"):
        refused = export(config, prepared, parts, generated, audit, folder, manifest.name, labelling.original, said)
    results = Results(
        manifest=manifest,
        parts=parts,
        prepared=prepared.data,
        grid=prepared.preprocess.canonical(),
        failures=prepared.failures,
        sources=generated.sources,
        consensus=generated.consensus,
        backends=generated.backends,
        filters=generated.filters,
        pool=generated.pool,
        audit=audit,
        refused=refused,
        study=measured,
        plan=made,
        fidelity=likeness,
    )
    with track.stage("report"):
        metrics = metrics_of(results)
        folder.write_metrics(metrics)
        build_report(results, folder, track.id, config.seed).write(folder.report)
    track.log_metrics({f"accepted.{name}": len(generated.pool.accepted(name)) for name in config.generators.names})
    if measured is not None:
        track_verdict(track, measured)
    outputs = ("report.html", "metrics.json", "plan.json", "manifest.csv", "splits.csv", "value.csv", "fidelity.csv")
    for name in outputs:
        if (folder.out / name).is_file():
            track.log_file(folder.out / name)
    exported = (folder.synthetic / "card.md").is_file()
    if exported:
        track.log_file(folder.synthetic / "card.md", "synthetic")
        track.log_file(folder.synthetic / "dataset.json", "synthetic")
    lines = [*printed(results), *_places(folder, refused, exported, track, said)]
    return RunSummary(folder.out, 1 if prepared.failures or not exported else 0, tuple(lines))


def _places(folder: RunFolder, refused: str, exported: bool, track: tracking.Run, said: Usefulness) -> list[str]:
    nothing = refused or "no scan passed the filter, see rejections.csv"
    cohort = f"{folder.synthetic} ({said.word})" if exported else f"none: {nothing}"
    return [
        f"synthetic cohort: {cohort}",
        f"generators:       {folder.model}",
        f"report:           {folder.report}",
        f"MLflow store:     {track.store}",
    ]
