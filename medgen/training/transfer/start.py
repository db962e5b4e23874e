"""Starting from a trained model: which tensors are taken, which start anew and why, which stay, which move slowly.

Tensors are matched by name and shape. Weights are taken, and with them the buffers that they are fitted to
(:meth:`~medgen.models.base.ScanModel.carried_buffers`). All other buffers describe scans, such as a mean scan, and are
measured on the scans at hand, so that a source with another grid, spacing or contrast serves. A family can fit tensors
of another shape, for other channels or labels (:meth:`~medgen.models.base.ScanModel.fitted`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from medgen.errors import ConfigError
from medgen.models.base import ScanModel
from medgen.models.stages import Phase
from medgen.training.config import InitConfig
from medgen.training.transfer.source import Lineage, Source, read_source

# Why a tensor starts as in any training, in the words of reports.
_LEFT = "left out by init.leave, starts anew"


@dataclass(frozen=True, eq=False)
class Start:
    """What a training takes from a source.

    Attributes:
        init: The settings.
        source: The model that it starts from.
        tensors: What is taken, by name.
        mismatches: One line for each tensor of the source or of this model that has no counterpart.
        measured: Number of buffers that describe scans and are measured anew.
        factors: Factor on the learning rate of taken weights by name; 0 for frozen ones.
    """

    init: InitConfig
    source: Source
    tensors: Mapping[str, Tensor]
    mismatches: tuple[str, ...]
    measured: int
    factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ScanModel, init: InitConfig) -> Start:
        """Read the source and match its tensors with those of a model, which is not changed.

        Raises:
            ArtifactError: If the source cannot be read.
            ConfigError: If it is of another family, no weight of it fits, a pattern fits nothing, or nothing would move
                in some phase.
        """
        source = read_source(init, model.family)
        own, other = model.state_dict(), source.model.state_dict()
        weights = {name for name, _ in model.named_parameters()}
        carried = {id(tensor) for tensor in model.carried_buffers()}
        wanted = weights | {name for name, tensor in model.named_buffers() if id(tensor) in carried}
        if init.statistics == "source":
            wanted = {*own}
        left = _matching(init.leave, {*own}, "leave")
        tensors: dict[str, Tensor] = {}
        lines: list[str] = []
        for name in sorted(wanted | {name for name in other if name not in own}):
            if name in left:
                lines.append(f"{name}: {_LEFT}")
            elif name not in other:
                lines.append(f"{name}: not in the source, starts anew")
            elif name not in own:
                lines.append(f"{name}: not in this model, ignored")
            elif (fitting := _fitting(model, name, own[name], other[name], source)) is not None:
                tensors[name] = fitting
            else:
                found, expected = (" x ".join(map(str, part[name].shape)) or "a number" for part in (other, own))
                lines.append(f"{name}: {found} in the source, {expected} here, starts anew")
        if not weights & {*tensors}:
            raise ConfigError(
                f"{init.artifact}: no weight of it fits this model ({lines[0] if lines else 'it has none'}); use the "
                "settings that it was trained with, or another source"
            )
        factors = _factors(init, weights & {*tensors})
        start = cls(init, source, tensors, tuple(lines), len({*own} - wanted - {*tensors}), factors)
        start._check_phases(model)
        return start

    @torch.no_grad()
    def apply(self, model: ScanModel) -> None:
        """Put what is taken into the model, whose own start is done."""
        state = model.state_dict()
        for name, tensor in self.tensors.items():
            state[name].copy_(tensor)

    def factors_of(self, model: nn.Module) -> dict[int, float]:
        """Factors on the learning rate by the id of the parameter; those that are not in it have 1."""
        return {id(own): self.factors[name] for name, own in model.named_parameters() if name in self.factors}

    def fingerprint(self) -> dict[str, Any]:
        """What of the start determines the course of a training."""
        return self.fingerprint_of(self.init, self.source.sha256)

    @staticmethod
    def fingerprint_of(init: InitConfig, sha256: str) -> dict[str, Any]:
        """The same of settings and the digest of the artifact that they name: content, not places."""
        return {**init.model_dump(mode="json", exclude={"artifact"}), "sha256": sha256}

    def record(self, model: ScanModel) -> dict[str, Any]:
        """As plain data, for metrics, artifacts and reports; :func:`sentences` says it."""
        sizes = {name: own.numel() for name, own in model.named_parameters()}
        frozen = [name for name, factor in self.factors.items() if not factor]
        slow = {name: factor for name, factor in self.factors.items() if factor}
        lineage = self.source.lineage
        return {
            "sha256": self.source.sha256,
            "family": model.family,
            "tensors_taken": len(self.tensors),
            "weights_taken": sum(size for name, size in sizes.items() if name in self.tensors),
            "weights": sum(sizes.values()),
            "buffers_measured": self.measured,
            "mismatches": list(self.mismatches),
            "weights_frozen": sum(sizes[name] for name in frozen),
            "weights_slow": sum(sizes[name] for name in slow),
            "factors": sorted({*slow.values()}),
            "statistics": self.init.statistics,
            "other_people": self.init.other_people,
            "source_cases": None if lineage is None else len(lineage.cases),
            "source_spacing": list(self.source.spacing),
        }

    def _check_phases(self, model: ScanModel) -> None:
        names = {id(own): name for name, own in model.named_parameters()}
        for stage in model.stages():
            for name, phase in stage.phases.items():
                if all(self.factors.get(names[id(own)]) == 0 for own in phase.parameters):
                    raise ConfigError(
                        f"init.frozen: nothing would be left to train in the phase {name!r} of the stage "
                        f"{stage.name!r}; freeze less"
                    )


def trained_groups(phase: Phase, factors: Mapping[int, float]) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters of a phase that move, by the factor on their learning rate; those with 1 come first."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in phase.parameters:
        if factor := factors.get(id(parameter), 1.0):
            groups.setdefault(factor, []).append(parameter)
    return [(groups[factor], factor) for factor in sorted(groups, reverse=True)]


def sentences(record: Mapping[str, Any]) -> list[str]:
    """What the record of a start says, in sentences for reports and consoles; the first is the whole in short.

    >>> sentences({"sha256": "ab" * 32, "family": "vae", "weights": 10, "weights_taken": 8, "buffers_measured": 1,
    ...            "mismatches": ["a: not in the source, starts anew"], "weights_frozen": 0, "weights_slow": 0,
    ...            "statistics": "own", "other_people": False, "source_cases": 5, "factors": []})[0]
    'The training started from the vae of artifact abababababab: 8 of 10 weights were taken, 1 tensor did not fit.'
    """
    count = len(record["mismatches"])
    misfit = f"{count} tensor{'' if count == 1 else 's'} did not fit" if count else "every tensor fitted"
    found = [
        f"The training started from the {record['family']} of artifact {record['sha256'][:12]}: "
        f"{record['weights_taken']} of {record['weights']} weights were taken, {misfit}."
    ]
    # Records of earlier versions do not say it.
    if "source_spacing" in record:
        size = " x ".join(f"{step:g}" for step in record["source_spacing"])
        found.append(f"The source has learnt on voxels of {size} mm.")
    if record["statistics"] == "source":
        found.append("Buffers that describe scans, such as a mean scan, were taken from the source where they fitted.")
    elif record["buffers_measured"]:
        found.append(f"{record['buffers_measured']} buffers that describe scans were measured on the scans at hand.")
    if record["weights_frozen"]:
        found.append(f"{record['weights_frozen']} weights stayed as they were in the source.")
    if record["weights_slow"]:
        factors = ", ".join(f"{factor:g}" for factor in record["factors"])
        found.append(f"{record['weights_slow']} weights had a learning rate lower or higher by a factor ({factors}).")
    cases, names = record["source_cases"], record["other_people"]
    if cases is None:
        found.append("The source does not say from whom it has learnt.")
    elif names:
        found.append(
            f"The source has learnt from {cases} scans: no file of them is held out here; that equal names are of "
            "other people is the user's word."
        )
    else:
        found.append(f"The source has learnt from {cases} scans, and no such case, subject or file is held out here.")
    return found


def lineage_of(own: Lineage | None, start: Start | None) -> Lineage | None:
    """From whom a trained model has learnt, its source included; None where it, or that one, does not say."""
    known = None if start is None else start.source.lineage
    if own is None or (start is not None and known is None):
        return None
    return own if known is None else own + known


def _fitting(model: ScanModel, name: str, own: Tensor, other: Tensor, source: Source) -> Tensor | None:
    if own.dtype != other.dtype:
        return None
    made = other if own.shape == other.shape else model.fitted(name, other, source.model.settings)
    return made if made is not None and made.shape == own.shape else None


def _factors(init: InitConfig, taken: set[str]) -> dict[str, float]:
    factors: dict[str, float] = {}
    for pattern, factor in init.slow.items():
        factors |= dict.fromkeys(sorted(_matching((pattern,), taken, "slow")), factor)
    return factors | dict.fromkeys(sorted(_matching(init.frozen, taken, "frozen")), 0.0)


def _matching(patterns: Sequence[str], names: set[str], key: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        own = {name for name in names if fnmatchcase(name, pattern)}
        if not own:
            what = "tensor" if key == "leave" else "weight that is taken"
            near = ", ".join(sorted({name.partition(".")[0] + ".*" for name in names})[:8])
            raise ConfigError(f"init.{key}: {pattern!r} fits no {what}; expected patterns such as {near}")
        found |= own
    return found
