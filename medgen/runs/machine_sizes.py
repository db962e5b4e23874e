"""Configurations scaled to a machine: ``size=gpu`` makes finer grids, wider networks and longer trainings of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medgen.errors import ConfigError

SizeName = Literal["laptop", "workstation", "gpu", "gpu-large"]

# Grids of networks that halve a volume three times.
_MULTIPLE = 8
# No grid becomes finer than this by a size, in mm: hardly a scan is.
_FINEST = 1.0
# What a training does that says nothing: the defaults of `TrainingConfig`.
_STEPS, _BATCH = 1000, 4


@dataclass(frozen=True)
class MachineSize:
    """What a size makes of a configuration, whose own numbers are those of ``workstation``.

    Attributes:
        machine: The machine it is for.
        voxels: A grid that the configuration names gets at most so many voxels; None leaves it.
        side: Most voxels along an axis where the grid is chosen from the scans; None leaves it.
        finer: Whether grids become finer, up to ``voxels`` and 1 mm; otherwise only coarser.
        widths: Factor on channels of networks.
        steps: Factor on the steps of trainings.
        batch: Voxels in a batch; batches that have more become several, whose gradients are averaged. None leaves them.
        precision: Of trainings; None leaves it.
    """

    machine: str
    voxels: int | None = None
    side: int | None = None
    finer: bool = False
    widths: float = 1.0
    steps: float = 1.0
    batch: int | None = None
    precision: str | None = None

    @property
    def words(self) -> str:
        """What it does, for the plan."""
        parts = []
        if self.voxels:
            cube = round(self.voxels ** (1 / 3))
            parts.append(f"grids {'finer or ' if self.finer else ''}coarser, to at most {cube}³ voxels")
        parts += [f"{name} x {factor:g}" for name in ("widths", "steps") if (factor := getattr(self, name)) != 1]
        if self.batch:
            parts.append(f"batches of at most {round(self.batch / 1e6, 1):g} million voxels")
        if self.precision:
            parts.append(self.precision)
        return ", ".join(parts) or "the configuration as it is written"


SIZES: Mapping[str, MachineSize] = {
    "laptop": MachineSize("two CPU cores and 8 GB of memory", voxels=48**3, side=48, widths=0.5, steps=0.5),
    "workstation": MachineSize("a CPU with eight cores or more"),
    "gpu": MachineSize(
        "a GPU with 24 GB", 128**3, 128, True, widths=2.0, steps=4.0, batch=2 * 128**3, precision="bf16"
    ),
    "gpu-large": MachineSize("a GPU with 80 GB", 256**3, 256, True, 2.0, 8.0, batch=256**3, precision="bf16"),
}


def scaled(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Plain data of a configuration without ``size``, its numbers scaled to that size if there is one.

    Scaled are ``preprocess.shape`` and ``spacing`` (with the field of view kept) or ``max_side``, ``widths`` in the
    settings of models, and ``steps``, ``batch_size``, ``accumulate`` and ``precision`` of trainings, those of further
    models and generators included where the configuration names them. What has been scaled says so in ``scaled_to``,
    so that the resolved configuration of a run can be used again as it is.

    Args:
        values: A configuration of a run, with overrides.
        source: Its name for errors.

    Raises:
        ConfigError: If the size is unknown, or the numbers are scaled already.
    """
    rest = {key: value for key, value in values.items() if key != "size"}
    if "size" not in values:
        return rest
    name = values["size"]
    if not isinstance(name, str) or name not in SIZES:
        *some, last = SIZES
        raise ConfigError(f"{source}: size: expected {', '.join(some)} or {last}, found {name!r}")
    if rest.get("scaled_to") is not None:
        raise ConfigError(
            f"{source}: size={name}: its numbers are scaled to {rest['scaled_to']!r} already; leave size out, or begin "
            "with the configuration that they come from"
        )
    size = SIZES[name]
    grid = _grid(rest.get("preprocess"), size)
    if grid is not None:
        rest["preprocess"] = {**rest["preprocess"], **grid}
        voxels = math.prod(grid["shape"])
    else:
        if size.side and _chosen_later(rest):
            rest["max_side"] = size.side
        side = rest.get("max_side", 64)
        voxels = side**3 if isinstance(side, int) else 64**3
    if isinstance(rest.get("model"), Mapping):
        rest["training"] = _training(rest.get("training", {}), size, voxels, named=False)
    return {**{key: _below(key, value, size, voxels) for key, value in rest.items()}, "scaled_to": name}


def said(name: str) -> str:
    """The line of a plan about a size.

    >>> said("workstation")
    'size: workstation, for a CPU with eight cores or more: the configuration as it is written'
    """
    return f"size: {name}, for {SIZES[name].machine}: {SIZES[name].words}"


def _chosen_later(values: Mapping[str, Any]) -> bool:
    """Whether the grid will be chosen from the scans, by ``max_side``."""
    recipe = values.get("preprocess") or {}
    return "max_side" in values or (isinstance(recipe, Mapping) and not {"shape", "spacing"} & set(recipe))


def _below(key: str, value: Any, size: MachineSize, voxels: int) -> Any:
    """A group of settings with what is scaled inside it."""
    if not isinstance(value, Mapping):
        return value
    if key in ("model", "mask"):
        widths = value.get("widths")
        return {**value, "widths": _widths(widths, size)} if isinstance(widths, Sequence) else dict(value)
    return {
        name: _training(inside, size, voxels, named=True)
        if name in ("training", "mask_training")
        else _below(name, inside, size, voxels)
        for name, inside in value.items()
    }


def _widths(widths: Sequence[Any], size: MachineSize) -> list[Any]:
    return [max(16, 16 * round(width * size.widths / 16)) if isinstance(width, int) else width for width in widths]


def _training(given: Any, size: MachineSize, voxels: int, *, named: bool) -> Any:
    """A training's settings scaled; ``named`` leaves steps alone that the configuration does not name."""
    if not isinstance(given, Mapping):
        return given
    made = dict(given)
    steps, batch = given.get("steps", None if named else _STEPS), given.get("batch_size", _BATCH)
    if isinstance(steps, int) and size.steps != 1:
        made["steps"] = max(1, round(steps * size.steps))
    if isinstance(batch, int) and size.batch and batch * voxels > size.batch:
        made["batch_size"] = max(1, size.batch // voxels)
        made["accumulate"] = int(given.get("accumulate", 1)) * math.ceil(batch / made["batch_size"])
    if size.precision:
        made["precision"] = size.precision
    return made


def _grid(recipe: Any, size: MachineSize) -> dict[str, Any] | None:
    """Shape and spacing of the grid, with the field of view kept; None if the recipe does not name both."""
    if not isinstance(recipe, Mapping) or not {"shape", "spacing"} <= set(recipe):
        return None
    try:
        shape, spacing = [int(n) for n in recipe["shape"]], [float(step) for step in recipe["spacing"]]
    except (TypeError, ValueError):
        return None
    if size.voxels is None or len(shape) != 3 or len(spacing) != 3 or min(*shape, *spacing) <= 0:
        return {"shape": shape, "spacing": spacing} if len(shape) == 3 else None
    factor = (size.voxels / math.prod(shape)) ** (1 / 3)
    factor = min(factor, max(1.0, min(spacing) / _FINEST) if size.finer else 1.0)
    if factor == 1:
        return {"shape": shape, "spacing": spacing}
    while True:
        steps = [round(step / factor, 3) for step in spacing]
        counts = [_covering(n * step / new) for n, step, new in zip(shape, spacing, steps, strict=True)]
        if math.prod(counts) <= size.voxels or max(counts) <= 2 * _MULTIPLE:
            return {"shape": counts, "spacing": steps}
        factor *= 0.99


def _covering(count: float) -> int:
    """The smallest multiple of 8, and 16 at least, that is not below; rounding of spacings apart."""
    return max(2 * _MULTIPLE, _MULTIPLE * math.ceil(count / _MULTIPLE - 0.01))
