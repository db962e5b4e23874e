"""How like real scans accepted synthetic ones are: scans, labels and features brought together for the metrics.

Features come from the filter's auditors, networks that were trained on real labelled scans only: a network that had
seen synthetic scans would have learnt to see them as real. A file of features from another network can replace them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from medgen.config import Config
from medgen.metrics.fidelity import (
    StatisticRow,
    compare_diversity,
    compare_features,
    compare_statistics,
    compare_volumes,
)
from medgen.metrics.halves import Measure
from medgen.metrics.label_statistics import label_statistics, statistics_names
from medgen.metrics.msssim import pairwise_ms_ssim
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Tick
from medgen.seeds import derive, numpy_rng
from medgen.segmentation.segmenter import Segmenter
from medgen.synthesis.filtering.looks import channel_statistics
from medgen.synthesis.filtering.pool import Candidate

Array = NDArray[np.float64]
Features = Callable[[Sequence[str], Tensor], Array]
VOLUME = "volume_mm3"


class FidelityConfig(Config):
    """How synthetic scans are compared with real ones.

    Attributes:
        enabled: False leaves the comparison out of a run.
        features: File with a vector per scan (:func:`medgen.synthesis.fidelity.feature_file.read_features`) instead of
            the features of the filter's auditors.
        fewest: Accepted scans that a backend must have to be measured.
        splits: Splits of the real scans by subject.
        k: Neighbours of density and coverage; fewer where there are fewer than 8 k real scans.
        similar: Scans of each set that are compared pair by pair for MS-SSIM; the time grows with the square.
    """

    enabled: bool = True
    features: Path | None = None
    fewest: Annotated[int, Field(ge=4)] = 10
    splits: Annotated[int, Field(ge=20)] = 200
    k: Annotated[int, Field(ge=1)] = 5
    similar: Annotated[int, Field(ge=4)] = 24


@dataclass(frozen=True, eq=False)
class Scans:
    """A set of scans on one grid.

    Attributes:
        name: Name of the set in tables.
        ids: Case ids.
        groups: Subject of each scan; for a synthetic scan its own id.
        images: (n, c, i, j, k).
        labels: (m, i, j, k) of the first m scans; m may be 0.
    """

    name: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    images: Tensor
    labels: Tensor

    @classmethod
    def real(cls, name: str, labelled: Dataset, unlabelled: Dataset | None = None) -> Scans:
        """Scans with labels, if they have any, then scans without."""
        images = labelled.images if unlabelled is None else torch.cat([labelled.images, unlabelled.images])
        labels = torch.zeros(0, *labelled.shape) if labelled.labels is None else labelled.labels[:, 0]
        more = ((), ()) if unlabelled is None else (unlabelled.ids, unlabelled.subjects)
        return cls(name, (*labelled.ids, *more[0]), (*labelled.subjects, *more[1]), images, labels)

    @classmethod
    def synthetic(cls, name: str, candidates: Sequence[Candidate]) -> Scans:
        """Sampled scans, each an independent draw of its generator."""
        scans = [candidate.synthetic for candidate in candidates if candidate.synthetic is not None]
        ids = tuple(candidate.id for candidate in candidates if candidate.synthetic is not None)
        images = torch.from_numpy(np.stack([scan.image for scan in scans]))
        return cls(name, ids, ids, images, torch.from_numpy(np.stack([scan.labels for scan in scans])))


@dataclass(frozen=True, eq=False)
class Described:
    """A set of scans in numbers.

    Attributes:
        name: Name of the set in tables.
        groups: Subject of each scan.
        features: (n, d).
        statistics: Label → statistic → (m,) of the scans with labels.
        similarity: MS-SSIM of the chosen scans, (s, s).
        similarity_groups: Their subjects.
    """

    name: str
    groups: tuple[str, ...]
    features: Array
    statistics: Mapping[int, Mapping[str, Array]]
    similarity: Array
    similarity_groups: tuple[str, ...]

    @property
    def labelled(self) -> int:
        """Scans with labels."""
        return next((len(values) for table in self.statistics.values() for values in table.values()), 0)


@dataclass(frozen=True, eq=False)
class Fidelity:
    """What a comparison of one synthetic set with one real set has found.

    Attributes:
        synthetic: Name of the synthetic set.
        real: Name of the real set.
        scans: Synthetic scans.
        real_scans: Real scans.
        subjects: Their subjects.
        labelled: Real scans with labels, which volumes and statistics are compared with.
        measures: ``kid``, ``mmd``, ``density``, ``coverage``, ``ms_ssim``, then ``volume_<label>`` of each label.
        statistics: Per label and statistic.
    """

    synthetic: str
    real: str
    scans: int
    real_scans: int
    subjects: int
    labelled: int
    measures: tuple[Measure, ...]
    statistics: tuple[StatisticRow, ...]

    def to_plain(self) -> dict[str, Any]:
        """The comparison as plain data, for ``metrics.json``."""
        facts = {name: getattr(self, name) for name in ("scans", "real_scans", "subjects", "labelled")}
        measures = {item.name: {**asdict(item), "met": item.met, "sure": item.sure} for item in self.measures}
        statistics = [{**asdict(item), "unlike": item.unlike} for item in self.statistics]
        return {**facts, "measures": measures, "statistics": statistics}


def auditor_features(auditors: Sequence[Segmenter], batch: int = 4) -> Features:
    """The auditors' channel statistics, see :func:`medgen.synthesis.filtering.looks.channel_statistics`."""

    def features(ids: Sequence[str], images: Tensor) -> Array:
        return channel_statistics(auditors, images, batch).numpy().astype(np.float64)

    return features


def describe(
    scans: Scans,
    features: Features,
    config: FidelityConfig,
    *,
    labels: Sequence[int],
    spacing: Sequence[float],
    data_range: float,
    seed: int,
    tick: Tick | None = None,
) -> Described:
    """Everything about a set that comparisons need, so that a real set is measured once for all generators.

    Args:
        scans: The set.
        features: Gives the features (n, d) of scans by id and image.
        config: Settings.
        labels: Label numbers, without 0.
        spacing: Voxel size of the grid along i, j, k, mm.
        data_range: See :func:`medgen.metrics.msssim.pairwise_ms_ssim`; the same for all sets.
        seed: Seed of the choice of scans for MS-SSIM.
        tick: Called with (what is going on, done, all).
    """
    names = statistics_names(scans.images.shape[1])
    tables: dict[int, dict[str, list[float]]] = {label: {name: [] for name in names} for label in labels}
    for image, mask in zip(scans.images, scans.labels, strict=False):
        for label, table in tables.items():
            for name, value in label_statistics(image.numpy(), mask.numpy(), label, spacing).items():
                table[name].append(value)
    chosen = _of_different_subjects(scans.groups, config.similar, derive(seed, "similar", scans.name))
    return Described(
        name=scans.name,
        groups=scans.groups,
        features=features(scans.ids, scans.images),
        statistics={
            label: {name: np.array(values) for name, values in table.items()} for label, table in tables.items()
        },
        similarity=pairwise_ms_ssim(
            scans.images[chosen],
            data_range,
            progress=None if tick is None else lambda done, total: tick(f"{scans.name}: pairs", done, total),
        ),
        similarity_groups=tuple(scans.groups[row] for row in chosen),
    )


def compare(real: Described, synthetic: Described, config: FidelityConfig, seed: int) -> Fidelity:
    """Compare a synthetic set with a real one; see :mod:`medgen.metrics.fidelity` for each number.

    Raises:
        DataError: If features are not finite, or have different lengths.
    """
    count, groups = config.splits, real.groups
    measures = list(compare_features(real.features, groups, synthetic.features, splits=count, k=config.k, seed=seed))
    measures.append(compare_diversity(real.similarity, real.similarity_groups, synthetic.similarity, seed=seed))
    statistics: list[StatisticRow] = []
    owners = groups[: real.labelled]
    for label, table in real.statistics.items() if real.labelled else ():
        own = synthetic.statistics[label]
        measures.append(compare_volumes(table[VOLUME], owners, own[VOLUME], f"volume_{label}", splits=count, seed=seed))
        statistics += compare_statistics(table, owners, own, label, splits=max(count // 2, 20), seed=seed)
    return Fidelity(
        synthetic=synthetic.name,
        real=real.name,
        scans=len(synthetic.groups),
        real_scans=len(groups),
        subjects=len(set(groups)),
        labelled=real.labelled,
        measures=tuple(measures),
        statistics=tuple(statistics),
    )


def _of_different_subjects(groups: Sequence[str], most: int, seed: int) -> list[int]:
    """Rows of one scan each of at most ``most`` subjects, drawn at random."""
    rng = numpy_rng(seed)
    rows: dict[str, int] = {}
    for row in rng.permutation(len(groups)):
        rows.setdefault(groups[int(row)], int(row))
    return sorted(list(rows.values())[:most])
