"""What an augment run would do and cost: the backends with reasons, and estimates measured on a few steps."""

from __future__ import annotations

import math
from dataclasses import replace

from medgen.data.cases import Manifest
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.dataset import Dataset, prepare_dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.synthesis.cohort.label_facts import label_facts
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Outline
from medgen.training.cost import describe_memory

from ..stages import cohort_to_plan, plan_lines
from .choice import STUDIED, choose
from .config import AugmentRunConfig
from .intake import admit, check_sources, split
from .stages import estimates


def plan(config: AugmentRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    manifest = cohort_to_plan(config, resume=resume, overwrite=overwrite)
    manifest = admit(config, manifest).apply(manifest)
    parts = split(config, manifest)
    check_sources(config, manifest, parts)
    preprocess = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    channels = len(next(iter(parts.labelled)).read_image().data)
    labels = tuple(sorted(manifest.labels))
    outline = Outline(preprocess.shape, channels, labels or (1,), len(parts.labelled), len(parts.unlabelled))
    studied = _studied(parts, preprocess, config.workers)
    if studied.labels is not None:
        labels = labels or tuple(int(value) for value in studied.labels.unique() if value)
        outline = replace(outline, labels=labels, facts=label_facts(studied, labels))
    lines = [
        f"cohort: {len(parts.labelled.subjects)} labelled subjects, {len(parts.unlabelled)} unlabelled scans, "
        f"{len(parts.validation.subjects)} validation subjects, {len(parts.test.subjects)} test subjects",
        f"grid: {' x '.join(map(str, preprocess.shape))} voxels of {preprocess.spacing} mm, align: {preprocess.align}",
        describe_memory((channels + 1) * len(manifest) * math.prod(preprocess.shape)),
        *choose(config, outline, estimates).lines,
    ]
    return plan_lines(config, manifest, lines)


def _studied(parts: CohortSplit, preprocess: Preprocess, workers: int) -> Dataset:
    """A few labelled scans on the model grid, by their own position: no template is needed to tell kinds of label."""
    cases: Manifest = replace(parts.labelled, cases=parts.labelled.cases[:STUDIED])
    recipe = preprocess.model_copy(update={"align": "center", "center_on": "foreground"})
    return prepare_dataset(cases, recipe, None, workers)[0]
