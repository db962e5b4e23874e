"""The mean anatomy of a cohort, which scans are registered to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medgen import affines
from medgen.errors import DataError
from medgen.preprocessing.cleaning import DONE
from medgen.preprocessing.prepared import PreparedScan, Template
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Progress
from medgen.system.processes import thread_pool
from medgen.transforms.affine_registration import AffineResult, register_affine
from medgen.transforms.kept_registrations import Register
from medgen.volume import Grid, Volume

logger = logging.getLogger(__name__)


def build_template(
    scans: Sequence[Volume],
    preprocess: Preprocess,
    iterations: int = 2,
    *,
    workers: int = 2,
    progress: Progress | None = None,
    register: Register = register_affine,
) -> Template:
    """The mean anatomy of a cohort. Use training scans only: held-out scans must not shape what they are judged by.

    With ``align: affine`` every scan is registered to the scan nearest to the centred mean, the mean is taken, and
    this is repeated from the mean. After each round the transforms are recentred by their log-Euclidean mean (Arsigny
    et al., "Log-Euclidean polyaffine transforms", 2009), so that size and pose are the cohort's mean and not those of
    the first scan. Scans that do not register believably are left out and logged.

    Args:
        scans: Native images with the same number of channels.
        preprocess: The recipe; gives the template's grid.
        iterations: Rounds of registration; ``center`` needs none.
        workers: Threads.
        progress: Called with (registrations done, registrations in all).
        register: What registers; :class:`medgen.transforms.kept_registrations.KeptRegistrations` remembers.

    Returns:
        Image and foreground on ``preprocess.canonical()``.

    Raises:
        DataError: If there are no scans, or fewer than half of them register.
    """
    if not scans:
        raise DataError("a template needs at least one training scan, found none")
    if len({len(scan.data) for scan in scans}) != 1:
        raise DataError(f"a template needs scans with equal channels, found {sorted({len(s.data) for s in scans})}")
    scans = [preprocess.clean(scan).scan for scan in scans]
    preprocess = preprocess.model_copy(update=DONE)
    grid = preprocess.canonical()
    # The start is around the foreground's centre also where the recipe goes by the field of view.
    centre_on = "foreground" if preprocess.align == "affine" else preprocess.center_on
    centred = preprocess.model_copy(update={"align": "center", "center_on": centre_on})
    with thread_pool(workers) as pool:
        starts = list(pool.map(centred.apply, scans))
        template = _mean(starts, grid)
        if preprocess.align == "center":
            return template
        template = _mean([max(starts, key=lambda item: _likeness(item, template))], grid)
        bodies = list(pool.map(preprocess._body, scans))
        poses = [affines.product(start.grid.affine, affines.inverse(grid.affine)) for start in starts]
        worlds: list[NDArray[np.float64] | None] = [None] * len(scans)
        done = 0
        for _ in range(max(iterations, 1)):
            results = []
            towards = partial(_towards, register, template)
            for result in pool.map(towards, scans, worlds):
                results.append(result)
                done += 1
                if progress:
                    progress(done, max(iterations, 1) * len(scans))
            good = [index for index, result in enumerate(results) if result.plausible(preprocess.min_similarity)]
            if 2 * len(good) < len(scans):
                raise DataError(
                    f"only {len(good)} of {len(scans)} training scans register to each other; "
                    "use preprocess.align=center, or check that they show the same organ"
                )
            moves = [affines.product(affines.inverse(poses[index]), results[index].world) for index in good]
            back = affines.inverse(affines.log_mean(moves))
            found = {index: affines.product(results[index].world, back) for index in good}
            worlds = [found.get(index) for index in range(len(scans))]
            grids = [grid.moved(found[index]) for index in good]
            moved = pool.map(preprocess._sample, [scans[n] for n in good], [bodies[n] for n in good], grids)
            template = _mean(list(moved), grid)
    for index in sorted(set(range(len(scans))) - set(good)):
        logger.warning("training scan %d was left out of the template: %s", index, results[index].problem())
    return template


def _towards(register: Register, template: Template, scan: Volume, start: NDArray[np.float64] | None) -> AffineResult:
    return register(scan, template.image, template.foreground, start=start)


def _mean(items: Sequence[PreparedScan], grid: Grid) -> Template:
    image = np.stack([item.image for item in items]).mean(axis=0, dtype=np.float32)
    foreground = np.stack([item.foreground for item in items]).mean(axis=0) > 0.5
    return Template(Volume(image, grid), Volume(foreground[None], grid))


def _likeness(item: PreparedScan, template: Template) -> float:
    return float(np.corrcoef(item.image.ravel(), template.image.data.ravel())[0, 1])
