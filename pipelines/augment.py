"""Labelled synthesis, from a cohort to a verdict: split, train generators, sample, filter, measure, export, report."""

from __future__ import annotations

from medgen import tracking
from medgen.cases import Manifest, write_splits
from medgen.layouts import load_cohort
from medgen.synthesis.value import Row
from medgen.synthesis.verdict import Comparison, Summary, compare, summarise

from .augment_fidelity import FidelityResults, measure_fidelity, read_feature_file
from .augment_plan import plan
from .augment_report import Results, build_report, metrics_of, printed
from .augment_settings import AugmentRunConfig, GeneratorsConfig
from .augment_stages import Generated, export, generate, prepare, split, study, write_value
from .runfolder import RunFolder, RunSummary, open_run

__all__ = ["AugmentRunConfig", "GeneratorsConfig", "plan", "run"]


def run(
    config: AugmentRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False
) -> RunSummary:
    """Run the whole pipeline; see the module.

    Returns:
        Exit code 1 if scans could not be prepared or no synthetic scan was accepted.

    Raises:
        MedgenError: If configuration, data or training are at fault.
    """
    manifest = load_cohort(config.data, config.cohort)
    with open_run(config.out, config, resume=resume, overwrite=overwrite) as folder:
        manifest = manifest.with_hashes(config.workers)
        settings = config.model_dump(mode="json")
        digest = manifest.digest()
        with tracking.start("augment", folder.out, config=settings, seed=config.seed, manifest_digest=digest) as track:
            return _tracked(config, manifest, folder, track, resume=resume, progress=progress)


def _tracked(
    config: AugmentRunConfig,
    manifest: Manifest,
    folder: RunFolder,
    track: tracking.Run,
    *,
    resume: bool,
    progress: bool,
) -> RunSummary:
    with track.stage("split"):
        parts = split(config, manifest)
        manifest.write_csv(folder.out / "manifest.csv")
        write_splits(
            folder.out / "splits.csv", {"labelled": parts.labelled, "unlabelled": parts.unlabelled, "test": parts.test}
        )
    with track.stage("prepare") as stage:
        prepared = prepare(config, manifest, parts, progress)
        stage.log_metrics({name: len(dataset) for name, dataset in prepared.data.items()})
        folder.write_failures((failure.case, "preprocess", failure.message) for failure in prepared.failures)
    table = read_feature_file(config, prepared)
    generated = generate(config, prepared, parts, folder, track, "", resume=resume, progress=progress)
    for backend in generated.backends:
        backend.save(folder.model / backend.name)
    likeness: FidelityResults | None = None
    if config.fidelity.enabled:
        with track.stage("fidelity") as stage:
            likeness = measure_fidelity(config, prepared, generated, table, folder, stage, progress=progress)
    rows: list[Row] = []
    summaries: list[Summary] = []
    comparisons: list[Comparison] = []
    if config.value.enabled:
        with track.stage("value") as stage:
            rows = study(config, prepared, parts, generated, folder, stage, resume=resume, progress=progress)
            summaries = summarise(rows, config.seed, config.value.bootstrap)
            comparisons = compare(rows, config.seed, config.value.bootstrap)
        write_value(folder, rows)
    with track.stage("export"):
        export(config, prepared, generated, folder, manifest.name)
    results = Results(
        manifest=manifest,
        parts=parts,
        prepared=prepared.data,
        grid=prepared.preprocess.canonical(),
        failures=prepared.failures,
        sources=generated.sources,
        backends=generated.backends,
        filters=generated.filters,
        pool=generated.pool,
        summaries=tuple(summaries),
        comparisons=tuple(comparisons),
        study=config.value if config.value.enabled else None,
        fidelity=likeness,
    )
    with track.stage("report"):
        metrics = metrics_of(results)
        folder.write_metrics(metrics)
        build_report(results, folder, track.id, config.seed).write(folder.report)
    track.log_metrics({f"accepted.{name}": len(generated.pool.accepted(name)) for name in config.generators.names})
    for comparison in comparisons[:1]:
        track.set_tags({"medgen.verdict": comparison.word})
        track.log_metrics({"value.dice_difference": comparison.difference.estimate})
    for name in ("report.html", "metrics.json", "manifest.csv", "splits.csv", "value.csv", "fidelity.csv"):
        if (folder.out / name).is_file():
            track.log_file(folder.out / name)
    if generated.pool.accepted():
        track.log_file(folder.synthetic / "card.md", "synthetic")
        track.log_file(folder.synthetic / "dataset.json", "synthetic")
    lines = [*printed(results), *_places(folder, generated, track)]
    return RunSummary(folder.out, 1 if prepared.failures or not generated.pool.accepted() else 0, tuple(lines))


def _places(folder: RunFolder, generated: Generated, track: tracking.Run) -> list[str]:
    cohort = folder.synthetic if generated.pool.accepted() else "none: no scan passed the filter, see rejections.csv"
    return [
        f"synthetic cohort: {cohort}",
        f"generators:       {folder.model}",
        f"report:           {folder.report}",
        f"MLflow store:     {track.store}",
    ]
