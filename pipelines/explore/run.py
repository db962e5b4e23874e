"""Walk through the codes of a trained model and report what it draws on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgen.config import parse_config
from medgen.data.cases import Manifest
from medgen.data.integrity import check_scans
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.detect import load_cohort
from medgen.models.artifact import TrainedModel
from medgen.models.exploration import covariate
from medgen.report.exploration import LIMITS
from medgen.report.html import Report
from medgen.runs import tracking
from medgen.runs.context import Results, RunContext
from medgen.runs.folder import RunSummary, open_run
from medgen.training.trainer import device_of

from .. import patient_names
from ..preflight import EXPLORATION, check_data, check_model, check_new
from ..stages import Pipeline
from .config import ExploreConfig
from .locate import Locate, Located, cases_of, explorable, learnt_from
from .walk import Explore

PIPELINE = Pipeline[ExploreConfig]([Locate(), Explore()], given=(TrainedModel, Manifest))


def run(
    model: Path,
    *,
    data: Path,
    out: Path,
    cohort: CohortConfig | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **settings: Any,
) -> RunSummary:
    """Write film strips, animated pictures, ``exploration.json`` and a report of walks through a model's codes.

    Args:
        model: Artifact folder of a model that offers :class:`~medgen.models.base.Interpolates`.
        data: The cohort that it was trained on, with or without further cases.
        out: New folder.
        cohort: How the cohort is laid out.
        overwrite: Replace the results of an earlier exploration.
        progress: Show progress bars.
        settings: The rest of :class:`ExploreConfig`.

    Raises:
        ArtifactError: If the artifact is damaged, or none of its models has codes to walk between.
        ConfigError: If a setting is wrong.
        DataError: If the cohort does not hold what is asked for.
    """
    check_model(model)
    check_data(data)
    check_new(out, (model, data), overwrite=overwrite, mark=EXPLORATION)
    artifact = TrainedModel.load(model, device_of(settings.get("device") or "auto"))
    explorable(artifact, model)
    given = {"model": model, "artifact_sha256": artifact.sha256, "data": data, "out": out}
    config = parse_config(
        ExploreConfig, {**given, "cohort": cohort or CohortConfig(), **settings}, source="command line"
    )
    manifest = load_cohort(data, config.cohort)
    cases_of(manifest, learnt_from(artifact, model), config)
    for name in config.along:
        covariate(manifest, name)
    patient_names.warn(manifest.named_by_folders)
    manifest = check_scans(manifest, config.workers)
    patient_names.announce(manifest)
    seed = int(artifact.meta.get("seed") or 0)
    with (
        open_run(out, config, overwrite=overwrite, mark=EXPLORATION) as folder,
        tracking.start("explore", folder.out, config=config.model_dump(mode="json"), seed=seed) as track,
    ):
        context = RunContext(folder, track, track, seed, progress=progress)
        results = Results([artifact, manifest])
        PIPELINE.run(config, results, context)
        report = Report("Exploration of a model", manifest.name, track.id)
        lines = PIPELINE.finish(config, report, LIMITS, results, context, manifest.named_by_folders)
    failed = bool(results[Located].failures)
    return RunSummary(folder.out, int(failed), (*lines, f"report: {folder.report}"))
