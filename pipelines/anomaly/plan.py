"""What an anomaly run would do and cost, before it starts."""

from __future__ import annotations

import math

from medgen.anomaly.evaluation.prospects import prospects, prospects_words
from medgen.runs.context import Results
from medgen.training.cost import describe_memory

from ..labelled import check_labelled
from ..sources import check_sources
from ..stages import cohort_to_plan, plan_lines
from .cohort import divide, split
from .config import AnomalyRunConfig, refuse
from .stages import pipeline


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
    ]
    return plan_lines(config, manifest, lines)
