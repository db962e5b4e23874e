"""What a backend says where a run chooses its backends itself: whether it suits a cohort and a machine, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from medgen.synthesis.estimates import Outline

GIB = 1 << 30
# Labelled scans from which a mask prior and a generator of images can be learnt ("Which backend?" in
# docs/guides/augment.md).
_LABELLED = 30
# With this many labelled scans, unlabelled ones with inferred labels count as well.
_HELPED, _HELPED_IN_ALL = 10, 60


@dataclass(frozen=True)
class Hardware:
    """What a run may use.

    Attributes:
        gpu: Name of the GPU that is used; None for the CPU.
        cores: Processor cores.
        memory: Free main memory in bytes.
        device_memory: Free memory of the GPU in bytes; that of the machine without one.
        disk: Free bytes where the run's folder is.
    """

    gpu: str | None
    cores: int
    memory: float
    device_memory: float
    disk: float

    @property
    def sentence(self) -> str:
        """The machine's GPU, cores, memory and free disk space in one line of text."""
        where = f"GPU {self.gpu} with {self.device_memory / GIB:.1f} GiB free" if self.gpu else "no GPU"
        return (
            f"{where}, {self.cores} cores, {self.memory / GIB:.1f} GiB of memory and {self.disk / GIB:.0f} GiB of "
            "disk free"
        )


@dataclass(frozen=True)
class Suitability:
    """Whether a backend is trained for a cohort, and why.

    Attributes:
        take: Whether it is trained.
        why: The reason with the numbers that decided, one line without the backend's name, which is put before it.
        cares_for: Labels that need no other backend once this one is taken.
    """

    take: bool
    why: str
    cares_for: tuple[int, ...] = ()


def all_cared_for(outline: Outline, cared_for: Collection[int]) -> bool:
    """Whether backends that were taken before care for every label of the cohort."""
    return bool(cared_for) and all(item.label in cared_for for item in outline.facts)


def together(answers: Sequence[Suitability | None]) -> Suitability | None:
    """What the halves of a pair say as one: taken where both take it, with both reasons; a refusal goes first.

    >>> together([Suitability(True, "many scans"), Suitability(True, "a GPU", cares_for=(3,))])
    Suitability(take=True, why='many scans; a GPU', cares_for=(3,))
    >>> together([Suitability(True, "many scans"), Suitability(False, "no GPU")]).why
    'no GPU'
    """
    said = [answer for answer in answers if answer is not None]
    if len(said) < len(answers):
        return None
    if refusals := [answer for answer in said if not answer.take]:
        return refusals[0]
    why = "; ".join(dict.fromkeys(answer.why for answer in said if answer.why))
    return Suitability(True, why, tuple(dict.fromkeys(label for answer in said for label in answer.cares_for)))


def enough_scans(outline: Outline, cared_for: Collection[int]) -> Suitability | None:
    """What a network that draws anatomies says: it needs many scans; None if no label is left to it."""
    if all_cared_for(outline, cared_for):
        return None
    labelled, everyone = outline.labelled, outline.labelled + outline.unlabelled
    scans = f"{labelled} labelled of {everyone} training scans"
    if labelled < _LABELLED and (labelled < _HELPED or everyone < _HELPED_IN_ALL):
        needed = f"it needs about {_LABELLED} labelled ones, or {_HELPED} among {_HELPED_IN_ALL}"
        return Suitability(False, f"{scans}; {needed}")
    return Suitability(True, f"{scans} are enough to draw new anatomies")


def needs_gpu(machine: Hardware) -> Suitability:
    """What an adversarial network says."""
    if machine.gpu is None:
        return Suitability(
            False,
            "no GPU; the few hundred steps that a CPU affords give scans that the filter refuses "
            "(docs/benchmarks/augment.md)",
        )
    return Suitability(True, "")


def for_new_anatomies(outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
    """What a network that draws whole scans says: it needs many scans and a GPU; None if no label is left to it."""
    return together([enough_scans(outline, cared_for), needs_gpu(machine)])
