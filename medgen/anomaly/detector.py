"""The anomaly detector: fits the cross-fit ensemble and scores scans in their own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly import pseudo_healthy as pseudohealthy
from medgen.anomaly.artefacts.signs import ArtefactLimits
from medgen.anomaly.channel_choice import Choice
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.crossfit import crossfit
from medgen.anomaly.doubts import Doubts, Rank
from medgen.anomaly.ensemble import (
    Calibration,
    FoldMember,
    Means,
    Places,
    fused_surprise,
    heat_of,
    inputs_for,
    model_scores,
    smoothed,
    supported,
    with_channels,
)
from medgen.anomaly.findings import listing
from medgen.anomaly.findings.appearance import HealthyAppearance, contrast_name
from medgen.anomaly.findings.candidates import Candidates, candidates_of
from medgen.anomaly.findings.listing import Finding
from medgen.anomaly.gate import Gate
from medgen.anomaly.heat_scores import heat_scores, to_own_grid
from medgen.anomaly.normative.covariates import ChosenCovariates, Covariates, choose_covariates
from medgen.anomaly.scores.catalogue import get
from medgen.data.faces import may_show_face
from medgen.errors import DataError, OutOfDistribution
from medgen.metrics.interval import Interval
from medgen.models.base import ScanModel
from medgen.models.passes import kept
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import PreparedScan, Preprocess, Template
from medgen.progress import Tick
from medgen.transforms.masked_smoothing import Smoother
from medgen.volume import Volume


@dataclass(frozen=True, eq=False)
class Measured:
    """All maps and scores of the ensemble for one prepared scan, on the model grid (i, j, k).

    Attributes:
        image: The prepared scan, (c, i, j, k) float32.
        region: Where the scan is scored.
        raw, z: Per voxel score, averaged over folds: the smoothed score and its normative z.
        surprise: Per fused channel, −log₁₀ of the healthy tail probability, averaged over folds.
        heat: The fused map, averaged over folds.
        model_scores: Scan scores that come from the models, averaged over folds.
    """

    image: NDArray[np.float32]
    region: NDArray[np.bool_]
    raw: Mapping[str, NDArray[np.float32]]
    z: Mapping[str, NDArray[np.float32]]
    surprise: Mapping[str, NDArray[np.float32]]
    heat: NDArray[np.float32]
    model_scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class ScanResult:
    """The result for one scan in its own space.

    Attributes:
        heatmap: One channel on the scan's native grid; NaN is "not scored".
        candidates: What may be a finding, strongest first.
        findings: The candidates with at most ``anomaly.findings.false_findings`` expected false findings, strongest
            first: finding k is candidate k. None in a scan with doubts.
        unlisted: What would be the findings of a scan with doubts: hot places of which nothing is claimed.
        regions: The outlined parts of either: the number of the finding, 0 for none, on the native grid.
        scores: All scan scores: those of the heatmap as it is here, then those of the models.
        p_values: Their conformal p-values; none for a scan with doubts.
        ranks: Where each score stands among those of the healthy calibration subjects.
        doubts: Why nothing is claimed of the scan; empty for most.
        contrasts: What the contrasts of the scan are called, in their order.
        tails: Of ``max`` and of the score that decides, how rare it is by a fitted tail, where no healthy subject
            reaches it; see :mod:`medgen.anomaly.score_tail`. None for a scan with doubts.
        scan_score: Name of the score that decides about the whole scan.
        prepared: The scan on the model grid, with registration quality.
        measured: All maps on the model grid.
    """

    heatmap: Volume
    candidates: Candidates
    findings: list[Finding]
    unlisted: list[Finding]
    regions: Volume
    scores: Mapping[str, float]
    p_values: Mapping[str, float]
    ranks: Mapping[str, Rank]
    doubts: Doubts
    scan_score: str
    prepared: PreparedScan
    measured: Measured
    contrasts: tuple[str, ...] = ()
    tails: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AnomalyDetector:
    """A calibrated ensemble of cross-fit models; see ``docs/decisions/0002-cross-fit-ensemble.md``.

    Ten healthy scans in two folds, each with a model that was trained without its scans, find a bright cube:

    >>> from medgen.models.catalogue import build
    >>> from medgen.volume import Grid
    >>> cube, ids = (12, 12, 12), tuple("abcdefghij")
    >>> images = torch.rand((10, 1, *cube), generator=torch.Generator().manual_seed(0))
    >>> vaes = [[build({"family": "vae", "shape": cube, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    >>> own = {"folds": 2, "fusion": {"channels": ["zscore"]}, "calibration": {"target_fpr": 0.1}}
    >>> config = AnomalyConfig.model_validate({**own, "gate": {"enabled": False}, "validation": {"enabled": False}})
    >>> detector = AnomalyDetector.fit(Dataset(ids, ids, images, images >= 0), [ids[:5], ids[5:]], vaes, config,
    ...     Preprocess(shape=cube, spacing=(1, 1, 1)), voxel_scores=())
    >>> scan = np.pad(np.full((1, 4, 4, 4), 2.0), [(0, 0), *[(4, 4)] * 3]) + np.random.default_rng(1).random(cube)
    >>> result = detector.score_scan(Volume(scan, Grid(cube, np.eye(4))))
    >>> all(4 <= index < 8 for index in result.findings[0].peak_voxel), result.heatmap.data.shape
    (True, (1, 12, 12, 12))
    >>> round(result.p_values["max"], 3)  # no healthy scan of ten is as hot: 1 / 11
    0.091

    Attributes:
        config: How scans become heatmaps.
        preprocess, template: How a scan reaches the model grid.
        members: One per fold.
        calibration: Healthy out-of-fold scores.
        support: (i, j, k) boolean, the model voxels that can be scored.
        appearance: What healthy scans look like, for the words on findings.
        choice: How the fused channels were chosen; None if they are as configured, or in a detector from an artifact.
        gate: What a scan must look like as a whole to be scored; None if the configuration wants none.
        artefacts: What healthy scans reach in what artefacts change; None without a gate, for cohorts that are too
            small or too coarse (:func:`medgen.anomaly.artefacts.signs.not_named`), and in older detectors.
        bf16: Whether models compute in bfloat16, as in their training and the calibration.
        adjusted: What normative means and variances are adjusted for, and why not for more.
        contrasts: Names of the images that a scan consists of, in their order; numbers where the cohort has none.
        chosen: Which candidate of the choice makes the heatmap; empty where nothing was compared.
    """

    config: AnomalyConfig
    preprocess: Preprocess
    template: Template | None
    members: tuple[FoldMember, ...]
    calibration: Calibration
    support: NDArray[np.bool_] = field(repr=False)
    appearance: HealthyAppearance = field(repr=False)
    choice: Choice | None = None
    gate: Gate | None = None
    artefacts: ArtefactLimits | None = None
    bf16: bool = False
    adjusted: ChosenCovariates = field(default_factory=lambda: ChosenCovariates(None))
    contrasts: tuple[str, ...] = ()
    chosen: str = ""

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        folds: Sequence[Sequence[str]],
        models: Sequence[Sequence[ScanModel]],
        config: AnomalyConfig,
        preprocess: Preprocess,
        template: Template | None = None,
        *,
        voxel_scores: Sequence[str] | None = None,
        progress: Tick | None = None,
        bf16: bool = False,
        contrasts: Sequence[str] = (),
    ) -> AnomalyDetector:
        """Fit scores, normative maps, tails and calibration from healthy scans and their fold models.

        Args:
            dataset: The prepared healthy development scans; what their records say of people is adjusted for.
            folds: Case ids held out of each fold; together they are the data set.
            models: The models of entry k were trained without the cases of fold k.
            config: How scans become heatmaps.
            preprocess: How the scans were prepared.
            template: The template they were registered to, if any.
            voxel_scores: Scores to fit besides the fused channels; default: all that the models support.
            progress: Called with (what, done, total).
            bf16: Whether all models were trained in bfloat16: they then score in it too, in all scores that bear it.
            contrasts: Names of the images that a scan consists of; default: numbers from 1.

        Raises:
            CalibrationError: If the target false-positive rate needs more subjects.
            ConfigError: If a fused channel needs something that the models do not offer, or no scan has a covariate
                that the configuration names.
            DataError: If the folds are not a partition of the data set.
        """
        config.check_subjects(len(set(dataset.subjects)))
        if sorted(case for fold in folds for case in fold) != sorted(dataset.ids) or len(folds) != len(models):
            raise DataError("folds must hold every prepared case exactly once and have models each")
        config = with_channels(config, [type(model) for model in models[0]])
        chosen = supported(models[0], config, voxel_scores)
        gate = Gate.fit(dataset, config.gate) if config.gate.enabled else None
        artefacts = ArtefactLimits.of_cohort(dataset, gate, config.gate, preprocess.spacing)
        known = [own.attributes for own in dataset.prepared] or [{} for _ in dataset.ids]
        picked = choose_covariates(config.normative.covariates, known, dataset.subjects)
        fitted = crossfit(dataset, folds, models, config, chosen, preprocess, progress, bf16, picked.covariates)
        config = config.model_copy(update={"fusion": config.fusion.model_copy(update={"channels": fitted.channels})})
        names = tuple(contrasts) or tuple(str(number + 1) for number in range(dataset.channels))
        winner = "" if fitted.choice is None else fitted.choice.chosen
        parts = (fitted.members, fitted.calibration, fitted.support, fitted.appearance, fitted.choice)
        return cls(config, preprocess, template, *parts, gate, artefacts, bf16, picked, names, winner)

    @property
    def covariates(self) -> Covariates | None:
        """What of people is adjusted for; None: nothing."""
        return self.adjusted.covariates

    @property
    def lean(self) -> AnomalyDetector:
        """The same detector without the scores that only stand beside the heatmap in tables."""
        channels = self.config.fusion.channels
        used = {*channels, *(get(name).shares for name in channels)}
        members = [
            replace(
                member,
                states={name: state for name, state in member.states.items() if name in used},
                normatives={name: member.normatives[name] for name in channels},
            )
            for member in self.members
        ]
        return replace(self, members=tuple(members))

    def measure(
        self, prepared_image: torch.Tensor, foreground: torch.Tensor, person: Mapping[str, str] | None = None
    ) -> Measured:
        """Score one prepared scan with every fold.

        Args:
            prepared_image: (c, i, j, k) float32.
            foreground: (1, i, j, k) boolean.
            person: What is known of the person, by column of the manifest; a covariate that is not known is averaged
                over the cohort.

        Raises:
            DataError: If no part of the scan can be scored.
            OutOfDistribution: If a covariate lies outside of what the development subjects have.
        """
        row = None if self.covariates is None else self.covariates.row(person or {})
        names = list(self.members[0].normatives)
        region = foreground[0].cpu().numpy().astype(bool) & self.support
        if not region.any():
            raise DataError("no part of the scan lies where the healthy scans show the patient; check what it shows")
        place = Places.of(region)
        # A score that no fold changes is computed once.
        fixed: dict[str, NDArray[np.float32]] = {}
        raw, zs, surprises, heats = (Means() for _ in range(4))
        values_of: dict[str, list[float]] = {}
        memo, smoother = [dict[str, Any]()], Smoother.of(region, self.config.smoothing)
        for member in self.members:
            inputs = inputs_for(member.models, prepared_image[None], foreground[None], self.config, memo, self.bf16)
            own = {}
            with kept():
                for name in names:
                    values = fixed.get(name)
                    if values is None:
                        values = place.values(smoothed(name, inputs, member.states, smoother))
                        if get(name).fixed:
                            fixed[name] = values
                    own[name] = place.with_outside(member.normatives[name].at(row).z_of(values[:-1], region), 0.0)
                    raw.add(name, values)
                    zs.add(name, own[name])
                for name, value in model_scores(inputs, member.states).items():
                    values_of.setdefault(name, []).append(value)
            fused, single = fused_surprise(member.tails, own)
            for name, values in single.items():
                surprises.add(name, values)
            heats.add("heat", heat_of(member.fused_tail, fused))
        averaged = {name: float(np.mean(values)) for name, values in values_of.items()}
        image = np.asarray(prepared_image.float().cpu().numpy())
        heat = place.map(heats.of()["heat"])
        raw_maps, z_maps, surprise = (
            {name: place.map(values) for name, values in part.of().items()} for part in (raw, zs, surprises)
        )
        return Measured(image, region, raw_maps, z_maps, surprise, heat, averaged)

    def score_scan(
        self, scan: Volume, person: Mapping[str, str] | None = None, *, ungated: bool = False, unlike: str = ""
    ) -> ScanResult:
        """Score a scan as it comes from the scanner; see :class:`ScanResult`.

        Args:
            scan: The scan.
            person: What is known of the person, by column of the manifest, for :attr:`adjusted`.
            ungated: Score what the gate refuses, too: with doubts, so that it has ranks and no p-values.
            unlike: Why the person is not like those of the cohort, a reason for doubts as what the gate finds; empty if
                there is none.

        Raises:
            OutOfDistribution: If the scan cannot be prepared, the gate refuses it, or a covariate lies outside of what
                the development subjects have.
            DataError: If it does not overlap the region that can be scored.
        """
        try:
            prepared = self.preprocess.apply(scan, self.template)
            face = may_show_face(prepared.cleaned or scan)
            prepared = replace(prepared, may_show_face=face, attributes=dict(person or {}))
        except DataError as error:
            raise OutOfDistribution([str(error)]) from error
        doubts = self.doubts(prepared)
        if unlike:
            doubts = replace(doubts, refused=(*doubts.refused, unlike))
        if doubts.refused and not ungated:
            raise OutOfDistribution([*doubts.refused, *(f"it {sign.words}" for sign in doubts.signs)])
        return self.score_prepared(prepared, doubts)

    def doubts(self, prepared: PreparedScan) -> Doubts:
        """What the gate finds in a prepared scan, and the artefacts that it looks like; nothing without a gate."""
        if self.gate is None:
            return Doubts()
        signs = () if self.artefacts is None else self.artefacts.signs(prepared)
        return Doubts(tuple(self.gate.problems(prepared)), signs)

    def score_prepared(self, prepared: PreparedScan, doubts: Doubts | None = None) -> ScanResult:
        """Score a prepared scan and bring the result back to its native grid."""
        image, foreground = torch.from_numpy(prepared.image), torch.from_numpy(prepared.foreground[None])
        return self.result(prepared, self.measure(image, foreground, prepared.attributes), doubts)

    def result(self, prepared: PreparedScan, measured: Measured, doubts: Doubts | None = None) -> ScanResult:
        """Bring measured maps to the scan's native grid and judge them against the calibration.

        Args:
            prepared: The scan on the model grid.
            measured: Its maps.
            doubts: Why nothing may be claimed of it; None if there is nothing.
        """
        doubts = doubts or Doubts()
        heatmap = self.heatmap(prepared, measured)
        scores = heat_scores(heatmap, self.config.top_fraction) | dict(measured.model_scores)
        candidates = self.candidates(heatmap)
        levels = self.config.findings.false_findings, self.config.calibration.target_fpr
        found = listing.find(heatmap, candidates, self.calibration.healthy, self.calibration.maxima, *levels)
        regions = listing.outline(heatmap, candidates, len(found), self.findings_threshold)
        name = self.config.scan_score
        tails = {key: self.calibration.beyond(key, scores[key]) for key in dict.fromkeys(["max", name])}
        looks = self.appearance.maps(measured.image, measured.region) if found else {}
        contrasts = tuple(contrast_name(name) for name in self.contrasts)
        hot = listing.describe(found, regions, prepared, measured.surprise, looks, self._registered_to, contrasts)
        return ScanResult(
            heatmap=heatmap,
            candidates=candidates,
            findings=[] if doubts else hot,
            unlisted=hot if doubts else [],
            regions=regions,
            scores=scores,
            p_values={} if doubts else {key: self.calibration.p_value(key, value) for key, value in scores.items()},
            ranks={name: Rank.of(self.calibration.scores[name], value) for name, value in scores.items()},
            doubts=doubts,
            scan_score=name,
            prepared=prepared,
            measured=measured,
            contrasts=contrasts,
            tails={} if doubts else {key: tail for key, tail in tails.items() if tail is not None},
        )

    def heatmap(self, prepared: PreparedScan, measured: Measured) -> Volume:
        """The fused map on the scan's own grid, NaN where not scored."""
        return to_own_grid(measured.heat, measured.region, prepared, self.preprocess)

    def candidates(self, heatmap: Volume) -> Candidates:
        """What may be a finding in a heatmap on the scan's own grid."""
        return candidates_of(heatmap, self.config.findings.separation_mm)

    @property
    def findings_threshold(self) -> float:
        """Heat (z) that the strongest candidate of a scan must exceed to be a finding."""
        return self.calibration.healthy.threshold(self.config.findings.false_findings)

    def pseudo_healthy(self, prepared: PreparedScan) -> Volume | None:
        """What the models take for the healthy version of a scan, on its native grid and in its intensities.

        Returns:
            (c, i, j, k) float32, NaN outside the model grid and the foreground; None if no model reconstructs.
        """
        image = pseudohealthy.reconstruct(self.members, prepared, self.config, self.bf16)
        return None if image is None else self.preprocess.restore(image, prepared, order=1, fill=np.nan)

    @property
    def _registered_to(self) -> Template | None:
        return self.template if self.preprocess.align == "affine" else None
