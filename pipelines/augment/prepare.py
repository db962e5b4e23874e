"""The stages of an augment run: each turns what the stages before it made into the next thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from medgen.data.cases import Manifest, write_splits
from medgen.errors import DataError
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.dataset import Dataset, Failure, join, prepare_dataset
from medgen.preprocessing.recipe import Preprocess, Template, build_template
from medgen.runs import tracking
from medgen.runs.folder import RunFolder
from medgen.runs.progress import bars
from medgen.seeds import derive
from medgen.synthesis.cohort.labels_in_use import Labelling
from medgen.synthesis.cohort.split import CohortSplit, divide
from medgen.synthesis.sources import Sources
from medgen.transforms.kept_registrations import Register

from .. import patient_names
from .config import LabelledRunConfig


@dataclass(frozen=True, eq=False)
class PreparedCohort:
    """The cohort on the model grid."""

    preprocess: Preprocess
    template: Template | None
    data: Mapping[str, Dataset]
    labels: tuple[int, ...]
    manifest: Manifest
    failures: tuple[Failure, ...]

    def sources(self, parts: CohortSplit) -> Sources:
        """What generators may learn from, of these parts."""
        ids = {part: {*dataset.ids} for part, dataset in self.data.items()}
        labelled = self.data["labelled"].subset([case.id for case in parts.labelled if case.id in ids["labelled"]])
        unlabelled = [
            self.data[part].subset([case.id for case in parts.unlabelled if case.id in ids[part]])
            for part in ("labelled", "unlabelled")
            if part in self.data
        ]
        others = [replace(dataset, labels=None) for dataset in unlabelled if len(dataset)]
        hashes = {case.id: dict(case.sha256) for case in self.manifest}
        used = {*labelled.ids, *(name for dataset in others for name in dataset.ids)}
        return Sources(
            labelled, join(others) if others else None, self.labels, hashes, faces=frozenset(used & self.faces)
        )

    @property
    def faces(self) -> frozenset[str]:
        """Cases whose scans may show a face."""
        scans = [pair for dataset in self.data.values() for pair in zip(dataset.ids, dataset.prepared, strict=False)]
        return frozenset(name for name, prepared in scans if prepared.may_show_face)


def begin(
    config: LabelledRunConfig,
    manifest: Manifest,
    labelling: Labelling,
    folder: RunFolder,
    track: tracking.Run,
    progress: bool,
) -> tuple[Manifest, CohortSplit, PreparedCohort]:
    """Split and prepare a cohort, as the first two stages of a run, and write who is where.

    Returns:
        The manifest with the label numbers in use, its parts, and the scans on the model grid.
    """
    with track.stage("split"):
        patient_names.write_manifest(manifest, folder.out / "manifest.csv")
        manifest = labelling.apply(manifest)
        parts = split(config, manifest)
        write_splits(folder.out / "splits.csv", parts.named())
    with track.stage("prepare") as stage:
        prepared = prepare(config, manifest, parts, folder.registrations, progress)
        stage.log_metrics({name: len(dataset) for name, dataset in prepared.data.items()})
        folder.write_failures((failure.case, "preprocess", failure.message) for failure in prepared.failures)
    return manifest, parts, prepared


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


def prepare(
    config: LabelledRunConfig, manifest: Manifest, parts: CohortSplit, register: Register, progress: bool
) -> PreparedCohort:
    """Choose the recipe (and build the template) from training scans, then bring every scan to the model grid."""
    # The recipe and the template come from training scans only.
    preprocess = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    template = None
    if preprocess.align == "affine":
        with bars(progress) as tick:
            scans = [case.read_image() for case in parts.labelled]
            template = build_template(
                scans, preprocess, workers=config.workers, progress=partial(tick, "cohort template"), register=register
            )
    data: dict[str, Dataset] = {}
    failures: list[Failure] = []
    for name, part in parts.named().items():
        if len(part):
            with bars(progress) as tick:
                shown = partial(tick, f"preparing {name} scans")
                data[name], failed = prepare_dataset(part, preprocess, template, config.workers, shown, register)
            failures += failed
    seen = data["labelled"].labels
    if seen is None:
        raise DataError(f"{manifest.name}: the labelled training scans could not be prepared with their masks")
    labels = tuple(sorted(manifest.labels)) or tuple(int(value) for value in seen.unique() if value > 0)
    return PreparedCohort(preprocess, template, data, labels, manifest, tuple(failures))


def label_names(prepared: PreparedCohort) -> dict[int, str]:
    """Label → name, of the labels in use."""
    return {label: prepared.manifest.labels.get(label, f"label {label}") for label in prepared.labels}
