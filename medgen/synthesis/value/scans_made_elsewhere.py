"""Synthetic scans made elsewhere or by an earlier run: read, brought to the study's grid, checked for leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import DataError, GeometryError
from medgen.faults import fail
from medgen.preprocessing.dataset import Dataset, prepare_dataset
from medgen.preprocessing.recipe import Preprocess, Template
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.filtering.pool import SyntheticSet
from medgen.synthesis.lineage import SPLITS, HeldOut, guard_masks, read_origin
from medgen.system.files import read_json

RECORDS = "provenance"


@dataclass(frozen=True, eq=False)
class ScansMadeElsewhere:
    """A pool of synthetic scans on the study's grid.

    Attributes:
        name: As arms name it.
        scans: For training.
        records: Scans that come with a provenance record; what the others were made from cannot be checked.
        labelled: Subjects whose masks the generator is known to have seen; None if it is not known.
    """

    name: str
    scans: SyntheticSet
    records: int
    labelled: frozenset[str] | None = None


def read_foreign(
    name: str,
    folder: Path,
    *,
    preprocess: Preprocess,
    template: Template | None,
    labels: Sequence[int],
    channels: int,
    parts: CohortSplit,
    workers: int = 2,
) -> ScansMadeElsewhere:
    """Read a folder of synthetic scans with masks, in any layout and on any grid, by the study's recipe.

    Args:
        name: As arms name it.
        folder: nnU-Net layout, or any other that ``medgen data check`` accepts.
        preprocess: The study's recipe.
        template: Cohort template, where the recipe needs one.
        labels: Label numbers of the study; a mask may hold these and 0.
        channels: Image channels of the study.
        parts: The study's parts with hashes, for the leak checks.
        workers: Threads.

    Raises:
        DataError: Naming the case, if it has no mask, cannot be read, or has a label that the study does not know.
        AuditError: Naming the case, if its record names a held-out parent, it bears a held-out subject's or case's
            name, or one of its files is a file of a held-out case.
    """
    manifest = check_foreign(folder).with_hashes(workers)
    records = _guard(name, manifest, folder, parts)
    data, failures = prepare_dataset(manifest, preprocess, template, workers)
    if failures:
        raise DataError(f"{folder}: {failures[0].case} cannot be used: {failures[0].message}")
    if data.channels != channels:
        raise DataError(f"{folder}: scans of {data.channels} channels; the study's have {channels}")
    return ScansMadeElsewhere(name, _checked(data, labels, folder), records)


def check_foreign(folder: Path) -> Manifest:
    """The synthetic scans of a folder, each with a mask; no image is read.

    Raises:
        DataError: If there are none, or naming the first without a mask.
    """
    manifest = load_cohort(folder, ask=False)
    for case in manifest:
        if case.mask is None:
            raise fail(
                folder, f"no mask for {case.id}", "a mask for every synthetic scan", "add it, or remove the scan"
            )
    return manifest


def check_run(run: Path, parts: CohortSplit) -> dict[str, str]:
    """Subject → part of an augment run, of those that its generators learnt from; none may be held out here.

    Raises:
        DataError: If the folder holds no such run.
        AuditError: If the run learnt from a subject that the study holds out.
    """
    if not (run / "synthetic" / "dataset.json").is_file() or not (run / SPLITS).is_file():
        raise fail(run, "no synthetic/dataset.json and splits.csv", "the folder of an augment run", "check the path")
    splits = read_origin(run / SPLITS)
    splits.refuse_study(parts.held_out)
    return splits.taught


def read_run(
    run: Path, *, preprocess: Preprocess, labels: Sequence[int], parts: CohortSplit
) -> list[ScansMadeElsewhere]:
    """Accepted scans of an earlier ``augment run``, one pool per backend, as they were made: nothing is resampled.

    Args:
        run: Its folder.
        preprocess: The study's recipe; its grid must be the run's.
        labels: Label numbers of the study.
        parts: The study's parts.

    Raises:
        DataError: If the folder holds no such run, or its scans lie on another grid.
        AuditError: If the run learnt from a subject that the study holds out.
    """
    folder = run / "synthetic"
    learnt = check_run(run, parts)
    labelled = frozenset(subject for subject, part in learnt.items() if part == "labelled")
    manifest = load_cohort(folder, ask=False).with_hashes()
    _guard(run.name, manifest, folder, parts)
    groups: dict[str, list[tuple[str, torch.Tensor, torch.Tensor]]] = {}
    grid = preprocess.canonical()
    for case in manifest:
        image = case.read_image()
        mask = case.read_mask(image)
        if mask is None:
            raise fail(folder, f"no mask for {case.id}", "a mask for every synthetic scan", "copy the whole folder")
        if not image.grid.same_as(grid):
            raise GeometryError(
                f"{run}: {case.id} lies on a grid of {'x'.join(map(str, image.grid.shape))} voxels, this study's is "
                f"{'x'.join(map(str, grid.shape))} (or another spacing); set preprocess as in that run's config.yaml"
            )
        backend = str(_record(folder, case.id).get("backend", run.name))
        scan = torch.from_numpy(image.data.astype("float32")), torch.from_numpy(mask.data.astype("uint8"))
        groups.setdefault(backend, []).append((case.id, *scan))
    pools = []
    for backend, members in groups.items():
        images, masks = torch.stack([image for _, image, _ in members]), torch.stack([mask for _, _, mask in members])
        ids = tuple(name for name, _, _ in members)
        scans = _checked(Dataset(ids, ids, images, masks > 0, masks), labels, folder)
        pools.append(ScansMadeElsewhere(backend, scans, len(members), labelled))
    return pools


def together(pools: Sequence[ScansMadeElsewhere]) -> dict[str, SyntheticSet | None]:
    """Pools by name, and under ``""`` all of them joined."""
    if not pools:
        return {}
    images, labels = (torch.cat([getattr(pool.scans, field) for pool in pools]) for field in ("images", "labels"))
    return {"": SyntheticSet(images, labels), **{pool.name: pool.scans for pool in pools}}


def guard_labels(pools: Sequence[ScansMadeElsewhere], labelled: Sequence[str]) -> None:
    """Refuse pools whose generator is known to have seen masks of subjects that the segmenters do not have.

    Raises:
        AuditError: Naming the pool and a subject.
    """
    for pool in pools:
        guard_masks(pool.name, pool.labelled or frozenset(), labelled)


def _guard(name: str, manifest: Manifest, folder: Path, parts: CohortSplit) -> int:
    """Refuse what is known to be made from held-out scans; the number of scans with a provenance record."""
    held_out, records = HeldOut(parts.named()), 0
    for case in manifest:
        record = _record(folder, case.id)
        records += bool(record)
        held_out.refuse(case, _parents(record), f"{folder}: {case.id} ({name})")
    return records


def _record(folder: Path, case: str) -> Mapping[str, Any]:
    path = (folder if folder.is_dir() else folder.parent) / RECORDS / f"{case}.json"
    if not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict):
        raise fail(path, "no JSON object", "a provenance record", "restore it, or remove it")
    return record


def _parents(record: Mapping[str, Any]) -> list[str]:
    """Cases or subjects that a record names: plain names, or objects with ``case`` or ``subject``."""
    parents = record.get("parents", ())
    names: list[str] = []
    for parent in parents if isinstance(parents, list) else [parents]:
        if isinstance(parent, Mapping):
            names += [str(parent[key]) for key in ("case", "subject") if key in parent]
        elif parent:
            names.append(str(parent))
    return names


def _checked(data: Dataset, labels: Sequence[int], folder: Path) -> SyntheticSet:
    masks = data.labels
    if masks is None:
        raise fail(folder, "scans without masks", "a mask for every synthetic scan", "add them")
    known = {0, *labels}
    for name, mask in zip(data.ids, masks, strict=True):
        strange = sorted({int(value) for value in mask.unique()} - known)
        if strange:
            raise DataError(
                f"{folder}: the mask of {name} has the label {strange[0]}, which the cohort does not; "
                f"expected 0, {', '.join(map(str, labels))}: renumber it, or declare it in the cohort"
            )
    return SyntheticSet(data.images, masks)
