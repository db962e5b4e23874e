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


def in_all_words(estimates: Iterable[Estimate], development: int) -> str:
    """How long a run takes: what can be timed before anything is trained, and what is scored after that.

    Args:
        estimates: Of all stages.
        development: Number of scans that are scored to calibrate.
    """
    known = list(estimates)
    scans = development + sum(item.scans for item in known)
    trained = minutes(sum(item.seconds for item in known))
    return f"in all: trainings of about {trained}, then about {scans} scans are scored (bars say how long that takes)"


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
    estimates = pipeline().estimates(config, Results([manifest, cohort]))
    lines = [
        f"cohort: {len(manifest)} scans of {len(manifest.subjects)} subjects; {len(parts['development'].subjects)} "
        f"subjects in {config.anomaly.folds} folds, {len(parts['test'].subjects)} held out",
        f"grid: {' x '.join(map(str, recipe.shape))} voxels of {recipe.spacing} mm, align: {recipe.align}",
        describe_memory(len(manifest) * math.prod(recipe.shape) * (channels + 1)),
        prospects_words(prospects(len(parts["development"].subjects), config.anomaly.findings.false_findings)),
        *(line for item in estimates.values() for line in item.lines),
        in_all_words(estimates.values(), len(parts["development"])),
    ]
    return plan_lines(config, manifest, lines)
