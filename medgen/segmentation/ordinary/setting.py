"""What every ordinary arm starts from: the scans that generators may use too, and the settings shared by all arms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset, guard_unlabelled
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.training.transfer.start import Start
from medgen.transforms.augmentation import AugmentConfig


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that an ordinary arm may use: exactly the scans that generators may use.

    Attributes:
        real: Labelled training scans.
        unlabelled: Training scans of other subjects, without labels; None if there are none.
        labels: Label numbers to segment, without 0.
        segmenter: Network and training; teachers are trained the same way.
        augment: The standard augmentation.
        start: What segmenters take from a trained one, teachers of the same network included; None for nothing.
        seed: Seed of the work that arms share: training of teachers, choice of registrations.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        memo: Finished shared work (registrations, pseudo-labels, teachers) by what it depends on. Pass one dictionary
            to all arms and repetitions of one number of subjects; what depends on the seed is kept by seed.

    Raises:
        DataError: If ``real`` lacks labels, ``unlabelled`` carries some or is on another grid, or ``memo`` comes from
            other scans.
        AuditError: If a subject is in both parts.
    """

    real: Dataset
    unlabelled: Dataset | None
    labels: tuple[int, ...]
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    start: Start | None = None
    seed: int = 0
    device: str = "auto"
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def voxel(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in mm; 1 where the scans do not say."""
        return self.real.prepared[0].grid.spacing if self.real.prepared else (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.real.labels is None or not len(self.real):
            raise DataError(f"ordinary arms need training scans with masks, found {len(self.real)} without")
        self._check_unlabelled()
        # Pseudo-labels of a larger training part would leak its masks into a smaller one.
        parts = [self.real] + ([] if self.unlabelled is None else [self.unlabelled])
        scans = (self.labels, [(part.ids, float(part.images.double().sum())) for part in parts])
        if self.memo.setdefault("scans", scans) != scans:
            raise DataError(
                "the memo holds work on other scans or labels; pass a new dictionary for every training part"
            )

    def _check_unlabelled(self) -> None:
        if self.unlabelled is None:
            return
        guard_unlabelled(self.real, self.unlabelled)
        if self.unlabelled.images.shape[1:] != self.real.images.shape[1:]:
            raise DataError(
                f"unlabelled scans of shape {tuple(self.unlabelled.images.shape[1:])} beside labelled ones of shape "
                f"{tuple(self.real.images.shape[1:])}; prepare them with one recipe"
            )
