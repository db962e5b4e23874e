"""Labels for unlabelled scans: what several segmenters, trained on the labelled scans, agree on.

Clinics have many more scans than masks. A generator that knows only the masks knows five anatomies; one that may also
use these scans knows all of them. Members differ by initial weights, order and augmentation (deep ensembles:
Lakshminarayanan et al., NeurIPS 2017); the mean of their probabilities is better than any one of them, and where they
differ is where it is likely wrong. What all of them see wrongly they do not show: their bias is measured on labelled
scans first (:mod:`medgen.synthesis.cohort.label_bias`), and where a label is biased no scan gets labels. Further rounds
train members on the labels of the round before, as in self-training with noisy students (Xie et al., CVPR 2020).
Registration of the labelled scans (multi-atlas fusion) was tried as a member and lost: see docs/benchmarks/augment.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

import medgen
from medgen.config import Config
from medgen.errors import ArtifactError, DataError
from medgen.metrics.robust import robust_spread
from medgen.metrics.segmentation import mean_dice
from medgen.models.stored_arrays import Stored, load_stored, stored_kind
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Progress
from medgen.seeds import derive
from medgen.segmentation.ensemble import SegmenterEnsemble, one_piece_labels
from medgen.segmentation.recipe import LabelledImages
from medgen.segmentation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from medgen.synthesis.cohort.label_bias import LabelBias, measure_bias
from medgen.synthesis.sources import Sources
from medgen.system.files import read_json, sha256_json, write_json
from medgen.system.processes import run_in_processes, torch_threads
from medgen.training.batches import content_digest
from medgen.training.trainer import device_of
from medgen.transforms.augmentation import AugmentConfig

# A scan is set aside when its members agree this many robust standard deviations less than on the median scan.
_OUTLIER = 3.0
_KIND = "consensus"


class ConsensusConfig(Config):
    """How unlabelled scans get labels.

    Attributes:
        members: Segmenters per round; 0 leaves unlabelled scans without labels.
        rounds: 1 trains members on labelled scans only; each further round also on the labels of the one before.
        segmenter: Network and training of a member.
        augment: Augmentation in training.
        p_unlabelled: In later rounds, the probability that an element of a batch is a scan with inferred labels.
        folds: Groups of labelled subjects that are held out in turn to measure the bias of inferred labels, each by
            at most two members of its own.
        bias: Share by which the inferred volume of a label may be off however little real scans differ; where two
            halves of the labelled subjects differ by more, that is the bound.
    """

    members: Annotated[int, Field(ge=0)] = 5
    rounds: Annotated[int, Field(ge=1)] = 1
    # Larger than the usual downstream segmenter: it teaches, and nothing has to be fair about its size.
    segmenter: SegmenterConfig = SegmenterConfig(residual_units=2)
    augment: AugmentConfig = AugmentConfig()
    p_unlabelled: Annotated[float, Field(ge=0, le=1)] = 0.5
    folds: Annotated[int, Field(ge=2)] = 3
    bias: Annotated[float, Field(ge=0)] = 0.05

    @property
    def judges(self) -> int:
        """Members that label each held-out group: averaging more changes volumes by a percent or two."""
        return min(self.members, 2)

    @property
    def trainings(self) -> int:
        """Segmenters trained in all, if no label is biased."""
        return self.members * self.rounds + self.judges * self.folds


@dataclass(frozen=True, eq=False)
class Consensus:
    """The outcome of :func:`label_unlabelled`.

    Attributes:
        scans: Unlabelled scans with credible labels and a confidence per voxel; None if there are none.
        agreement: Mean Dice of the members with their consensus, by case id, of every unlabelled scan.
        bound: Scans that agree less are left out.
        members: The segmenters that agreed, of the last round; None if there was nothing to label.
        bias: What inferred labels are like on labelled scans, per label; empty if there was nothing to label.
    """

    scans: Dataset | None
    agreement: Mapping[str, float]
    bound: float
    members: SegmenterEnsemble | None = None
    bias: tuple[LabelBias, ...] = ()

    @property
    def biased(self) -> tuple[int, ...]:
        """Labels that are not inferred; with one of them no scan can be labelled, and scans lend their images only."""
        return tuple(item.label for item in self.bias if item.biased)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Unlabelled scans whose labels are not credible."""
        kept = () if self.scans is None else self.scans.ids
        return tuple(name for name in self.agreement if name not in kept)


@dataclass(frozen=True, eq=False)
class _Training:
    """How the members of a round are trained, in this process or another."""

    real: Dataset
    config: ConsensusConfig
    labels: tuple[int, ...]
    inferred: LabelledImages | None
    device: str

    def __call__(self, seed: int) -> Segmenter:
        # One thread, so that members do not depend on how many are trained at once.
        with torch_threads(1):
            return train_segmenter(
                self.real,
                self.config.segmenter,
                seed,
                labels=self.labels,
                augmentation=self.config.augment,
                synthetic=self.inferred,
                p_synthetic=self.config.p_unlabelled,
                device=self.device,
            )


def _each(training: _Training, seeds: list[int], workers: int) -> Iterator[tuple[int, Segmenter]]:
    if workers < 2 or len(seeds) < 2 or device_of(training.device).type != "cpu":
        return ((seed, training(seed)) for seed in seeds)
    return run_in_processes(training, seeds, workers)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Scans with labels, as :func:`medgen.segmentation.segmenter.train_segmenter` takes them."""

    images: Tensor
    labels: Tensor


def label_unlabelled(
    sources: Sources,
    config: ConsensusConfig,
    *,
    seed: int,
    device: str = "auto",
    workers: int = 1,
    store: Path | None = None,
    tick: Progress | None = None,
) -> Consensus:
    """Label the unlabelled scans of some sources.

    Args:
        sources: Labelled scans teach; unlabelled ones are labelled. Nothing held out.
        config: Settings.
        seed: Seed of all trainings.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Members that are trained at once on a CPU, each in a process of its own; the outcome does not depend
            on it.
        store: Folder in which the outcome is kept, so that an interrupted run does not train again; None keeps nothing.
        tick: Called with (trainings done, trainings in all).

    Returns:
        Labels, voxel confidence (the members' mean probability of the label) and agreement. Scans that lack a label
        which every labelled scan has, or on which members agree much less than usual, are left out. If the bias of a
        label is more than real scans differ by, no scan is labelled: a label map without it would teach background.

    Raises:
        TrainingError: As :func:`medgen.segmentation.segmenter.train_segmenter`.
    """
    unlabelled, real = sources.unlabelled, sources.labelled
    if unlabelled is None or config.members == 0:
        return Consensus(None, {}, 0.0)
    key = _fingerprint(sources, config, seed)
    count = min(config.folds, len(set(real.subjects))) * config.judges
    total = config.members * config.rounds + count
    bias = _bias(sources, config, key, seed=seed, device=device, workers=workers, store=store, tick=tick, total=total)
    if any(item.biased for item in bias):
        return Consensus(None, {}, 0.0, bias=bias)
    kept = None if store is None else _kept(store, key, device)
    if kept is not None:
        return replace(_select(sources, *kept), bias=bias)
    inferred: LabelledImages | None = None
    for turn in range(config.rounds):
        training = _Training(real, config, sources.labels, inferred, device)
        seeds = [derive(seed, "consensus", turn, member) for member in range(config.members)]
        found: dict[int, Segmenter] = {}
        for own, segmenter in _each(training, seeds, workers):
            found[own] = segmenter
            if tick is not None:
                tick(count + turn * config.members + len(found), total)
        segmenters = [found[own] for own in seeds]
        whole = () if real.labels is None else one_piece_labels(real.labels, sources.labels)
        members = SegmenterEnsemble(config.segmenter, tuple(segmenters), real.channels, whole)
        labels, trusted, votes = members.vote(unlabelled.images)
        inferred = _Pairs(unlabelled.images, labels)
    agreement = {
        name: float(
            np.mean([mean_dice(vote[row, 0].numpy(), labels[row, 0].numpy(), sources.labels) for vote in votes])
        )
        for row, name in enumerate(unlabelled.ids)
    }
    if store is not None:
        arrays, about = members.to_arrays()
        arrays |= {"labels": labels.numpy(), "confidence": trusted.numpy()}
        Stored(_KIND, arrays, {"key": key, "agreement": agreement, "members": about}).save(store)
    return replace(_select(sources, labels, trusted, agreement, members), bias=bias)


def _bias(
    sources: Sources,
    config: ConsensusConfig,
    key: str,
    *,
    seed: int,
    device: str,
    workers: int,
    store: Path | None,
    tick: Progress | None,
    total: int,
) -> tuple[LabelBias, ...]:
    """What members of the first round see in labelled scans they have not learnt from; later rounds learn from them."""
    path = None if store is None else store / "bias.json"
    if path is not None and path.is_file():
        with suppress(DataError, KeyError, TypeError, ValueError):
            kept = read_json(path)
            if kept["key"] == key:
                return tuple(LabelBias.from_plain(item) for item in kept["bias"])

    def infer(others: Dataset, images: Tensor, fold: int) -> Tensor:
        training = _Training(others, config, sources.labels, None, device)
        seeds = [derive(seed, "bias", fold, member) for member in range(config.judges)]
        found: dict[int, Segmenter] = {}
        for own, segmenter in _each(training, seeds, workers):
            found[own] = segmenter
            if tick is not None:
                tick(fold * config.judges + len(found), total)
        whole = () if others.labels is None else one_piece_labels(others.labels, sources.labels)
        members = SegmenterEnsemble(config.segmenter, tuple(found[own] for own in seeds), others.channels, whole)
        return members.vote(images)[0]

    bias = measure_bias(
        sources.labelled, sources.labels, infer, folds=config.folds, least=config.bias, seed=derive(seed, "bias")
    )
    if path is not None:
        write_json(path, {"key": key, "bias": [item.to_plain() for item in bias]})
    return bias


def _select(
    sources: Sources, labels: Tensor, trusted: Tensor, agreement: Mapping[str, float], members: SegmenterEnsemble
) -> Consensus:
    """Leave out scans on which members agree much less than usual, or that lack what every labelled scan has."""
    if sources.unlabelled is None or sources.labelled.labels is None:
        raise AssertionError("sources have unlabelled scans, and labels")
    bound = _bound(np.array(list(agreement.values())))
    always = [value for value in sources.labels if bool(_has(sources.labelled.labels, value).all())]
    kept = [
        name
        for row, name in enumerate(sources.unlabelled.ids)
        if agreement[name] >= bound and all(bool((labels[row] == value).any()) for value in always)
    ]
    if not kept:
        return Consensus(None, agreement, bound, members)
    scans = replace(sources.unlabelled, labels=labels, confidence=trusted).subset(kept)
    return Consensus(scans, agreement, bound, members)


def _fingerprint(sources: Sources, config: ConsensusConfig, seed: int) -> str:
    digest, torch_version = hashlib.sha256(), str(torch.__version__)
    for part in (sources.labelled, sources.unlabelled):
        if part is not None:
            digest.update(content_digest(part).encode())
    # The versions stand for the code.
    about = [config.model_dump(mode="json"), list(sources.ids), sources.labels, seed, medgen.__version__, torch_version]
    return sha256_json([*about, digest.hexdigest()])


def _kept(store: Path, key: str, device: str) -> tuple[Tensor, Tensor, dict[str, float], SegmenterEnsemble] | None:
    if stored_kind(store) != _KIND:
        return None
    try:
        stored = load_stored(store)
    except ArtifactError:
        return None
    if stored.meta.get("key") != key:
        return None
    labels, trusted = (torch.from_numpy(np.array(stored.arrays[name])) for name in ("labels", "confidence"))
    return (
        labels,
        trusted,
        dict(stored.meta["agreement"]),
        SegmenterEnsemble.from_arrays(stored.arrays, stored.meta["members"], device),
    )


def _bound(values: NDArray[np.float64]) -> float:
    """Median less three robust standard deviations (median absolute deviation times 1.4826)."""
    return float(np.median(values)) - _OUTLIER * robust_spread(values) - 1e-9


def _has(labels: Tensor, value: int) -> Tensor:
    return (labels == value).flatten(1).any(dim=1)
