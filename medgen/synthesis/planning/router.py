"""Which backends suit a cohort and a machine, and why, in plain sentences."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medgen.errors import ConfigError, ResourceError
from medgen.runs.environment import threads
from medgen.synthesis.estimates import Outline
from medgen.system.memory import available_memory
from medgen.training.cost import Estimate
from medgen.training.trainer import device_of

_GIB = 1 << 30
# Labelled scans from which a mask prior and a generator of images can be learnt ("Which backend?" in
# docs/guides/augment.md).
SPADE_FROM = 30
# With this many labelled scans, unlabelled ones with inferred labels count as well.
SPADE_HELPED_FROM = 10
SPADE_HELPED_IN_ALL = 60
# Lesions from which there is something to learn.
LESIONS_FROM = 5


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
        where = f"GPU {self.gpu} with {self.device_memory / _GIB:.1f} GiB free" if self.gpu else "no GPU"
        return (
            f"{where}, {self.cores} cores, {self.memory / _GIB:.1f} GiB of memory and {self.disk / _GIB:.0f} GiB of "
            "disk free"
        )


@dataclass(frozen=True)
class Routing:
    """Which backends a run trains, and why.

    Attributes:
        backends: In the order they are trained.
        reasons: Plain sentences with the numbers that decided.
        automatic: Whether the router decided; False if the configuration names the backends.
    """

    backends: tuple[str, ...]
    reasons: tuple[str, ...]
    automatic: bool = True

    def record(self) -> dict[str, Any]:
        """The decision as plain data, for JSON files."""
        return {"automatic": self.automatic, "backends": list(self.backends), "reasons": list(self.reasons)}


def hardware(device: str, out: Path) -> Hardware:
    """This machine, as a run on a device sees it.

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        out: Folder of the run; it need not exist.

    Raises:
        ConfigError: If there is no such device.
    """
    where, memory = device_of(device), available_memory() * _GIB
    folder = out.resolve()
    while not folder.exists():
        folder = folder.parent
    disk = float(shutil.disk_usage(folder).free)
    if where.type != "cuda":
        return Hardware(None, threads(), memory, memory, disk)
    free, _ = torch.cuda.mem_get_info(where)
    return Hardware(torch.cuda.get_device_name(where), threads(), memory, float(free), disk)


def route(outline: Outline, machine: Hardware, known: Collection[str]) -> Routing:
    """Choose backends by number of scans, kind of label and hardware.

    Focal labels get ``lesion``. Other labels get ``deform``, and from about 30 labelled scans on also ``spade``, if
    there is a GPU to train it on; ``joint`` stands in for it where this installation has no ``spade``.

    Args:
        outline: The cohort, with the facts of its labels.
        machine: The machine.
        known: Backends that exist.

    Raises:
        ConfigError: If no backend that exists suits the cohort.
    """
    scans = f"{outline.labelled} labelled and {outline.unlabelled} unlabelled training scans"
    grid = " x ".join(map(str, outline.shape))
    reasons = [f"{scans}, {grid} voxels; {machine.sentence}"]
    reasons += [item.sentence for item in outline.facts]
    focal = [item for item in outline.facts if item.focal]
    organs = [item for item in outline.facts if not item.focal]
    chosen: list[str] = []
    if focal:
        count = sum(item.parts for item in focal)
        names = _listed([str(item.label) for item in focal])
        if "lesion" in known and count >= LESIONS_FROM:
            chosen.append("lesion")
            reasons.append(
                f"lesion: label {names} is focal, {count} lesions in {outline.labelled} scans; new ones are drawn into "
                "real scans at places where lesions occur"
            )
        else:
            reasons.append(f"not lesion: {count} lesions of label {names}, it needs {LESIONS_FROM}")
    if organs or not chosen:
        chosen += _for_organs(outline, machine, known, reasons)
    elif "deform" in known:
        reasons.append("not deform: every label is focal, and a warped scan has the same lesions as before")
    if not chosen:
        raise ConfigError("generators: auto found no backend for this cohort; name one, such as generators.deform={}")
    return Routing(tuple(chosen), tuple(reasons))


def _for_organs(outline: Outline, machine: Hardware, known: Collection[str], reasons: list[str]) -> list[str]:
    chosen = []
    labelled, everyone = outline.labelled, outline.labelled + outline.unlabelled
    if "deform" in known:
        chosen.append("deform")
        targets = f"and the {outline.unlabelled} unlabelled ones lend anatomy" if outline.unlabelled else ""
        reasons.append(f"deform: labels are right by construction with {labelled} labelled scans {targets}".rstrip())
    generative = "spade" if "spade" in known else "joint"
    if generative not in known:
        return chosen
    enough = labelled >= SPADE_FROM or (labelled >= SPADE_HELPED_FROM and everyone >= SPADE_HELPED_IN_ALL)
    if not enough:
        reasons.append(
            f"not {generative}: {labelled} labelled of {everyone} training scans; it needs about {SPADE_FROM} labelled "
            f"ones, or {SPADE_HELPED_FROM} among {SPADE_HELPED_IN_ALL}"
        )
    elif machine.gpu is None:
        reasons.append(
            f"not {generative}: no GPU; the few hundred steps that a CPU affords give scans that the filter refuses "
            "(docs/benchmarks/augment.md)"
        )
    else:
        chosen.append(generative)
        reasons.append(
            f"{generative}: {labelled} labelled of {everyone} training scans are enough to draw new anatomies"
        )
    return chosen


def check_fits(estimates: Mapping[str, Estimate], outline: Outline, machine: Hardware, disk: float = 0.0) -> None:
    """Refuse what cannot fit, before anything is trained.

    Args:
        estimates: By stage; stages run one after the other.
        outline: The cohort.
        machine: The machine.
        disk: Bytes that the run will write.

    Raises:
        ResourceError: Naming the stage, what it needs and what there is.
    """
    gib = _GIB
    for name, item in estimates.items():
        need = item.bytes + (0 if machine.gpu else outline.cohort_bytes)
        if need > machine.device_memory:
            where = f"on {machine.gpu}" if machine.gpu else "of memory with the cohort"
            raise ResourceError(
                f"{name}: needs about {need / gib:.1f} GiB {where}, {machine.device_memory / gib:.1f} GiB are free; "
                "use a smaller batch_size or a coarser preprocess.spacing, or set check_resources=false to try anyway"
            )
    if outline.cohort_bytes > machine.memory:
        raise ResourceError(
            f"the training scans need about {outline.cohort_bytes / gib:.1f} GiB of memory, "
            f"{machine.memory / gib:.1f} GiB are free; use fewer scans or a coarser preprocess.spacing, or set "
            "check_resources=false to try anyway"
        )
    if disk > machine.disk:
        raise ResourceError(
            f"the run writes about {disk / gib:.1f} GiB, {machine.disk / gib:.1f} GiB of disk are free; choose another "
            "out=, or set check_resources=false to try anyway"
        )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
