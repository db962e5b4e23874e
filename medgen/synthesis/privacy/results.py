"""What a memorisation audit found: controls, numbers per backend, and the stamp that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from medgen.metrics.interval import Interval
from medgen.synthesis.filtering.copies import CopyBounds
from medgen.synthesis.filtering.pool import Candidate, CandidatePool

SHARE = "share"
INTERNAL = "internal use only"
NOT_AUDITED = "not audited"


@dataclass(frozen=True)
class Control:
    """A test of the audit itself, on the run's own data.

    Attributes:
        name: What was planted or tried.
        kind: ``positive`` (must fire) or ``negative`` (must not).
        interval: Share flagged, or area under the ROC curve of the attack.
        expected: In words.
        passed: Whether it came out as expected.
    """

    name: str
    kind: str
    interval: Interval
    expected: str
    passed: bool


@dataclass(frozen=True)
class Check:
    """One number about a backend's scans.

    Attributes:
        name: What was measured.
        interval: The number with its confidence interval.
        expected: The number of a generator that has memorised nothing.
        suspicious: Whether the whole interval lies above ``expected``.
        words: The finding in words.
    """

    name: str
    interval: Interval
    expected: float
    suspicious: bool
    words: str


@dataclass(frozen=True)
class BackendAudit:
    """What was found about one backend.

    Attributes:
        backend: Its name.
        generator_sha256: Digest of the generator that was audited.
        derived: Whether its scans are transformed patient scans, or new images of patients' anatomies.
        scans: Number of accepted scans that were audited, flagged ones included.
        checks: The numbers; empty if there was no scan or no held-out scan to compare with.
        flagged: Id of each accepted scan that counts as a copy → the reason.
        likeness: Id of each accepted scan → its largest likeness to a training scan.
        nearest: Id of each accepted scan → the training case it resembles most.
        stamp: ``share``, ``internal use only`` or ``not audited``.
        reason: Why.
    """

    backend: str
    generator_sha256: str
    derived: bool
    scans: int
    checks: tuple[Check, ...]
    flagged: Mapping[str, str]
    likeness: Mapping[str, float]
    nearest: Mapping[str, str]
    stamp: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """The whole audit.

    Attributes:
        controls: Tests of the audit itself.
        backends: By name.
        bounds: From which likeness on a scan counts as a copy.
        training: Numbers of training subjects and scans.
        held_out: Numbers of held-out subjects and scans.
        problems: Why the audit is not valid; empty if it is.
    """

    controls: tuple[Control, ...]
    backends: Mapping[str, BackendAudit]
    bounds: CopyBounds
    training: tuple[int, int]
    held_out: tuple[int, int]
    problems: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether the positive controls fired and the negative one did not."""
        return not self.problems

    @property
    def flagged(self) -> dict[str, str]:
        """Id → reason, of every accepted scan that counts as a copy."""
        return {name: reason for item in self.backends.values() for name, reason in item.flagged.items()}

    def stamp(self, backend: str) -> str:
        """The sharing stamp of a backend; ``not audited`` for one that the audit has not seen."""
        return self.backends[backend].stamp if backend in self.backends else NOT_AUDITED

    def clean(self, pool: CandidatePool) -> CandidatePool:
        """The pool without copies: flagged scans are rejected, with the reason."""
        flagged = self.flagged
        return CandidatePool(
            tuple(_rejected(item, flagged[item.id]) if item.id in flagged else item for item in pool.candidates)
        )

    def to_plain(self) -> dict[str, Any]:
        """Every number as plain data, for ``metrics.json`` and the record of the cohort."""
        return {
            "valid": self.valid,
            "problems": list(self.problems),
            "bounds": {**asdict(self.bounds), "promised": self.bounds.promised, "text": str(self.bounds)},
            "training": {"subjects": self.training[0], "scans": self.training[1]},
            "held_out": {"subjects": self.held_out[0], "scans": self.held_out[1]},
            "controls": [asdict(item) for item in self.controls],
            "backends": {name: asdict(item) for name, item in sorted(self.backends.items())},
        }


def _rejected(candidate: Candidate, reason: str) -> Candidate:
    filtered = replace(candidate.filtered, accepted=False, reasons={**candidate.filtered.reasons, "memorised": reason})
    return replace(candidate, id=f"rejected-{candidate.backend}-{candidate.id}", filtered=filtered)
