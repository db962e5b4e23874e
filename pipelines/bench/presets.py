"""What the configurations of a GPU take and how well they compile, measured on a machine without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from medgen.config import parse_config, read_yaml
from medgen.errors import ConfigError
from medgen.models.base import ModelConfig
from medgen.models.catalogue import build, family_class, parse_settings
from medgen.progress import bars
from medgen.runs.folder import RunSummary
from medgen.runs.machine_sizes import SIZES, scaled
from medgen.system.files import write_json, write_text
from medgen.training.config import TrainingConfig
from medgen.training.peak_memory import step_memory
from medgen.training.stand_in import random_batch

FAMILIES = ("vae", "flow", "context")
# Size, voxels along each axis, scans in a batch, and GiB that a step may take: the memory of the machine.
CASES = (("gpu", 128, 2, 24), ("gpu-large", 256, 1, 80))
# Labels of the scans that a family with labels is measured on.
_LABELS = 3

_PAGE = """# Presets for a GPU: memory and graph breaks

```
medgen bench presets docs/benchmarks
```

**No GPU was used.** The figures were counted with torch {torch} on a CPU, and no preset has been run on the machine
that it is for. A training step runs on tensors that have shapes and no contents (`FakeTensorMode`), and every block of
memory counts from when it is made until nobody holds it: weights, gradients, AdamW, the average, batch, activations,
what is kept for the backward pass. Not counted: the CUDA context, cuDNN's workspace, what the allocator loses, a cohort
that lies on the GPU, augmentation (it is over before the forward pass).

## Memory of a training step in bfloat16

{sizes}

Models as in `configs/train/`, one image channel, three labels for families that have any. Residual blocks compute their
insides again in the backward pass where a batch has more than four million voxels, as these have.

| family | size | voxels | batch | weights | between steps, GiB | at most, GiB | of the machine, GB |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

## Graph breaks of each loss under `torch.compile`

By `torch._dynamo.explain` of the whole loss, forward, at a tiny shape.

| family | phase | breaks | why |
| --- | --- | --- | --- |
{counts}

## Host synchronisations in a step

`tests/training/test_waits.py` runs a step of every family, with all of the augmentation, on `meta` tensors, where each
way to wait for the device raises or is recorded. There is none but in the adaptive augmentation of a discriminator
(`spade`; `vaegan` and `joint` where `ada_target` is set), which asks once for each look of the discriminator.

## What to run on a machine with a GPU

```
medgen bench speed gpu --device cuda --benchmarks train-step,gan-step,flow-step,sample,score --rounds 5
```

Scans of 128 by 144 by 128 voxels, steps and scoring beside MONAI's between CUDA events, in float32 and bfloat16, a few
minutes in all. *Times the floor* is the inverse of the share of the peak that is reached (MFU), the peak being that of
a product of matrices in the same call. **It has not been run on a GPU**, and on a CPU only in parts.
"""


@dataclass(frozen=True)
class Preset:
    """A family under a size.

    Attributes:
        family, size, side, batch: What was measured.
        parameters: Weights.
        kept_gib: Between steps.
        peak_gib: At the worst moment of a step.
        limit_gib: Of the machine that the size is for.
    """

    family: str
    size: str
    side: int
    batch: int
    parameters: int
    kept_gib: float
    peak_gib: float
    limit_gib: int


def run(out: Path, *, families: Sequence[str] = FAMILIES, progress: bool = False) -> RunSummary:
    """Count memory and graph breaks of families with a configuration ``train/<family>``: gpu.md and gpu.json.

    Raises:
        ConfigError: If there is no such configuration.
    """
    for family in families:
        if not _configuration(family).is_file():
            raise ConfigError(f"--families: there is no configuration train/{family}; see medgen train --help")
    presets, breaks = [], {}
    with bars(progress) as tick:
        for number, family in enumerate(families):
            tick(family, number, len(families))
            presets += [measured(family, *case) for case in CASES]
            breaks[family] = graph_breaks(family)
        tick("done", len(families), len(families))
    write_json(out / "gpu.json", {"presets": [asdict(preset) for preset in presets], "graph_breaks": breaks})
    write_text(out / "gpu.md", page(presets, breaks))
    over = [preset for preset in presets if preset.peak_gib > preset.limit_gib]
    lines = [f"{item.family}, {item.side}³ x {item.batch}: {item.peak_gib:.1f} GiB" for item in presets]
    return RunSummary(out, 1 if over else 0, (*lines, f"report: {out / 'gpu.md'}"))


def settings_under(family: str, size: str, side: int) -> tuple[ModelConfig, Mapping[str, Any]]:
    """A family's settings under a size at a cube of voxels, and those of its training, from ``train/<family>``."""
    values = read_yaml(_configuration(family))
    values["preprocess"] = {**values["preprocess"], "shape": [side] * 3, "spacing": [1.0] * 3}
    made = scaled({**values, "size": size}, family)
    labels = {"n_labels": _LABELS} if "n_labels" in family_class(family).Settings.model_fields else {}
    return parse_settings({**made["model"], "shape": [side] * 3, **labels}), made["training"]


def _configuration(family: str) -> Path:
    return Path(str(files("medgen.configs"))) / "train" / f"{family}.yaml"


def measured(family: str, size: str, side: int, batch: int, limit: int) -> Preset:
    """The memory of a training step with so many scans in a batch."""
    settings, training = settings_under(family, size, side)
    config = parse_config(TrainingConfig, {**training, "batch_size": batch, "accumulate": 1}, family)
    found = step_memory(settings, config, getattr(settings, "n_labels", 0))
    gib = 1 << 30
    return Preset(family, size, side, batch, found.parameters, found.kept / gib, found.peak / gib, limit)


def graph_breaks(family: str) -> dict[str, list[str]]:
    """Where the compiler has to leave the graph of each phase's loss: reasons, none at best. At a tiny shape."""
    made = family_class(family)
    model = build({"family": family, "shape": (16, 16, 16), "in_channels": 1, **made.tiny}, seed=0).train()
    batch = random_batch(model.settings, 2, getattr(model.settings, "n_labels", 0))
    found = {}
    for stage in model.stages():
        for phase in stage.phases:
            torch._dynamo.reset()
            explained = torch._dynamo.explain(model.loss)(phase, batch)
            found[phase] = [str(item.reason) for item in explained.break_reasons]
    torch._dynamo.reset()
    return found


def page(presets: Sequence[Preset], breaks: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """The page of figures."""
    rows = [
        f"| `{item.family}` | `{item.size}` | {item.side}³ | {item.batch} | {item.parameters / 1e6:.1f} M | "
        f"{item.kept_gib:.2f} | {item.peak_gib:.2f} | {item.limit_gib} |"
        for item in presets
    ]
    counts = [
        f"| `{family}` | {phase} | {len(reasons)} | {'; '.join(reasons)} |"
        for family, phases in breaks.items()
        for phase, reasons in phases.items()
    ]
    sizes = [f"`size: {name}`: {SIZES[name].words}." for name in dict.fromkeys(item.size for item in presets)]
    return _PAGE.format(
        torch=torch.__version__, sizes="\n\n".join(sizes), rows="\n".join(rows), counts="\n".join(counts)
    )
