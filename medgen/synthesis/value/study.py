"""Does it help? A study of segmenters with and without synthetic scans, at equal training, on held-out subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset
from medgen.runs.cases.map_cases import Spread
from medgen.segmentation.ordinary import needs_unlabelled
from medgen.segmentation.start import segmenter_start
from medgen.synthesis.lineage import guard_parts
from medgen.synthesis.value.arms import Arm
from medgen.synthesis.value.cells import Cell, Material, Span, Study, TestSet, run_cells
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.tables import METRICS, TEST, Row, of_part
from medgen.system.files import plain, read_json, seal_holds, sealed, write_json

# Name of a cell, its mean metrics, when it began and ended.
Done = Callable[[str, Mapping[str, float], Span | None], None]

__all__ = ["METRICS", "Arm", "Material", "Row", "TestSet", "ValueConfig", "run_study"]


def run_study(
    config: ValueConfig,
    materials: Sequence[Material],
    test: TestSet,
    labels: Sequence[int],
    *,
    validation: TestSet | None = None,
    seed: int,
    device: str = "auto",
    workers: int = 1,
    spread: Spread | None = None,
    store: Path | None = None,
    done: Done | None = None,
) -> list[Row]:
    """Train and test every cell: arm × number of subjects × seed.

    Args:
        config: Settings.
        materials: One per number of subjects.
        test: Held-out scans, the same for every cell.
        labels: Label numbers, without 0.
        validation: Further held-out scans, on which the synthetic arm of the verdict is chosen.
        seed: Seed of the run; a cell's random stream depends on it and its seed number, not on its arm.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Cells that are trained at once on a CPU, each in its own process with ``config.threads`` threads; a
            GPU trains one after the other. The rows do not depend on it.
        spread: Where cells are trained instead; with workers on other machines they reach ``store``.
        store: Folder in which finished cells are kept, so that an interrupted study goes on where it stopped.
        done: Called with a cell's name, its mean metrics on the test scans and when it began and ended, in the order in
            which cells finish; the times of a cell that was kept are those of then, None where it does not say.

    Returns:
        A row per cell, held-out case and label: arm, subjects, seed, part (``test`` or ``validation``), case,
        subject, label, dice, hd95_mm, nsd, synthetic_scans, seconds. Arms whose pool is empty have no rows.

    Raises:
        DataError: If an arm needs unlabelled scans and there are none.
        AuditError: If training, validation and test share a subject.
        TrainingError: If a training fails, or a worker process dies.
        ArtifactError: If the trained model that segmenters start from cannot be read.
        ConfigError: If it does not serve, see :func:`medgen.segmentation.start.segmenter_start`.
    """
    for material in materials:
        _check(config, material, test, validation)
    start = None
    if config.init is not None and materials:
        start = segmenter_start(config.init, config.segmenter, materials[0].real.images, labels)
    rows: list[Row] = []
    for material in materials:
        study = Study(config, material, test, validation, tuple(labels), seed, device, start)
        cells = [
            Cell(arm.name, number)
            for arm in map(Arm.parse, config.arms)
            if arm.source is None or material.pools.get(arm.source) is not None
            for number in range(config.seeds)
        ]
        keys = {cell: study.fingerprint(cell) for cell in cells} if store is not None else {}
        found: dict[Cell, list[Row]] = {}
        for cell in cells:
            if store is not None and (kept := _stored(store / f"{study.name(cell)}.json", keys[cell])) is not None:
                found[cell], span = kept
                _tell(done, study.name(cell), found[cell], span)
        missing = [cell for cell in cells if cell not in found]
        for cell, (made, span) in run_cells(
            study, missing, spread or Spread(workers=workers), None if store is None else store / "shards"
        ):
            found[cell] = made
            if store is not None:
                _keep(store / f"{study.name(cell)}.json", keys[cell], made, span)
            _tell(done, study.name(cell), made, span)
        rows += [row for cell in cells for row in found[cell]]
    return rows


def _check(config: ValueConfig, material: Material, test: TestSet, validation: TestSet | None) -> None:
    learnt = {"training": material.real} | ({} if material.unlabelled is None else {"unlabelled": material.unlabelled})
    held_out = {"test": test.data} | ({} if validation is None else {"validation": validation.data})
    pairs: list[tuple[str, Dataset, str, Dataset]] = [
        (name, data, other, more) for name, data in learnt.items() for other, more in held_out.items()
    ]
    if validation is not None:
        pairs.append(("validation", validation.data, "test", test.data))
    for name, data, other, more in pairs:
        guard_parts(name, data.subjects, other, more.subjects)
    for arm in map(Arm.parse, config.arms):
        skipped = arm.source is not None and material.pools.get(arm.source) is None
        wants = arm.ordinary is not None and needs_unlabelled(arm.ordinary)
        if wants and not skipped and (material.unlabelled is None or not len(material.unlabelled)):
            raise DataError(
                f"value.arms: {arm.name!r} learns from unlabelled scans, and with {material.subjects} labelled "
                "subjects there are none; leave the arm out, or allow unlabelled_cases"
            )


def _tell(done: Done | None, name: str, rows: Sequence[Row], span: Span | None) -> None:
    if done is not None:
        own = of_part(rows, TEST)
        means = {metric: float(np.mean([row[metric] for row in own])) for metric in METRICS}
        done(name, {**means, "seconds": float(rows[0]["seconds"])}, span)


def _keep(path: Path, key: str, rows: Sequence[Row], span: Span) -> None:
    write_json(path, sealed({"key": key, "rows": plain(rows), "span": list(span)}))


def _stored(path: Path, key: str) -> tuple[list[Row], Span | None] | None:
    """The rows kept under a key, and when they were made; None if there are none, of another key, or damaged ones.

    The cell is then run again.
    """
    if not path.is_file():
        return None
    try:
        data = read_json(path)
    except DataError:
        return None
    if not isinstance(data, dict) or data.get("key") != key:
        return None
    if "rows" not in data or not seal_holds(data):
        return None
    span = data.get("span")
    return data["rows"], None if span is None else (int(span[0]), int(span[1]))
