"""Settings of anomaly scoring, and what they need of a cohort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from medgen.anomaly.calibration import CalibrationConfig, check_target
from medgen.anomaly.findings.false_findings import FindingsConfig, check_false_findings
from medgen.anomaly.fusion import FusionConfig
from medgen.anomaly.gate import GateConfig
from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.scores import settings
from medgen.config import Config
from medgen.errors import ConfigError
from medgen.implants.implanted_scans import ValidationConfig
from medgen.system import members

if TYPE_CHECKING:
    from medgen.anomaly.scores.settings.corruptions import Corruptions
    from medgen.anomaly.scores.settings.likelihood_samples import LikelihoodSamples
    from medgen.anomaly.scores.settings.network_steps import NetworkSteps
    from medgen.anomaly.scores.settings.restoration_steps import RestorationSteps

# Scan scores that are statistics of the heatmap.
HEAT_SCORES = ("top", "max", "mean", "cluster")


class Scoring(Config):
    """How scans become heatmaps: what all scores share. :class:`AnomalyConfig` adds what single ones read.

    Attributes:
        folds: Parts of the development subjects; as many models are trained.
        smoothing: Standard deviation in model voxels of the smoothing of every raw score map, inside the scan.
        support: A place is scored if at least this share of the development scans shows the patient there.
        scores: Further scores to compute beside the fused ones and the cheap ones, such as ``restoration``.
        scan_score: The score that decides about the whole scan: ``top`` is the mean of the hottest ``top_fraction``
            of the voxels, ``max`` the hottest one, ``mean`` the average, ``cluster`` the heat above 2 of the largest
            connected region above it (see :mod:`medgen.anomaly.heat_scores`); or a registered scan score.
        top_fraction: Share of voxels in ``top``.
        validation: Implanted development scans that decide about the fused channels.
        normative: How healthy score maps are summarised, place by place.
        fusion: Which scores make the heatmap.
        calibration: What p-values and thresholds must guarantee.
        findings: Which hot places are listed as findings.
        gate: When a scan is refused as a whole.
    """

    folds: int = Field(default=5, ge=2, le=20)
    smoothing: float = Field(default=1.0, ge=0, le=5)
    support: float = Field(default=0.1, gt=0, le=1)
    scores: tuple[str, ...] = ()
    scan_score: str = "top"
    top_fraction: float = Field(default=0.001, gt=0, le=1)
    normative: NormativeConfig = NormativeConfig()
    fusion: FusionConfig = FusionConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    findings: FindingsConfig = FindingsConfig()
    gate: GateConfig = GateConfig()
    validation: ValidationConfig = ValidationConfig()

    def of_scores(self) -> dict[str, Any]:
        """The settings that scores read by name, from every file in :mod:`medgen.anomaly.scores.settings`."""
        return {key: getattr(self, key) for part in _SCORE_SETTINGS for key in part.model_fields}

    def check_names(self) -> None:
        """Refuse names of scores that are none, or of another level than their key asks for.

        Raises:
            ConfigError: Naming the key and what it could be.
        """
        from medgen.anomaly.scores.catalogue import registered

        voxel, scan = registered("voxel"), registered("scan")
        for name in self.fusion.channels:
            if name not in voxel:
                what = "scores whole scans" if name in scan else "is no score"
                raise ConfigError(f"anomaly.fusion.channels: {name!r} {what}; choose some of {', '.join(voxel)}")
        for name in self.scores:
            if name not in {*voxel, *scan}:
                raise ConfigError(f"anomaly.scores: {name!r} is no score; choose some of {', '.join([*voxel, *scan])}")
        whole = (*HEAT_SCORES, *scan)
        if self.scan_score not in whole:
            what = "scores voxels" if self.scan_score in voxel else "is no score"
            raise ConfigError(f"anomaly.scan_score: {self.scan_score!r} {what}; choose one of {', '.join(whole)}")

    def check_subjects(self, n: int) -> None:
        """Refuse, before anything is trained, what ``n`` development subjects cannot support.

        Raises:
            CalibrationError: If the target false-positive rate or the level of findings needs more subjects.
            ConfigError: If there are fewer subjects than two per fold, or a fused channel is no voxel score.
        """
        self.check_names()
        check_target(self.calibration.target_fpr, n)
        check_false_findings(self.findings.false_findings, n)
        if n < 2 * self.folds:
            raise ConfigError(f"anomaly.folds={self.folds} needs {2 * self.folds} development subjects, found {n}")


def _settings(name: str) -> type[Config]:
    def wanted(item: Any) -> bool:
        return isinstance(item, type) and issubclass(item, Config) and item is not Config

    found: type[Config] | None = members.member(settings, name, wanted)
    if found is None:
        raise ConfigError(f"{settings.__name__}.{name}: holds no settings of a score")
    return found


_SCORE_SETTINGS = tuple(map(_settings, members.names(settings)))

# One key for each setting of a score, so that a misspelt one is refused with a hint like any other.
if TYPE_CHECKING:

    class AnomalyConfig(Corruptions, LikelihoodSamples, NetworkSteps, RestorationSteps, Scoring):
        """The group ``anomaly`` of a configuration."""

else:
    AnomalyConfig = create_model("AnomalyConfig", __base__=(*_SCORE_SETTINGS, Scoring), __module__=__name__)
