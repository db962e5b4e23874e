"""What an anomaly run would do and cost, before it starts."""

from __future__ import annotations

import math

from medgen.data.account import account
from medgen.data.layouts.detect import load_cohort
from medgen.models.catalogue import settings_for
from medgen.preprocessing.automatic import fit_preprocess
from medgen.runs import tracking
from medgen.runs.folder import check_cohort
from medgen.training.cost import describe_memory, describe_training, training_cost

from ..labelled import check_labelled
from .cohort import check_implants, split
from .config import AnomalyRunConfig, refuse


def plan(config: AnomalyRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do and cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    refuse(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    check_labelled(config.models.values(), manifest)
    if resume:
        check_cohort(config.out, manifest.with_hashes(config.workers))
    parts = split(config, manifest)
    subjects = len(parts["development"].subjects)
    channels = len(next(iter(manifest)).read_image().data)
    recipe = fit_preprocess(parts["development"], config.preprocess, config.max_side)
    check_implants(config, recipe)
    voxels = math.prod(recipe.shape)
    trainings = []
    for own in config.models.values():
        settings = settings_for(own.model, recipe.shape, channels, labels=max(manifest.labels, default=1))
        estimate = training_cost(settings, own.training, config.device, getattr(settings, "n_labels", 0))
        trainings.append(describe_training(settings.family, estimate, config.anomaly.folds))
    copies = 1 + config.evaluation.per_scan
    return [
        *account(manifest),
        f"cohort: {len(manifest)} scans of {len(manifest.subjects)} subjects; {subjects} subjects in "
        f"{config.anomaly.folds} folds, {len(parts['test'].subjects)} held out",
        f"grid: {' x '.join(map(str, recipe.shape))} voxels of {recipe.spacing} mm, align: {recipe.align}",
        describe_memory(len(manifest) * voxels * (channels + 1)),
        *trainings,
        f"test: {copies * len(parts['test'])} scans, {config.evaluation.per_scan} implanted copies of each healthy one",
        *_plan_detectability(config, len(parts["test"].subjects)),
        f"output: {config.out}",
        tracking.place(config.out),
    ]


def _plan_detectability(config: AnomalyRunConfig, subjects: int) -> list[str]:
    if not config.detectability.enabled:
        return []
    return [f"minimum detectable lesion: at most {config.detectability.measurements(subjects)} more scans scored"]
