"""What a run on labelled scans lets in: labels in use, no mask that is wrong, and who is in which part."""

from __future__ import annotations

from functools import partial

from medgen.data.cases import Manifest
from medgen.data.integrity import check_scans
from medgen.errors import DataError
from medgen.faults import Fault, FaultyDataError
from medgen.progress import bars
from medgen.seeds import derive
from medgen.synthesis.cohort.labels_in_use import Labelling, check_masks, labels_in_use, without_partial
from medgen.synthesis.cohort.split import CohortSplit, divide

from .. import sources
from .config import LabelledRunConfig

# The family of what segmenters start from.
_SEGMENTER = "segmenter"


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


def held_out(config: LabelledRunConfig, parts: CohortSplit) -> dict[str, Manifest]:
    """Whom a model that generators and segmenters start from must not know: those of validation and test.

    Where the value study trains on fewer labelled subjects, others than these must not come in by the back door: the
    labelled ones are then among them.
    """
    found = {"validation": parts.validation, "test": parts.test}
    if config.value.enabled and (config.value.subjects or config.value.real_only):
        found["a study of fewer labelled subjects"] = parts.labelled
    return found


def check_sources(config: LabelledRunConfig, manifest: Manifest, parts: CohortSplit) -> None:
    """Refuse trained models that the run starts from and that know whom it holds out, and executors that are not there.

    A segmenter of the value study must know nobody whose mask the study does not give it: unlabelled subjects are held
    out as well.

    Args:
        config: The run.
        manifest: Its cohort.
        parts: Who is in which part.

    Raises:
        MedgenError: As :func:`medgen.pipelines.sources.check_sources`.
        ConfigError: If the executor of the value study cannot be used here.
    """
    config.spread.made()
    parts_held_out = held_out(config, parts)
    sources.check_sources(config, manifest, parts_held_out, config.workers)
    if config.value.enabled:
        unlabelled = {"its mask, which no segmenter of the study may know": parts.unlabelled}
        sources.check_sources(config.value, manifest, {**parts_held_out, **unlabelled}, config.workers, _SEGMENTER)


def split(config: LabelledRunConfig, manifest: Manifest) -> CohortSplit:
    """Labelled, unlabelled, validation and test subjects of the run."""
    parts = divide(
        manifest,
        test=config.test,
        labelled_subjects=config.labelled_subjects,
        unlabelled_cases=config.unlabelled_cases,
        seed=derive(config.seed, "split"),
        fold=None if config.folds is None else (config.fold, config.folds),
        validation=config.validation,
    )
    most, wanted = len(parts.labelled.subjects), max((*config.value.subjects, *config.value.real_only), default=0)
    if config.value.enabled and wanted > most:
        raise DataError(f"value.subjects: {wanted} labelled subjects wanted, {most} are there; expected 2 to {most}")
    return parts
