"""What it costs to prepare, calibrate on and score scans of a cohort, tried out on a few before anything is trained.

The functions of the run itself are timed: two scans are brought to the model grid, and a detector whose models have
done a single step is fitted on a coarser grid and scores one of them. What happens on the model grid grows with its
voxels, what happens on the scan's own grid is done in full.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from medgen.anomaly.artefacts.signs import ArtefactLimits, not_named
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.artefacts import spoilt_scan
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.data.cases import Manifest
from medgen.errors import MedgenError
from medgen.implants.artefact import STRENGTHS
from medgen.implants.implanted_scans import HEALTHY, TestScan
from medgen.models.base import ScanModel
from medgen.models.catalogue import build, settings_for
from medgen.preprocessing.dataset import Dataset, join, prepare_dataset
from medgen.preprocessing.parts import template_of
from medgen.preprocessing.recipe import Preprocess
from medgen.report.anomaly.examples import example
from medgen.report.anomaly.pictures import Scored
from medgen.runs.environment import threads
from medgen.seeds import numpy_rng
from medgen.training.cost import minutes
from medgen.training.stand_in import stand_in
from medgen.training.trainer import fit
from medgen.transforms.affine_registration import register_affine

from .cohort import AnomalyCohort
from .config import AnomalyRunConfig
from .outputs import ScanFiles
from .scored.viewers import Viewers

T = TypeVar("T")

# Scans that are read, and folds of the stand-in at most.
_SCANS, _FOLDS = 2, 4
# Expected false findings and false-positive rate that any number of subjects supports.
_EASY = 0.5


@dataclass(frozen=True)
class Trial:
    """Seconds that each of many scans of a run takes.

    Attributes:
        template: To make the template, for a development scan.
        prepare: To bring a scan to the model grid.
        calibrate: To learn from a development scan what is healthy, its implanted copies included.
        score: To score a scan by every fold, back on its own grid, and to write its heatmap.
        lean: The same with the scores of the heatmap only, and no file.
        page: To write the page and the pictures of a scan that is shown.
        spoil: To make a faulty copy of a scan and to look at it.
        failed: Why nothing could be tried out; empty if it could.
    """

    template: float = 0.0
    prepare: float = 0.0
    calibrate: float = 0.0
    score: float = 0.0
    lean: float = 0.0
    page: float = 0.0
    spoil: float = 0.0
    failed: str = ""

    def line(self, said: str, seconds: float) -> str:
        """A line of the plan: what a part does, and how long that takes where it could be tried out."""
        return said if self.failed else f"{said}, about {minutes(seconds)}"


def try_out(config: AnomalyRunConfig, manifest: Manifest, cohort: AnomalyCohort) -> Trial:
    """Time a few scans of a cohort.

    Args:
        config: What would be run.
        manifest: The cohort.
        cohort: As it would be divided.
    """
    # What is said of models that have learnt nothing says nothing of those of the run.
    logging.disable(logging.WARNING)
    try:
        return _tried(config, manifest, cohort)
    except (MedgenError, ArithmeticError, RuntimeError, ValueError) as error:
        # Two scans on a coarse grid may be too few or too flat for what the whole cohort supports.
        return Trial(failed=" ".join(str(error).split()))
    finally:
        logging.disable(logging.NOTSET)


def _tried(config: AnomalyRunConfig, manifest: Manifest, cohort: AnomalyCohort) -> Trial:
    recipe, development = cohort.recipe, cohort.parts["development"]
    first = development.subset([case.id for case in list(development)[:_SCANS]])
    at_once = max(1, min(config.workers, threads()))
    template, template_s = _timed(
        lambda: template_of(first, recipe, workers=1, register=register_affine, tick=lambda what, done, total: None)
    )
    _, prepare_s = _timed(lambda: prepare_dataset(first, recipe, template, workers=1))
    coarse = _coarser(recipe)
    larger = math.prod(recipe.shape) / math.prod(coarse.shape)
    folds = min(config.anomaly.folds, _FOLDS)
    few = _several(prepare_dataset(first, coarse, None, workers=1)[0], 2 * folds)
    models = [_barely_trained(config, name, few, manifest) for name in config.models]
    held_out, easy = [few.ids[start::folds] for start in range(folds)], _any_cohort(config.anomaly, folds)
    detector, calibrate_s = _timed(lambda: AnomalyDetector.fit(few, held_out, [models] * folds, easy, coarse))
    scan = few.prepared[0]
    measured, measure_s = _timed(lambda: detector.measure(few.images[0], few.foregrounds[0], scan.attributes))
    _, lean_s = _timed(lambda: detector.lean.measure(few.images[0], few.foregrounds[0], scan.attributes))
    result, result_s = _timed(lambda: detector.result(scan, measured))
    with tempfile.TemporaryDirectory() as folder:
        files, viewers = ScanFiles(Path(folder)), Viewers.of(Path(folder), "all", 1)
        _, write_s = _timed(lambda: files.add("scan", result))
        shown = Scored("scan", as_seen(scan, coarse), result)
        _, page_s = _timed(lambda: viewers.write(shown, detector, "report.html"))
        _, pseudo_s = _timed(lambda: detector.pseudo_healthy(scan))
        _, picture_s = _timed(lambda: example(_untouched(few), result))
    looking = _looking(detector, few, config, cohort)
    kinds = dict(config.artefacts.cells(tomogram=recipe.modality == "CT"))
    _, spoil_s = _timed(
        lambda: [
            looking.doubts(spoilt_scan(scan, kind, STRENGTHS[strength], numpy_rng(0, "trial"), coarse))
            for kind, strength in kinds.items()
        ]
    )
    return Trial(
        template=template_s / len(first) / at_once,
        prepare=prepare_s / len(first) / at_once,
        # The heatmaps of calibration scans go back to their own grids, too.
        calibrate=max(calibrate_s / len(few) - result_s, 0.0) * larger + result_s,
        score=measure_s * larger * config.anomaly.folds / folds + result_s + write_s,
        lean=lean_s * larger * config.anomaly.folds / folds + result_s,
        page=page_s + pseudo_s + picture_s,
        spoil=spoil_s / len(kinds) * larger,
    )


def _looking(
    detector: AnomalyDetector, few: Dataset, config: AnomalyRunConfig, cohort: AnomalyCohort
) -> AnomalyDetector:
    """The detector with the limits of artefacts that it would have if its subjects were as many as the run's."""
    subjects = len(cohort.parts["development"].subjects)
    if detector.gate is None or not_named(subjects, cohort.recipe.spacing):
        return detector
    return replace(detector, artefacts=ArtefactLimits.fit(few, detector.gate.reference, config.anomaly.gate))


def _untouched(data: Dataset) -> TestScan:
    """The first scan as one to be tested."""
    nothing = np.zeros(data.shape, dtype=bool)
    image, shown, prepared = data.images[0], data.foregrounds[0], data.prepared[0]
    return TestScan("scan", "scan", "scan", HEALTHY, 0.0, 0.0, image, shown, nothing, prepared)


def _timed(what: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    return what(), time.perf_counter() - begun


def _coarser(recipe: Preprocess) -> Preprocess:
    """The same field of view in fewer voxels, without a template."""
    shape = stand_in(recipe.shape)
    spacing = tuple(step * n / few for step, n, few in zip(recipe.spacing, recipe.shape, shape, strict=True))
    return recipe.model_copy(update={"shape": shape, "spacing": spacing, "align": "center", "center_on": "foreground"})


def _several(data: Dataset, count: int) -> Dataset:
    """So many scans, each of another subject: those there are, mirrored, and moved by some voxels."""
    parts = []
    for number in range(count):
        row, turn = number % len(data), number // len(data)
        name, moved = f"scan-{number}", (turn // 2, 0, 0)
        images, shown = (
            (own[[row]].flip(2) if turn % 2 else own[[row]]).roll(moved, (2, 3, 4))
            for own in (data.images, data.foregrounds)
        )
        prepared = replace(data.prepared[row], image=images[0].numpy(), foreground=shown[0, 0].numpy())
        parts.append(Dataset((name,), (name,), images, shown, None, (prepared,)))
    return join(parts)


def _barely_trained(config: AnomalyRunConfig, name: str, few: Dataset, manifest: Manifest) -> ScanModel:
    """A model of the run for the coarse grid, after as few steps as it has stages."""
    own = config.models[name]
    settings = settings_for(own.model, few.shape, few.channels, labels=max(manifest.labels, default=1))
    model = build(settings, seed=0)
    short = own.training.model_copy(
        update={"steps": len(model.stages()), "batch_size": 1, "accumulate": 1, "init": None, "validate_every": 0}
    )
    return fit(model, few, short, seed=0, device=config.device).model


def _any_cohort(anomaly: AnomalyConfig, folds: int) -> AnomalyConfig:
    """The configuration with levels that any number of subjects supports."""
    return anomaly.model_copy(
        update={
            "folds": folds,
            # What scores train of their own is estimated by themselves.
            "network_steps": 1,
            "calibration": anomaly.calibration.model_copy(update={"target_fpr": _EASY}),
            "findings": anomaly.findings.model_copy(update={"false_findings": _EASY}),
        }
    )
