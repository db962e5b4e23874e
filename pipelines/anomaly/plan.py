"""What an anomaly run would do and cost, before it starts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from medgen.anomaly.evaluation.prospects import prospects, prospects_words
from medgen.runs.context import Results
from medgen.training.cost import Estimate, describe_memory, minutes

from ..labelled import check_labelled
from ..sources import check_sources
from ..stages import cohort_to_plan, plan_lines
from .cohort import divide, split
from .config import AnomalyRunConfig, refuse
from .stages import pipeline
from .trial import Trial, try_out


def in_all_words(estimates: Iterable[Estimate], trial: Trial) -> str:
    """How long a run takes.

    Args:
        estimates: Of all stages.
        trial: What scans take.
    """
    known = list(estimates)
    taken, scans = minutes(sum(item.seconds for item in known)), sum(item.scans for item in known)
    if trial.failed:
        return (
            f"in all: trainings of about {taken}, then about {scans} scans are scored, which could not be tried out: "
            f"{trial.failed}"
        )
    return f"in all: about {taken}; {scans} scans are scored"


def plan(config: AnomalyRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do and cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    refuse(config, resume=resume, overwrite=overwrite)
    manifest = cohort_to_plan(config, resume=resume, overwrite=overwrite)
    check_labelled(config.models.values(), manifest)
    divided = split(config, manifest)
    check_sources(config, manifest, divided, config.workers)
    cohort = divide(config, divided)
    recipe, parts = cohort.recipe, cohort.parts
    channels = len(next(iter(manifest)).read_image().data)
    trial = try_out(config, manifest, cohort)
    estimates = pipeline().estimates(config, Results([manifest, cohort, trial]))
    lines = [
        f"cohort: {len(manifest)} scans of {len(manifest.subjects)} subjects; {len(parts['development'].subjects)} "
        f"subjects in {config.anomaly.folds} folds, {len(parts['test'].subjects)} held out",
        f"grid: {' x '.join(map(str, recipe.shape))} voxels of {recipe.spacing} mm, align: {recipe.align}",
        describe_memory(len(manifest) * math.prod(recipe.shape) * (channels + 1)),
        prospects_words(prospects(len(parts["development"].subjects), config.anomaly.findings.false_findings)),
        *(line for item in estimates.values() for line in item.lines),
        in_all_words(estimates.values(), trial),
    ]
    return plan_lines(config, manifest, lines)
