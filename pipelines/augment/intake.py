"""What a run on labelled scans lets in: labels in use, and no mask that is wrong."""

from __future__ import annotations

from functools import partial

from medgen.data.cases import Manifest
from medgen.data.integrity import check_scans
from medgen.faults import Fault, FaultyDataError
from medgen.runs.progress import bars
from medgen.synthesis.cohort.labels_in_use import Labelling, check_masks, labels_in_use, without_partial

from .config import LabelledRunConfig
from .prepare import split


def admit(config: LabelledRunConfig, manifest: Manifest, progress: bool = False) -> Labelling:
    """Check every scan, and every mask that the run will use, before anything is written or trained.

    Raises:
        MedgenError: Naming every bad file, see :func:`medgen.data.integrity.check_scans` and
            :func:`medgen.synthesis.cohort.labels_in_use.check_masks`; or if there are too few labelled subjects.
    """
    wanted = labels_in_use(manifest, config.labels)
    parts = split(config, without_partial(manifest, wanted))
    faults: list[Fault] = []
    used: tuple[int, ...] = ()
    with bars(progress) as tick:
        try:
            check_scans(manifest, config.workers, partial(tick, "checking scans"), masks=False)
        except FaultyDataError as error:
            faults += error.faults
        try:
            shown = partial(tick, "checking masks")
            used = check_masks(parts, manifest.labels, wanted, workers=config.workers, progress=shown)
        except FaultyDataError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise FaultyDataError(faults)
    return Labelling.of(used, manifest.labels)
