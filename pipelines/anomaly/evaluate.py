"""Evaluate heatmaps of any method against masks: medgen's own or another program's, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from medgen import io
from medgen.anomaly.comparison.methods import ScanFacts, ScanScores, compare, reduce_scan
from medgen.config import Config
from medgen.data.layouts.tables import read_table
from medgen.data.masks import read_labels
from medgen.errors import DataError, GeometryError
from medgen.progress import bars
from medgen.report.anomaly.comparison import comparison_lines, comparison_report, comparison_rows
from medgen.runs.folder import RunSummary, open_run
from medgen.runs.outputs import sha256_of, write_inputs
from medgen.system.files import plain, write_csv
from medgen.volume import Volume

from ..preflight import EVALUATION, check_new

_TABLES = ("scans.csv", "manifest.csv", "subjects.csv")
# Of the resampling; a run's own metrics of its heatmaps take the same two.
SEED, BOOTSTRAP = 0, 2000
# Names listed in a message before it says how many more there are.
_LISTED = 5


class EvaluateConfig(Config):
    """One evaluation, as it is kept in ``config.yaml``.

    Attributes:
        predictions: Folder of heatmaps, higher is more anomalous, NaN is not scored.
        truth: Folder of masks with the same file names, above 0 is anomalous.
        against: Folders of other methods' heatmaps of the same scans.
        subjects: CSV with the scan and its subject; default: what lies beside the truth.
        unmatched_healthy: Whether a scan without a mask is healthy.
        seed: Seed of the resampling.
        bootstrap: Resamples of the subjects.
        out: Folder of the results, if files are wanted.
    """

    predictions: Path
    truth: Path
    against: tuple[Path, ...] = ()
    subjects: Path | None = None
    unmatched_healthy: bool = False
    seed: int = SEED
    bootstrap: int = Field(default=BOOTSTRAP, ge=100)
    out: Path | None = None


def run(config: EvaluateConfig, *, overwrite: bool = False, progress: bool = False) -> RunSummary:
    """Score every heatmap against its mask and write tables and report if there is an output folder.

    Args:
        config: What to evaluate.
        overwrite: Replace the results of an earlier evaluation.
        progress: Show progress bars.

    Raises:
        DataError: If a folder holds no images, a file has no partner, or nothing is anomalous.
        GeometryError: If a heatmap does not lie on the grid of its mask.
    """
    if config.out is not None:
        check_new(config.out, (config.predictions, config.truth, *config.against), overwrite=overwrite, mark=EVALUATION)
    predictions = _images(config.predictions)
    truths = _images(config.truth, needed=not config.unmatched_healthy)
    names = _names(config.predictions, config.against)
    folders = {name: _images(folder) for name, folder in zip(names[1:], config.against, strict=True)}
    _check_pairs(config, predictions, truths, folders)
    facts, notes = _facts(config, list(predictions), list(truths))
    methods = {names[0]: predictions, **folders}
    scored: dict[str, list[ScanScores]] = {name: [] for name in names}
    known: list[ScanFacts] = []
    with bars(progress) as tick:
        for done, case in enumerate(predictions, start=1):
            heatmaps = {name: _heatmap(files[case]) for name, files in methods.items()}
            truth = _truth(truths.get(case), next(iter(heatmaps.values())))
            reference = truths.get(case, predictions[case])
            for name, volume in heatmaps.items():
                _check_grid(methods[name][case], volume, reference, truth)
            voxels, domain, own = reduce_scan(
                {name: volume.data[0] for name, volume in heatmaps.items()}, truth.data[0] > 0
            )
            known.append(ScanFacts(case, truth_voxels=voxels, voxels=domain, **facts[case]))
            for name, values in own.items():
                scored[name].append(values)
            tick("reading heatmaps", done, len(predictions))
        result = compare(known, scored, config.bootstrap, config.seed)
    metrics = {**plain(result), "notes": notes}
    lines = (*notes, *comparison_lines(result))
    if config.out is None:
        return RunSummary(None, 0, lines, {"metrics": metrics})
    with open_run(config.out, config, overwrite=overwrite, mark=EVALUATION) as folder:
        read = {**methods, "truth": truths}
        inputs = {
            case: {name: sha256_of(found[case]) for name, found in read.items() if case in found}
            for case in predictions
        }
        write_inputs(folder.out, inputs)
        folder.write_metrics(metrics)
        write_csv(
            folder.out / "metrics.csv", comparison_rows(result), ("method", "metric", "estimate", "low", "high", "n")
        )
        comparison_report(config.predictions, config.truth, config.seed, result, notes).write(folder.report)
    return RunSummary(config.out, 0, (*lines, f"report: {folder.report}"))


def _images(folder: Path, *, needed: bool = True) -> dict[str, Path]:
    """Stem → file, sorted by stem."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not io.is_image(path):
            continue
        other = found.setdefault(io.stem(path), path)
        if other is not path:
            raise DataError(f"{path}: the same scan as {other.name}; expected one file for each; remove one")
    if needed and not found:
        raise DataError(f"{folder}: no image in it; expected one file per scan, such as scan-01.nii.gz")
    return found


def _names(predictions: Path, against: Sequence[Path]) -> list[str]:
    """Short, different names of the methods: the folder's own name, with its parent's where two are the same."""
    folders = [folder.resolve() for folder in (predictions, *against)]
    if len(set(folders)) < len(folders):
        raise DataError(f"{predictions}: a folder is given twice; name each method's folder once")
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _check_pairs(
    config: EvaluateConfig,
    predictions: Mapping[str, Path],
    truths: Mapping[str, Path],
    others: Mapping[str, Mapping[str, Path]],
) -> None:
    """Every scan needs a heatmap from every method and, unless said otherwise, a mask."""
    unmatched = [path.name for case, path in predictions.items() if case not in truths]
    if unmatched and not config.unmatched_healthy:
        raise DataError(
            f"{config.predictions}: no mask in {config.truth} for {_listed(unmatched)}; expected one of the same name "
            "(empty for a healthy scan); pass --unmatched-healthy if they are healthy"
        )
    unscored = [path.name for case, path in truths.items() if case not in predictions]
    if unscored:
        raise DataError(
            f"{config.truth}: no heatmap in {config.predictions} for {_listed(unscored)}; expected one for every mask; "
            "score these scans too, or take their masks out"
        )
    for folder, files in zip(config.against, others.values(), strict=True):
        missing = [path.name for case, path in predictions.items() if case not in files]
        extra = [path.name for case, path in files.items() if case not in predictions]
        if missing or extra:
            what = f"no heatmap for {_listed(missing)}" if missing else f"{_listed(extra)} not in {config.predictions}"
            raise DataError(f"{folder}: {what}; expected heatmaps of the same scans in both folders")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _heatmap(path: Path) -> Volume:
    volume = io.read(path, allow_nan=True)
    if len(volume.data) != 1:
        raise DataError(f"{path}: found {len(volume.data)} channels; expected one heatmap; store one value per voxel")
    if volume.data.dtype.kind == "f" and np.isnan(volume.data).all():
        raise DataError(f"{path}: found NaN in all voxels; expected a heatmap; score the scan again, or leave it out")
    return volume


def _truth(path: Path | None, scan: Volume) -> Volume:
    if path is None:
        return Volume(np.zeros((1, *scan.grid.shape), dtype=np.uint8), scan.grid)
    return read_labels(path)


def _check_grid(path: Path, volume: Volume, reference: Path, truth: Volume) -> None:
    if volume.grid.same_as(truth.grid):
        return
    shapes = ["x".join(map(str, item.grid.shape)) for item in (volume, truth)]
    found = f"shape {shapes[0]}, not {shapes[1]}" if shapes[0] != shapes[1] else "other voxel positions"
    raise GeometryError(
        f"{path}: {found} as {reference}; expected heatmap and mask on one grid; resample the heatmap to the mask"
    )


def _facts(
    config: EvaluateConfig, cases: Sequence[str], masked: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Subject, kind, radius and contrast of each scan, and what to tell the reader about where they come from."""
    table, source = _beside(config.truth, cases, masked)
    facts: dict[str, dict[str, Any]] = {case: {"subject": case} | table.get(case, {}) for case in cases}
    if config.subjects is not None:
        owners = _subject_list(config.subjects, cases)
        for case in cases:
            facts[case]["subject"] = owners[case]
        return facts, [f"subjects: {config.subjects}"]
    if source is None:
        return facts, [
            "subjects: none known, each file counts as a subject of its own; pass --subjects if one has several scans"
        ]
    alone = [case for case in cases if case not in table]
    note = f"subjects, kinds and sizes: {source}" if not alone else f"subjects: {source}, but not of {_listed(alone)}"
    return facts, [note]


def _beside(truth: Path, cases: Sequence[str], masked: Sequence[str]) -> tuple[dict[str, dict[str, Any]], Path | None]:
    """The first table in the folder of the masks or above it that knows all scans with a mask, by scan."""
    for folder in (truth, truth.resolve().parent):
        for name in _TABLES:
            path = folder / name
            if not path.is_file():
                continue
            columns, rows = read_table(path)
            key = next((column for column in ("case", "id") if column in columns), columns[0] if columns else "")
            if "subject" not in columns or key == "subject":
                continue
            wanted = set(cases)
            table = {row[key]: _row_facts(path, line, row) for line, row in rows if row[key] in wanted}
            if table and set(masked) <= set(table):
                return table, path
    return {}, None


def _row_facts(path: Path, line: int, row: Mapping[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"subject": row["subject"] or None, "kind": row.get("kind") or None}
    for name, columns in {"radius_mm": ("radius_mm", "radius"), "contrast": ("contrast",)}.items():
        text = next((row[column] for column in columns if row.get(column)), None)
        try:
            facts[name] = None if text is None else float(text)
        except ValueError:
            raise DataError(f"{path}:{line}: {name} is {text!r}; expected a number; correct the line") from None
    return {key: value for key, value in facts.items() if value is not None}


def _subject_list(path: Path, cases: Sequence[str]) -> dict[str, str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a CSV file with the scan and its subject in each line")
    columns, rows = read_table(path)
    if len(columns) < 2:
        raise DataError(f"{path}: found {len(columns)} column; expected the scan and its subject; correct the file")
    key = next((column for column in ("case", "id") if column in columns), columns[0])
    owner = "subject" if "subject" in columns else columns[1]
    owners: dict[str, str] = {}
    for line, row in rows:
        if row[owner] and owners.setdefault(row[key], row[owner]) != row[owner]:
            raise DataError(
                f"{path}:{line}: {row[key]!r} has two subjects; expected one for each scan; correct the line"
            )
    absent = [case for case in cases if case not in owners]
    if absent:
        raise DataError(f"{path}: no subject for {_listed(absent)}; expected a line for every scan; add them")
    return owners
