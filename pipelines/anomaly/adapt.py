"""Move a detector to another site by healthy scans from there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from medgen.anomaly.artifact import from_artifact
from medgen.config import parse_config
from medgen.data.integrity import check_scans
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.detect import load_cohort
from medgen.models.artifact import TrainedModel
from medgen.progress import bars
from medgen.report.anomaly.words import LIMITS
from medgen.report.html import Report
from medgen.runs import tracking
from medgen.runs.context import Results, RunContext
from medgen.runs.folder import RunSummary, open_run
from medgen.runs.store.mlflow_store import COHORT
from medgen.training.trainer import device_of

from .. import patient_names
from ..preflight import ADAPTATION, check_data, check_model, check_new
from .known_scans import check_strangers
from .stages.adapt import PIPELINE, AdaptConfig, Usable


def run(
    model: Path,
    *,
    healthy: Path,
    out: Path,
    cohort: CohortConfig | None = None,
    device: str = "auto",
    workers: int = 2,
    overwrite: bool = False,
    progress: bool = False,
) -> RunSummary:
    """Write ``model/``, a detector for the site of some healthy scans, and a report; the old one stays as it is.

    Args:
        model: Artifact folder of an anomaly run.
        healthy: Healthy scans of at least ten other subjects.
        out: New folder.
        cohort: How they are laid out.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads.
        overwrite: Replace the results of an earlier adaptation.
        progress: Show progress bars.

    Raises:
        ArtifactError: If the artifact is damaged or of another kind.
        AuditError: If the model has learnt from one of the scans.
        CalibrationError: If there are too few subjects.
        DataError: If the scans cannot be used.
    """
    check_model(model)
    check_data(healthy)
    check_new(out, (model, healthy), overwrite=overwrite, mark=ADAPTATION)
    artifact = TrainedModel.load(model, device_of(device))
    given = {"model": model, "adapted_from": artifact.sha256, "healthy": healthy, "out": out, "device": device}
    config = parse_config(
        AdaptConfig, {**given, "cohort": cohort or CohortConfig(), "workers": workers}, source="command line"
    )
    detector = from_artifact(artifact, model)
    manifest = load_cohort(healthy, config.cohort)
    patient_names.warn(manifest.named_by_folders)
    with bars(progress) as tick:
        manifest = check_scans(manifest, workers, partial(tick, "checking scans"), masks=False)
    check_strangers(artifact, manifest)
    patient_names.announce(manifest)
    seed = int(artifact.meta.get("seed") or 0)
    with (
        open_run(out, config, overwrite=overwrite, mark=ADAPTATION) as folder,
        tracking.start(
            "anomaly-adapt",
            folder.out,
            config=config.model_dump(mode="json"),
            seed=seed,
            tags={COHORT: manifest.name},
        ) as track,
    ):
        context = RunContext(folder, track, track, seed, progress=progress)
        results = Results([artifact, detector, manifest])
        PIPELINE.run(config, results, context)
        report = Report("A detector for another site", f"{manifest.name}: {len(manifest)} scans", track.id)
        lines = PIPELINE.finish(config, report, LIMITS, results, context, manifest.named_by_folders)
    failed = bool(results[Usable].failures)
    return RunSummary(folder.out, int(failed), (*lines, f"model:  {folder.model}", f"report: {folder.report}"))
