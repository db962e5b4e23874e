"""What becomes of faulty scans: whether the artefact is named, what is hot in them, and who looks faulty and is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from medgen.anomaly.detector import AnomalyDetector
from medgen.config import Config
from medgen.implants.artefact import STRENGTHS
from medgen.implants.artefact_scan import Spoilt, spoil
from medgen.implants.catalogue import artefacts, check_artefacts
from medgen.implants.implanted_scans import HEALTHY, TestScan
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.prepared import PreparedScan
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Tick
from medgen.seeds import numpy_rng
from medgen.volume import Volume

COLUMNS = (
    "artefact", "strength", "scans", "named", "named_otherwise", "not_named", "refused", "scored", "hot", "listed",
)  # fmt: skip


class ArtefactsConfig(Config):
    """Faulty copies of the held-out healthy scans; they are no part of any figure on lesions.

    Attributes:
        enabled: Whether they are made; without the gate nothing names them.
        kinds: Kinds of artefacts, see :mod:`medgen.implants.artefacts`; where it is left out all, for computed
            tomography all that it has. No artefacts at all are made with ``enabled: false``.
        per_scan: Copies of each scan; kinds and strengths (mild, moderate, severe) are taken in turn.
        scored: How many of them are scored, to know what would be listed of them.
    """

    enabled: bool = True
    kinds: tuple[str, ...] | None = None
    per_scan: int = Field(default=8, ge=1, le=100)
    scored: int = Field(default=1, ge=0)

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise ValueError(
                "expected kinds of artefacts; leave it out for all, or set artefacts.enabled=false for none"
            )
        check_artefacts(value or ())
        return value

    def cells(self, *, tomogram: bool) -> list[tuple[str, str]]:
        """Kinds and names of strengths in the turns that copies take.

        Args:
            tomogram: Whether the cohort is computed tomography.
        """
        kinds = self.kinds or [name for name, kind in artefacts().items() if kind.tomogram or not tomogram]
        return [(kind, strength) for strength in STRENGTHS for kind in kinds]


@dataclass(frozen=True)
class ArtefactRow:
    """What became of the copies with one artefact of one strength.

    Attributes:
        artefact, strength: Which.
        scans: How many copies.
        named: Those that look like this artefact before any other.
        named_otherwise: Those that look like another one first.
        not_named: Those that look like none.
        refused: Those that the gate refuses, whatever they look like.
        scored: Those that were scored.
        hot: Of these, those with places as hot as findings.
        listed: Of these, those whose hot places are listed as findings: neither named nor refused.
    """

    artefact: str
    strength: str
    scans: int
    named: int
    named_otherwise: int
    not_named: int
    refused: int
    scored: int
    hot: int
    listed: int

    def row(self) -> dict[str, Any]:
        """A line of ``artefacts.csv``."""
        return {name: getattr(self, name) for name in COLUMNS}


@dataclass(frozen=True, eq=False)
class ArtefactResults:
    """What becomes of faulty scans, and of scans that are not faulty.

    Attributes:
        rows: By artefact and strength.
        development: Healthy development scans that look like an artefact by the limits of other subjects' scans; exact
            interval.
        test: Held-out healthy scans that look like one, likewise.
        implants: Implanted test scans that look like one, whose findings would be held back, likewise; None without
            any.
    """

    rows: tuple[ArtefactRow, ...]
    development: Interval
    test: Interval
    implants: Interval | None


@dataclass(frozen=True)
class _Copy:
    artefact: str
    strength: str
    looks_like: str
    refused: bool
    findings: int | None


def measure_artefacts(
    detector: AnomalyDetector,
    healthy: Dataset,
    implanted: Iterator[TestScan],
    config: ArtefactsConfig,
    seed: int,
    progress: Tick,
) -> ArtefactResults | None:
    """Make faulty copies of held-out healthy scans on the model grid and see what the detector says of them.

    Args:
        detector: The detector.
        healthy: Held-out healthy scans that the gate lets through, with their ``prepared`` records.
        implanted: The test scans of the evaluation; healthy ones among them are passed over.
        config: Kinds and numbers.
        seed: Seed of the run.
        progress: Called with (what, done, total).

    Returns:
        None if the detector knows no limits of artefacts.
    """
    if detector.artefacts is None:
        return None
    recipe, level = detector.preprocess, detector.config.findings.false_findings
    cells = config.cells(tomogram=recipe.modality == "CT")
    copies: list[_Copy] = []
    total = len(healthy) * config.per_scan
    for number, (case, prepared) in enumerate(zip(healthy.ids, healthy.prepared, strict=True)):
        for copy in range(config.per_scan):
            kind, strength = cells[(number * config.per_scan + copy) % len(cells)]
            rng = numpy_rng(seed, "artefact", case, copy)
            faulty = spoilt_scan(prepared, kind, STRENGTHS[strength], rng, recipe)
            doubts, findings = detector.doubts(faulty), None
            if (copy - number) % config.per_scan < config.scored:
                heat = detector.score_prepared(faulty).candidates
                findings = detector.calibration.healthy.listed(heat, level)
            first = doubts.signs[0].artefact if doubts.signs else ""
            copies.append(_Copy(kind, strength, first, bool(doubts.refused), findings))
            progress("artefacts", len(copies), total)
    look = detector.artefacts.signs
    spoilt = [bool(look(own)) for own in healthy.prepared]
    lesions = [
        bool(look(replace(scan.prepared, image=scan.image.numpy()))) for scan in implanted if scan.kind != HEALTHY
    ]
    return ArtefactResults(
        rows=tuple(_row(own, strength, copies) for own, strength in sorted(set(cells), key=cells.index)),
        development=binomial_interval(*detector.artefacts.flagged),
        test=binomial_interval(sum(spoilt), len(spoilt)),
        implants=binomial_interval(sum(lesions), len(lesions)) if lesions else None,
    )


def spoilt_scan(
    prepared: PreparedScan, kind: str, strength: float, rng: np.random.Generator, recipe: Preprocess
) -> PreparedScan:
    """A scan on the model grid with an artefact, its intensities scaled anew as those of any scan are.

    Args:
        prepared: A healthy scan.
        kind: Of :func:`medgen.implants.catalogue.artefacts`.
        strength: At least 0.
        rng: Source of randomness.
        recipe: How scans are brought to the model grid.
    """
    # In the scan's own units, of which Hounsfield units are absolute.
    units = [np.array(own, dtype=np.float32)[:, None, None, None] for own in zip(*prepared.scale, strict=True)]
    image = Volume(prepared.image * units[1] + units[0], prepared.grid)
    done = spoil(image, prepared.foreground, kind, rng, strength=strength, hounsfield=recipe.modality == "CT")
    return _scaled(prepared, done, recipe)


def _scaled(prepared: PreparedScan, done: Spoilt, recipe: Preprocess) -> PreparedScan:
    shown = done.foreground if recipe.mask_background else np.ones_like(done.foreground)
    image = np.zeros_like(prepared.image)
    scale = []
    for target, values in zip(image, done.image.data, strict=True):
        low, high = recipe.window or (float(own) for own in np.percentile(values[done.foreground], recipe.percentiles))
        step = max(high - low, 1e-6)
        target[shown] = np.clip((values[shown] - low) / step, *recipe.clip)
        scale.append((low, step))
    return replace(prepared, image=image, foreground=done.foreground, scale=tuple(scale))


def _row(artefact: str, strength: str, copies: Sequence[_Copy]) -> ArtefactRow:
    own = [copy for copy in copies if (copy.artefact, copy.strength) == (artefact, strength)]
    scored = [copy for copy in own if copy.findings is not None]
    named = sum(copy.looks_like == artefact for copy in own)
    none = sum(not copy.looks_like for copy in own)
    return ArtefactRow(
        artefact=artefact,
        strength=strength,
        scans=len(own),
        named=named,
        named_otherwise=len(own) - named - none,
        not_named=none,
        refused=sum(copy.refused for copy in own),
        scored=len(scored),
        hot=sum(bool(copy.findings) for copy in scored),
        listed=sum(bool(copy.findings) and not copy.looks_like and not copy.refused for copy in scored),
    )
