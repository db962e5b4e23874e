"""The stage of an augment run that says how like real scans the synthetic ones are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medgen.runs import tracking
from medgen.runs.folder import RunFolder
from medgen.runs.progress import bars
from medgen.seeds import derive
from medgen.synthesis.fidelity.comparison import (
    Described,
    Features,
    Fidelity,
    Scans,
    auditor_features,
    compare,
    describe,
)
from medgen.synthesis.fidelity.feature_file import FeatureTable, read_features
from medgen.synthesis.fidelity.results import ALL, HELD_OUT, TRAINING, FidelityResults
from medgen.system.files import write_csv

from .config import AugmentRunConfig
from .generate import Generated
from .prepare import PreparedCohort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# A held-out part that cannot be split into two halves of two subjects has no floor.
_FEWEST_SUBJECTS = 4


def read_feature_file(config: AugmentRunConfig, prepared: PreparedCohort) -> FeatureTable | None:
    """The file of ``fidelity.features``, checked for every real scan before anything is trained.

    Raises:
        DataError: If it cannot be used.
    """
    if not config.fidelity.enabled or config.fidelity.features is None:
        return None
    table = read_features(config.fidelity.features)
    table.of([name for dataset in prepared.data.values() for name in dataset.ids])
    return table


def measure_fidelity(
    config: AugmentRunConfig,
    prepared: PreparedCohort,
    generated: Generated,
    table: FeatureTable | None,
    folder: RunFolder,
    stage: tracking.Run,
    *,
    progress: bool,
) -> FidelityResults:
    """Compare accepted scans with the training scans and with the held-out ones; writes ``fidelity.csv``."""
    settings, sources, pool = config.fidelity, generated.sources, generated.pool
    accepted = {backend.name: pool.accepted(backend.name) for backend in generated.backends}
    short = {name: len(scans) for name, scans in accepted.items() if len(scans) < settings.fewest}
    sets = [Scans.synthetic(name, scans) for name, scans in accepted.items() if name not in short]
    if sum(len(scans) > 0 for scans in accepted.values()) > 1 and len(pool.accepted()) >= settings.fewest:
        sets.append(Scans.synthetic(ALL, pool.accepted()))
    real = [Scans.real(TRAINING, sources.labelled, sources.unlabelled)]
    held_out = prepared.data.get("test")
    if held_out is not None and len(set(held_out.subjects)) >= _FEWEST_SUBJECTS:
        real.append(Scans.real(HELD_OUT, held_out))
    features = auditor_features([segmenter for segmenter, _ in generated.filters.auditors])
    source = "channel statistics of the filter's auditors, trained on real labelled scans"
    if table is not None:
        features = _from_file(table)
        source = f"{table.path.name}, SHA-256 {table.sha256[:12]}"
    images = real[0].images
    seed = derive(config.seed, "fidelity")
    described: dict[str, Described] = {}
    with bars(progress) as tick:
        for scans in (*real, *sets) if sets else ():
            described[scans.name] = describe(
                scans,
                features,
                settings,
                labels=sources.labels,
                spacing=prepared.preprocess.spacing,
                data_range=float(images.max() - images.min()),
                seed=seed,
                tick=tick,
            )
    comparisons = [
        compare(described[reference.name], described[scans.name], settings, seed)
        for scans in sets
        for reference in real
    ]
    _log(comparisons, stage)
    _write(comparisons, folder)
    return FidelityResults(tuple(comparisons), described, short, settings.fewest, source)


def _from_file(table: FeatureTable) -> Features:
    def features(ids: Sequence[str], images: Tensor) -> NDArray[np.float64]:
        return table.of(ids)

    return features


def _log(comparisons: Sequence[Fidelity], stage: tracking.Run) -> None:
    values = {
        f"{item.synthetic}.{item.real}.{measure.name}{suffix}": number
        for item in comparisons
        for measure in item.measures
        for suffix, number in (("", measure.synthetic.estimate), (".ratio", measure.ratio.estimate))
    }
    stage.log_metrics({name: number for name, number in values.items() if np.isfinite(number)})


def _write(comparisons: Sequence[Fidelity], folder: RunFolder) -> None:
    """``fidelity.csv``: one row per set, label and statistic."""
    columns = ["synthetic", "real", "label", "statistic", "real_mean", "real_sd", "synthetic_mean", "synthetic_sd"]
    columns += ["difference", "ks", "ks_real", "unlike"]
    rows = [
        {
            "synthetic": item.synthetic,
            "real": item.real,
            "label": row.label,
            "statistic": row.statistic,
            "real_mean": row.real[0],
            "real_sd": row.real[1],
            "synthetic_mean": row.synthetic[0],
            "synthetic_sd": row.synthetic[1],
            "difference": row.difference,
            "ks": row.ks,
            "ks_real": row.ks_real,
            "unlike": row.unlike,
        }
        for item in comparisons
        for row in item.statistics
    ]
    write_csv(folder.out / "fidelity.csv", rows, columns)
