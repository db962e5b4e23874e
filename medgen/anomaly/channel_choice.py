"""Which scores make the heatmap on this cohort: decided on implanted development scans, out of fold, in words.

The configured fusion is compared with every single score as normative z, baselines included, and with itself without
the self-supervised scores. Another candidate is taken only if its average precision is better with an interval that
excludes equality, and a sign-flip test over subjects, corrected for the number of candidates, agrees: with few
subjects the highest of twenty estimates is mostly luck, and so is an interval from a handful of resampled ones.
Implants are of kinds that no test set uses by default and that the self-supervised score has not learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.catalogue import get
from medgen.errors import ConfigError
from medgen.metrics.bootstrap import holm, sign_flip_p
from medgen.metrics.interval import Interval
from medgen.metrics.ranking import Ranked, Resampler
from medgen.models.base import ScanModel

# Of the corrected test.
_LEVEL = 0.05

# Fused by default: what needs no model, and of a model the first that it offers.
ALWAYS = ("selfsup", "descriptors")
DEEP = ("nll", "dae", "fanogan", "residual")

CONFIGURED = "configured fusion"
INDEPENDENT = "fusion without self-supervision"

# From the fold, the channels and the z of a scan to its fused map.
Fuse = Callable[[int, tuple[str, ...], Mapping[str, NDArray[np.float16]]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Validated:
    """One implanted development scan, scored out of fold.

    Attributes:
        subject, kind: Whose scan, and what was implanted.
        fold: The fold whose models scored it.
        z: Per score, normative z of the v scored voxels, (v,) float16.
        truth: (v,) boolean.
    """

    subject: str
    kind: str
    fold: int
    z: Mapping[str, NDArray[np.float16]]
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """One way to make the heatmap.

    Attributes:
        name: A score's name, or what kind of fusion it is.
        channels: The scores it uses.
        baseline: Whether it is a single simple baseline.
        ap: Pooled voxel average precision.
        gain: That minus the configured fusion's, paired over subjects.
        p: Sign-flip test of that over the subjects' own average precisions, Holm-adjusted over all candidates.
        by_kind: Average precision per kind of implant, without interval.
    """

    name: str
    channels: tuple[str, ...]
    baseline: bool
    ap: Interval
    gain: Interval
    p: float
    by_kind: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Attributes:
        chosen: Name of the candidate that makes the heatmap.
        candidates: All of them, the configured fusion first, then by falling average precision.
        kinds: Kinds of the validation implants.
        scans, subjects: Implanted development scans, and whose they are.
        prevalence: Chance level of the average precision.
    """

    chosen: str
    candidates: tuple[Candidate, ...]
    kinds: tuple[str, ...]
    scans: int
    subjects: int
    prevalence: float

    @property
    def winner(self) -> Candidate:
        """The chosen candidate."""
        return next(entry for entry in self.candidates if entry.name == self.chosen)

    @property
    def words(self) -> str:
        """The decision in two or three sentences."""
        configured, winner = self.candidates[0], self.winner
        where = f"{self.scans} implanted development scans of {self.subjects} subjects ({', '.join(self.kinds)})"
        # Others may have a higher average precision and no clear gain: few subjects, and the spread of each is its own.
        higher = [
            entry.name for entry in self.candidates if entry is not winner and entry.ap.estimate > winner.ap.estimate
        ]
        but = f" Higher, but not clearly better than the configured fusion: {', '.join(higher)}." if higher else ""
        if self.chosen != CONFIGURED:
            kind = "baseline" if winner.baseline else "candidate"
            return (
                f"On {where} the {kind} {winner.name} is clearly better than the configured fusion of "
                f"{', '.join(configured.channels)} (average precision {winner.ap} against {configured.ap}, gain "
                f"{winner.gain}, p = {winner.p:.3f} after Holm), and makes the heatmap of this model.{but}"
            )
        start = (
            f"On {where} no candidate is clearly better than the configured fusion of "
            f"{', '.join(configured.channels)} (average precision {configured.ap}), which makes the heatmap."
        )
        if len(self.candidates) == 1:
            return start
        return f"{start}{but}" if higher else f"{start} Next is {self.candidates[1].name} with {self.candidates[1].ap}."


def default_channels(classes: Sequence[type[ScanModel]]) -> tuple[str, ...]:
    """The channels that are fused where a configuration names none.

    Two that need no model, :data:`ALWAYS`; of the first model that has any, the one of :data:`DEEP` that says most, and
    those of its own maps that are meant for it.

    >>> from medgen.models.catalogue import family_class
    >>> default_channels([family_class("vqvae")])
    ('selfsup', 'descriptors', 'nll', 'code_surprise')

    Args:
        classes: The families of the models of a fold, in the order of the configuration.

    Raises:
        ConfigError: If none of them says anything of voxels: it would be trained for nothing.
    """
    for cls in classes:
        deep = [name for name in DEEP if get(name).served_by([cls])][:1]
        own = [name for name, said in cls.maps.items() if said.fused]
        if deep or own:
            return (*ALWAYS, *deep, *own)
    families = " or ".join(repr(cls.family) for cls in classes)
    raise ConfigError(
        f"anomaly.fusion.channels: a model of the family {families} says nothing of single voxels; use one that does, "
        "such as vae, vqvae, context or dae, or name scores that need no model"
    )


def choose(
    scans: Sequence[Validated], configured: tuple[str, ...], fuse: Fuse, bootstrap: int, seed: int = 0
) -> Choice:
    """Compare the candidates.

    Args:
        scans: Implanted development scans; every one holds the same scores, the configured channels among them.
        configured: Channels of the configured fusion.
        fuse: Makes the fused map of a scan from its fold's healthy tails.
        bootstrap: Resamples of the subjects.
        seed: Seed of the random resampling; equal seeds give equal results.
    """
    subjects = [scan.subject for scan in scans]
    truth = [scan.truth for scan in scans]
    resampler = Resampler(subjects, bootstrap, seed)
    options: dict[str, tuple[str, ...]] = {CONFIGURED: configured}
    without = tuple(name for name in configured if not get(name).from_corruptions)
    if without and without != configured:
        options[INDEPENDENT] = without
    options |= {name: (name,) for name in scans[0].z}
    ranked, draws, own = {}, {}, {}
    units = resampler.indicator(subjects)
    for name, channels in options.items():
        single = name not in {CONFIGURED, INDEPENDENT}
        maps = [scan.z[name] if single else fuse(scan.fold, channels, scan.z).astype(np.float16) for scan in scans]
        ranked[name] = Ranked.of(maps, truth)
        draws[name] = resampler.draws(ranked[name], subjects, Ranked.average_precision)
        own[name] = ranked[name].pooled(units).average_precision()
    others = [name for name in options if name != CONFIGURED]
    adjusted = dict(zip(others, holm([_p(own[name] - own[CONFIGURED], seed) for name in others]), strict=True))
    kinds = tuple(dict.fromkeys(scan.kind for scan in scans))
    rows = {kind: [index for index, scan in enumerate(scans) if scan.kind == kind] for kind in kinds}
    candidates = [
        Candidate(
            name=name,
            channels=channels,
            baseline=name in scans[0].z and get(name).baseline,
            ap=resampler.interval(draws[name]),
            gain=resampler.interval(draws[name] - draws[CONFIGURED]),
            p=adjusted.get(name, 1.0),
            by_kind={
                kind: float(ranked[name].select(part).pooled().average_precision()[0]) for kind, part in rows.items()
            },
        )
        for name, channels in options.items()
    ]
    candidates = [candidates[0], *sorted(candidates[1:], key=lambda entry: -entry.ap.estimate)]
    better = [entry for entry in candidates[1:] if entry.gain.low > 0 and entry.p <= _LEVEL]
    return Choice(
        chosen=better[0].name if better else CONFIGURED,
        candidates=tuple(candidates),
        kinds=kinds,
        scans=len(scans),
        subjects=len(resampler.names),
        prevalence=float(np.concatenate(truth).mean()),
    )


def _p(differences: NDArray[np.float64], seed: int) -> float:
    """Subjects whose implants changed no scored voxel have no average precision and no say."""
    known = differences[np.isfinite(differences)]
    return sign_flip_p(known, seed=seed) if known.size else 1.0
