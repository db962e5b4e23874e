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
from medgen.synthesis.backends import backend_class
from medgen.synthesis.estimates import Outline
from medgen.synthesis.suitability import GIB, Hardware
from medgen.system.memory import available_memory
from medgen.training.cost import Estimate
from medgen.training.trainer import device_of

__all__ = ["Hardware", "Routing", "check_fits", "hardware", "route"]


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

    def to_plain(self) -> dict[str, Any]:
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
    where, memory = device_of(device), available_memory() * GIB
    folder = out.resolve()
    while not folder.exists():
        folder = folder.parent
    disk = float(shutil.disk_usage(folder).free)
    if where.type != "cuda":
        return Hardware(None, threads(), memory, memory, disk)
    free, _ = torch.cuda.mem_get_info(where)
    return Hardware(torch.cuda.get_device_name(where), threads(), memory, float(free), disk)


def route(outline: Outline, machine: Hardware, known: Collection[str]) -> Routing:
    """Choose backends by what each says of the cohort and the machine.

    Every backend that exists is asked by :meth:`~medgen.synthesis.backend.Backend.suits`, in the order of their turns;
    one that stands in for another is asked only where that other does not exist.

    Args:
        outline: The cohort, with the facts of its labels.
        machine: The machine.
        known: Names of the backends that exist.

    Raises:
        ConfigError: If no backend that exists suits the cohort.
    """
    scans = f"{outline.labelled} labelled and {outline.unlabelled} unlabelled training scans"
    grid = " x ".join(map(str, outline.shape))
    reasons = [f"{scans}, {grid} voxels; {machine.sentence}"]
    reasons += [item.sentence for item in outline.facts]
    chosen: list[str] = []
    cared_for: set[int] = set()
    for kind in sorted(map(backend_class, known), key=lambda kind: (kind.turn, kind.name)):
        answer = None if kind.stands_in_for in known else kind.suits(outline, machine, cared_for)
        if answer is None:
            continue
        reasons.append(f"{'' if answer.take else 'not '}{kind.name}: {answer.why}")
        if answer.take:
            chosen.append(kind.name)
            cared_for.update(answer.cares_for)
    if not chosen:
        raise ConfigError("generators: auto found no backend for this cohort; name one, such as generators.deform={}")
    return Routing(tuple(chosen), tuple(reasons))


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
    for name, item in estimates.items():
        need = item.bytes + (0 if machine.gpu else outline.cohort_bytes)
        if need > machine.device_memory:
            where = f"on {machine.gpu}" if machine.gpu else "of memory with the cohort"
            raise ResourceError(
                f"{name}: needs about {need / GIB:.1f} GiB {where}, {machine.device_memory / GIB:.1f} GiB are free; "
                "use a smaller batch_size or a coarser preprocess.spacing, or set check_resources=false to try anyway"
            )
    if outline.cohort_bytes > machine.memory:
        raise ResourceError(
            f"the training scans need about {outline.cohort_bytes / GIB:.1f} GiB of memory, "
            f"{machine.memory / GIB:.1f} GiB are free; use fewer scans or a coarser preprocess.spacing, or set "
            "check_resources=false to try anyway"
        )
    if disk > machine.disk:
        raise ResourceError(
            f"the run writes about {disk / GIB:.1f} GiB, {machine.disk / GIB:.1f} GiB of disk are free; choose another "
            "out=, or set check_resources=false to try anyway"
        )
