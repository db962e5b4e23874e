"""What a synthetic scan must pass before it is used; anything that cannot be checked is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from medgen.config import Config
from medgen.errors import DataError
from medgen.metrics.segmentation import mean_dice
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Progress
from medgen.seeds import derive, numpy_rng
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.backend import Synthetic
from medgen.synthesis.filtering.checks import check_name
from medgen.synthesis.filtering.copies import CopyBounds, Gallery, Likeness, calibrate
from medgen.synthesis.filtering.label_bounds import (
    LabelBounds,
    Neighbours,
    measure,
    prediction_limits,
    truth,
    volume_ratio,
)
from medgen.synthesis.filtering.looks import Looks
from medgen.synthesis.filtering.planted_copies import chosen, likenesses
from medgen.synthesis.lineage import guard
from medgen.synthesis.sources import Sources
from medgen.transforms.augmentation import AugmentConfig

Probability = Annotated[float, Field(ge=0, le=1)]


class FilterConfig(Config):
    """Bounds of the filter; all are taken from the training scans themselves.

    Attributes:
        auditor: The segmenters that judge whether labels fit the image; never those of the value study.
        agreement_percentile: Percentile of the real scans' out-of-fold Dice that a synthetic scan must reach.
        volume_sd: Standard deviations of log volume around the real mean that a label's volume may lie; and of the log
            ratio of a label's volume to what auditors see, around the same ratio of human labels.
        component_margin: How much smaller the largest component's share of a label may be than in any real scan.
        centroid_factor: Largest distance of a label's centroid from the real mean, in units of the real maximum.
        intensity_sd: Standard deviations that percentiles 10, 50 and 90 of a label's intensities may lie from the real
            mean; all real scans are within the bound.
        copy_false_alarms: Share of other people's scans that may be taken for copies, see
            :func:`medgen.synthesis.filtering.copies.calibrate`.
        planted: Training scans that are copied, each in every way of
            :data:`medgen.synthesis.filtering.planted_copies.KINDS`, to see how alike a copy is at its least.
        looks_percentile: Percentile of the real scans' feature distance to the nearest other subject, which a synthetic
            scan's distance to the nearest real scan may reach; 100 is the largest.
        identity: How far a deformed scan must be from the scans of its parent's subject, as a share of how far two
            people are from each other (1 − correlation). These are alike by construction, and must at least not be
            the same; towards everybody else the bound above holds.
        visible: Least mean change where a lesion was drawn into a scan, in standard deviations of the scan's
            intensities; that scan is the parent, elsewhere unchanged, so ``identity`` says nothing of it.
    """

    auditor: SegmenterConfig = SegmenterConfig(steps=250)
    agreement_percentile: Annotated[float, Field(ge=0, le=100)] = 5.0
    volume_sd: Annotated[float, Field(gt=0)] = 3.0
    component_margin: Probability = 0.1
    centroid_factor: Annotated[float, Field(ge=1)] = 1.5
    intensity_sd: Annotated[float, Field(gt=0)] = 4.0
    copy_false_alarms: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    planted: Annotated[int, Field(ge=1)] = 12
    looks_percentile: Annotated[float, Field(ge=0, le=100)] = 95.0
    identity: Probability = 0.2
    visible: Annotated[float, Field(ge=0)] = 0.2


@dataclass(frozen=True)
class FilterResult:
    """Whether the filter accepts one scan, and the numbers that decided.

    Attributes:
        accepted: Whether every check passed.
        scores: Every number that was compared, and with what.
        reasons: Check → one line with numbers, for each failed check; empty if accepted.
        nearest: The real scan it resembles most.
    """

    accepted: bool
    scores: Mapping[str, float]
    reasons: Mapping[str, str]
    nearest: str

    @classmethod
    def unusable(cls, reason: str) -> FilterResult:
        """The result for a scan that no check can judge: it is refused, for this reason."""
        return cls(False, {}, {"usable": reason}, "")


@dataclass(frozen=True, eq=False)
class Filter:
    """Bounds and auditors, fitted on training scans only.

    Attributes:
        config: Settings.
        sources: The training scans.
        auditors: Segmenter and the subjects it was trained on, two of them.
        agreement: Out-of-fold Dice of each real scan, by case id.
        agreement_bound: What a synthetic scan must reach.
        copies: From which likeness to a real scan on a scan counts as a copy; the audit uses the same bounds.
        bounds: Per label.
        seen: Per label, lowest and highest log ratio of its volume to what auditors see, from human labels out of
            fold: auditors that see a label too small must find a synthetic label too large by as much.
        gallery: All training scans, labelled and not.
    """

    config: FilterConfig
    sources: Sources
    auditors: tuple[tuple[Segmenter, frozenset[str]], ...]
    agreement: Mapping[str, float]
    agreement_bound: float
    copies: CopyBounds
    bounds: Mapping[int, LabelBounds]
    seen: Mapping[int, tuple[float, float]]
    gallery: Gallery = field(repr=False)

    @property
    def copy_bound(self) -> float:
        """Likeness to a real scan above which a scan counts as a copy."""
        return self.copies.copy

    @property
    def identity_bound(self) -> float:
        """Largest likeness of a deformed scan with the scans of its parent's subject."""
        return self.copies.identity

    @cached_property
    def looks(self) -> Looks:
        """What real scans look like to the auditors; measured when it is first asked for."""
        segmenters = [segmenter for segmenter, _ in self.auditors]
        return Looks.fit(segmenters, self.sources.images, self.gallery.subjects, self.config.looks_percentile)

    @cached_property
    def neighbours(self) -> Neighbours:
        """Which labels touch in real scans and which never do; looked up when it is first asked for."""
        return Neighbours.fit(self.sources.labelled, self.sources.labels)

    @classmethod
    def fit(
        cls,
        sources: Sources,
        config: FilterConfig,
        *,
        seed: int,
        device: str = "auto",
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        tick: Progress | None = None,
    ) -> Filter:
        """Train the auditors on two halves of the subjects and measure the real scans.

        Args:
            sources: Training scans; nothing held out.
            config: Settings.
            seed: Seed of the folds and of the auditors' training.
            device: ``auto``, ``cpu`` or ``cuda[:N]``.
            spacing: Voxel size along i, j, k, for the auditors' augmentation.
            tick: Called with (trainings done, 2).

        Raises:
            DataError: If there are fewer than two labelled subjects.
        """
        real = sources.labelled
        folds = _folds(real, seed)
        auditors: list[tuple[Segmenter, frozenset[str]]] = []
        agreement: dict[str, float] = {}
        ratios: dict[int, list[float]] = {label: [] for label in sources.labels}
        for number, held_out in enumerate(folds):
            ids = [name for name, subject in zip(real.ids, real.subjects, strict=True) if subject not in held_out]
            segmenter = train_segmenter(
                real.subset(ids),
                config.auditor,
                derive(seed, "auditor", number),
                labels=sources.labels,
                augmentation=AugmentConfig(spacing=spacing),
                device=device,
            )
            auditors.append((segmenter, frozenset(real.subjects) - held_out))
            others = [row for row, subject in enumerate(real.subjects) if subject in held_out]
            predicted = segmenter.predict(real.images[others])[:, 0].numpy()
            for row, prediction in zip(others, predicted, strict=True):
                human = truth(real, row)
                agreement[real.ids[row]] = mean_dice(prediction, human, sources.labels)
                for label in sources.labels:
                    if (human == label).any():
                        ratios[label].append(volume_ratio(human, prediction, label))
            if tick is not None:
                tick(number + 1, len(folds))
        gallery = Gallery(sources.images, sources.ids, sources.owners)
        return cls(
            config=config,
            sources=sources,
            auditors=tuple(auditors),
            agreement=agreement,
            agreement_bound=float(np.percentile(list(agreement.values()), config.agreement_percentile)),
            copies=_copy_bounds(gallery, sources, config, seed),
            bounds={label: LabelBounds.fit(real, label, config) for label in sources.labels},
            seen={label: prediction_limits(values, config.volume_sd) for label, values in ratios.items()},
            gallery=gallery,
        )

    def check(self, synthetic: Synthetic, *, derived: bool) -> FilterResult:
        """Judge one scan. A score that is not a finite number fails its check.

        Args:
            synthetic: The scan.
            derived: Whether it is a transformed real scan (its parent is then held to ``identity`` only).

        Raises:
            AuditError: If a parent is not a labelled training case.
        """
        guard(synthetic.parents, self.sources.ids)
        scores: dict[str, float] = {}
        reasons: dict[str, str] = {}

        def require(name: str, value: float, low: float, high: float, which: str = "") -> None:
            scores[name] = value
            # Written so that NaN, in the value or in a bound, fails.
            if not (low <= value <= high):
                bounds = f"at least {low:.4g}" if math.isinf(high) else f"{low:.4g} to {high:.4g}"
                bounds = f"at most {high:.4g}" if math.isinf(low) else bounds
                reasons[name] = f"{check_name(name)}{which} {value:.4g}, expected {bounds}"

        shape, grid = synthetic.image.shape[1:], self.sources.labelled.shape
        if tuple(shape) != grid or synthetic.labels.shape != grid:
            return FilterResult.unusable(f"shape {tuple(shape)}, expected {grid}")
        if not np.isfinite(synthetic.image).all() or float(synthetic.image.std()) <= 1e-6:
            return FilterResult.unusable("the image is constant or has values that are not numbers")
        strange = sorted(set(np.unique(synthetic.labels).tolist()) - {0, *self.sources.labels})
        if strange:
            return FilterResult.unusable(f"label {strange[0]} does not exist in the training scans")
        predictions = self._predictions(synthetic)
        found = [mean_dice(item, synthetic.labels, self.sources.labels) for item in predictions]
        agreement = float(np.mean(found)) if found else math.nan
        require("agreement", agreement, self.agreement_bound, math.inf)
        self._check_labels(synthetic, require)
        if synthetic.region is None:
            self._check_bias(synthetic, predictions, require)
        if synthetic.region is None:
            wrong = self.neighbours.wrong(synthetic.labels)
            first = f" (first {wrong[0][0]} and {wrong[0][1]})" if wrong else ""
            require("adjacency", float(len(wrong)), -math.inf, 0.0, first)
            distance = self.looks.distance(torch.from_numpy(synthetic.image))
            require("looks", distance, -math.inf, self.looks.bound)
        else:
            change = self._change(synthetic)
            require("visible", change, self.config.visible, math.inf)
        nearest, likenesses = self.likeness(synthetic, derived=derived)
        for item in likenesses:
            scores[item.check] = item.value
            if item.copied:
                reasons[item.check] = str(item)
        return FilterResult(not reasons, scores, reasons, nearest)

    def _check_labels(self, synthetic: Synthetic, require: Callable[[str, float, float, float], None]) -> None:
        """Volume, parts, place and brightness of each label against its bounds."""
        for label, bounds in self.bounds.items():
            mask = synthetic.labels == label
            if synthetic.region is not None:
                # What the parent brought is real: only what was drawn is judged.
                mask = mask & synthetic.region
                if label not in synthetic.made or not mask.any():
                    continue
            measured = measure(mask)
            low, high = bounds.log_volume
            voxels = float(mask.sum())
            # What some real scans do not have may be absent here as well.
            least = 0.0 if bounds.optional and not voxels else math.exp(low)
            require(f"volume_{label}", voxels, least, math.exp(high))
            if voxels:
                component, centroid = measured
                require(f"component_{label}", component, bounds.component, math.inf)
                distance = float(np.linalg.norm(centroid - bounds.centroid))
                require(f"centroid_{label}", distance, -math.inf, bounds.distance)
                unlike = bounds.unlike(synthetic.image, mask)
                require(f"intensity_{label}", unlike, -math.inf, bounds.deviation)

    def _check_bias(
        self,
        synthetic: Synthetic,
        predictions: list[NDArray[np.uint8]],
        require: Callable[[str, float, float, float], None],
    ) -> None:
        """Whether labels differ from what auditors see as human labels do, so that a shared bias does not pass."""
        for label, (low, high) in self.seen.items():
            if (synthetic.labels == label).any():
                ratios = [volume_ratio(synthetic.labels, item, label) for item in predictions]
                value = float(np.exp(np.mean(ratios))) if ratios else math.nan
                require(f"bias_{label}", value, math.exp(low), math.exp(high))

    def _predictions(self, synthetic: Synthetic) -> list[NDArray[np.uint8]]:
        """What auditors see that have not been trained on a parent; none if all have."""
        subject = dict(zip(self.sources.ids, self.gallery.subjects, strict=True))
        # Where only a region was drawn, further parents lent the form of a label, not an image.
        parents = synthetic.parents if synthetic.region is None else synthetic.parents[:1]
        known = {subject[parent] for parent in parents}
        image = torch.from_numpy(synthetic.image)[None]
        able = [segmenter for segmenter, trained_on in self.auditors if not known & trained_on]
        return [segmenter.predict(image)[0, 0].numpy() for segmenter in able]

    def _change(self, synthetic: Synthetic) -> float:
        """Mean absolute difference to the first parent at the drawn labels, in sd of its intensities; NaN if none."""
        if not synthetic.parents or synthetic.region is None:
            return math.nan
        drawn = np.isin(synthetic.labels, synthetic.made) & synthetic.region
        if not drawn.any():
            return math.nan
        row = self.sources.ids.index(synthetic.parents[0])
        count = len(self.sources.labelled)
        others = self.sources.unlabelled
        image = self.sources.labelled.images[row] if row < count or others is None else others.images[row - count]
        parent = image.numpy()
        difference = np.abs(synthetic.image - parent)[:, drawn].mean(axis=1)
        # The clearest channel: a lesion need not show in all of them.
        return float((difference / parent.std(axis=(1, 2, 3)).clip(1e-6)).max())

    def likeness(self, synthetic: Synthetic, *, derived: bool) -> tuple[str, list[Likeness]]:
        """How much a scan resembles the training scans: the copy check of filter and audit.

        Args:
            synthetic: The scan.
            derived: Whether it is a transformed real scan; its parents' subjects are then held to ``identity`` only.

        Returns:
            The training case it resembles most, and the largest likeness towards strangers and, for derived scans,
            towards the parents' subjects, each with its bound.
        """
        values = self.gallery.correlations(torch.from_numpy(synthetic.image))
        subject = dict(zip(self.gallery.ids, self.gallery.subjects, strict=True))
        kin = {subject[parent] for parent in synthetic.parents} if derived else set()
        related = torch.tensor([owner in kin for owner in self.gallery.subjects])
        found = []
        for name, rows, bound in (("copy", ~related, self.copy_bound), ("identity", related, self.identity_bound)):
            # Outside of its region such a scan is its parent's by design.
            if bool(rows.any()) and not (name == "identity" and synthetic.region is not None):
                row = int(torch.where(rows, values, -2.0).argmax())
                found.append(Likeness(name, float(values[row]), bound, self.gallery.ids[row]))
        return self.gallery.ids[int(values.argmax())], found


def _folds(real: Dataset, seed: int) -> list[frozenset[str]]:
    subjects = sorted(set(real.subjects))
    if len(subjects) < 2:
        raise DataError(
            f"the filter's auditors need two labelled training subjects, found {len(subjects)}; add subjects"
        )
    order = [str(name) for name in numpy_rng(seed, "filter", "folds").permutation(subjects)]
    return [frozenset(order[0::2]), frozenset(order[1::2])]


def _copy_bounds(gallery: Gallery, sources: Sources, config: FilterConfig, seed: int) -> CopyBounds:
    seed = derive(seed, "copies")
    planted = likenesses(gallery, sources.images, chosen(len(gallery.ids), config.planted, seed), seed)
    return calibrate(gallery.between_subjects(), planted, config.copy_false_alarms, config.identity)
