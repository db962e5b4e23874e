"""Benchmark of painting: a family that paints label maps, on the maps of subjects that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from torch import Generator, Tensor

from medgen.config import load_config
from medgen.errors import ConfigError, DataError
from medgen.metrics.halves import Measure
from medgen.models.catalogue import build, parse_sampling, settings_for
from medgen.models.families.flow import Flow
from medgen.preprocessing.dataset import Dataset
from medgen.report.figures.mosaic import sample_pairs
from medgen.report.html import fmt, png
from medgen.runs.folder import RunSummary
from medgen.seeds import derive, torch_rng
from medgen.segmentation.segmenter import SegmenterConfig, train_segmenter
from medgen.synthesis.cohort.training_pairs import numbered
from medgen.synthesis.fidelity.comparison import FidelityConfig, Scans, auditor_features, compare, describe
from medgen.system.files import plain, write_bytes, write_json, write_text
from medgen.training.trainer import fit
from medgen.transforms.augmentation import AugmentConfig
from medgen.volume import Volume

from ..train_settings import TrainRunConfig
from .cells import read_scans
from .family_measures import detail, judged_dice, paint

# Steps of the segmenter that judges.
_JUDGE_STEPS = 400
_SHOWN = 4
# Held-out scans whose likelihood is estimated, and draws for each: one takes as long as a dozen painted scans.
_LIKELY, _DRAWS = 6, 2


@dataclass(frozen=True)
class Painted:
    """What one seed has given.

    Attributes:
        seed: Seed of split, training and samples.
        training, test: Scans that were learnt from, and scans whose label maps were painted.
        seconds: Processor time of the training.
        sample_seconds: Processor time of painting one scan.
        measures: Against the held-out scans and against the training scans.
        real: The held-out scans against the training scans: what real scans reach.
        detail: Standard deviation of what a mean over 3³ voxels takes away, painted and real.
        dice: Mean Dice of the judge on painted and on the same held-out real scans.
        nats: log p(scan | labels, field of view) in nats per voxel in view, a lower bound: mean over the first held-out
            scans, and the standard error of the estimate.
    """

    seed: int
    training: int
    test: int
    seconds: float
    sample_seconds: float
    measures: dict[str, Sequence[Measure]]
    real: Sequence[Measure]
    detail: tuple[float, float]
    dice: tuple[float, float]
    nats: tuple[float, float]


def run(
    out: Path, *, data: Path, seeds: Sequence[int], overrides: Sequence[str] = (), progress: bool = False
) -> RunSummary:
    """Train the family ``flow`` under every seed, paint held-out label maps, and write ``painting.md`` and ``.json``.

    Args:
        out: Folder of the results and pictures.
        data: A cohort whose scans have masks.
        seeds: Seeds of split, training and samples.
        overrides: ``key=value`` of the shipped configuration ``train/flow.yaml``.
        progress: Show progress bars.

    Raises:
        ConfigError: If the configuration is of another family.
        DataError: If the cohort has no masks, or too few subjects.
    """
    path = Path(str(files("medgen.configs"))) / "train" / "flow.yaml"
    config = load_config(TrainRunConfig, path, [*overrides, f"data={data}", f"out={out}"])
    if config.model.get("family") != Flow.family:
        raise ConfigError(f"model.family: expected {Flow.family}, found {config.model.get('family')!r}")
    found = [_painted(config, seed, out, progress) for seed in dict.fromkeys(seeds)]
    command = " ".join(["medgen bench painting OUT --data DATA", *(f"--set {item}" for item in overrides)])
    write_json(out / "painting.json", {"command": command, "seeds": [plain(item) for item in found]})
    write_text(out / "painting.md", table(found, command))
    return RunSummary(out, 0, (table(found, command), f"written: {out / 'painting.md'}"))


def table(found: Sequence[Painted], command: str) -> str:
    """The results as a page in Markdown."""
    names = [item.name for item in found[0].real if not item.name.startswith("volume")]
    lines = [
        "# Painted label maps beside real scans",
        "",
        f"`{command}`: the family `flow` is trained on labelled scans, and paints the label maps of subjects that it "
        "has not seen. KID and MMD² by features of a segmenter that was trained on the same real scans, as multiples "
        "of what halves of the real scans differ by; the last line of a seed is what held-out real scans reach. Nats: "
        f"a lower bound on log p(scan | labels) of {_LIKELY} of these for each voxel in view, ± its standard error.",
        "",
        f"| seed | scans | {' | '.join(names)} | detail | Dice of the judge | training | a scan | nats per voxel |",
        f"|---|---|{'---|' * len(names)}---|---|---|---|---|",
    ]
    for item in found:
        for reference, measures in item.measures.items():
            cells = [_cell(own) for own in measures if own.name in names]
            lines.append(
                f"| {item.seed} | {item.test} painted, against {reference} | {' | '.join(cells)} | "
                f"{item.detail[0]:.4f} | {item.dice[0]:.3f} | {item.seconds:.0f} s | {item.sample_seconds:.1f} s | |"
            )
        cells = [_cell(own) for own in item.real if own.name in names]
        lines.append(
            f"| {item.seed} | {item.test} real, against {item.training} training | {' | '.join(cells)} | "
            f"{item.detail[1]:.4f} | {item.dice[1]:.3f} | | | {item.nats[0]:.3f} ± {item.nats[1]:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _cell(item: Measure) -> str:
    """The ratio to the floor, or the number itself where it has none that means something."""
    return fmt(item.synthetic.estimate) if item.name in ("density", "coverage") else f"{fmt(item.ratio.estimate)} x"


def _painted(config: TrainRunConfig, seed: int, out: Path, progress: bool) -> Painted:
    train, test, labels = _data(config, seed, progress)
    judge = train_segmenter(
        train,
        SegmenterConfig(steps=_JUDGE_STEPS),
        derive(seed, "painting", "judge"),
        labels=labels,
        augmentation=AugmentConfig(),
        device=config.device,
    )
    settings = settings_for(config.model, train.shape, train.channels, len(labels))
    start = time.process_time()
    untrained = build(settings, seed=derive(seed, "painting", "weights"))
    untrained.sampling = parse_sampling(settings.family, config.sampling)
    model = fit(
        untrained,
        train,
        config.training,
        seed=derive(seed, "painting"),
        device=config.device,
        title=f"flow, seed {seed}",
        progress=progress,
    ).model.eval()
    if not isinstance(model, Flow):
        raise TypeError("the family 'flow' is of another class")
    trained = time.process_time()
    images = paint(model, test, torch_rng(seed, "painting", "samples"), float(train.images.max()))
    ended = time.process_time()
    if test.labels is None:
        raise DataError("painting needs scans with masks")
    ids = tuple(f"painted-{name}" for name in test.ids)
    sets = {
        "painted": Scans("painted", ids, ids, images, test.labels[:, 0]),
        "held-out": Scans.real("held-out", test),
        "training": Scans.real("training", train),
    }
    chosen, spacing = FidelityConfig(), config.preprocess.spacing
    value_range = float(train.images.max() - train.images.min())
    seen = test.foregrounds.float()
    described = {
        name: describe(
            scans,
            auditor_features([judge]),
            chosen,
            labels=labels,
            spacing=spacing,
            data_range=value_range,
            seed=seed,
        )
        for name, scans in sets.items()
    }
    against = partial(compare, config=chosen, seed=seed)
    _picture(images, test, config, out / f"painting-{seed}.png")
    return Painted(
        seed=seed,
        training=len(train),
        test=len(test),
        seconds=trained - start,
        sample_seconds=(ended - trained) / len(test),
        measures={
            "held-out": against(described["held-out"], described["painted"]).measures,
            "training": against(described["training"], described["painted"]).measures,
        },
        real=against(described["training"], described["held-out"]).measures,
        detail=(detail(images, seen), detail(test.images, seen)),
        dice=(
            judged_dice(judge, images, test.labels, labels),
            judged_dice(judge, test.images, test.labels, labels),
        ),
        nats=_nats(model, test, torch_rng(seed, "painting", "likelihood")),
    )


def _data(config: TrainRunConfig, seed: int, progress: bool) -> tuple[Dataset, Dataset, tuple[int, ...]]:
    """Training and held-out scans with labels 1, 2, ..., disjoint by subject."""
    train, test, numbers = read_scans(config, seed, progress, stream="painting")
    if train.labels is None or test.labels is None:
        raise DataError(f"{config.data}: a mask could not be prepared; expected one for each scan")
    return numbered(train, numbers), numbered(test, numbers), tuple(range(1, len(numbers) + 1))


def _nats(model: Flow, test: Dataset, generator: Generator) -> tuple[float, float]:
    batch = test.batch(range(min(_LIKELY, len(test)))).to(model.mean.device)
    found = model.conditional_log_likelihood(batch, _DRAWS, generator)
    voxels = batch.foreground.flatten(1).sum(1).double() * test.channels
    return float((found.value / voxels).mean()), float((found.error / voxels).square().sum().sqrt() / len(voxels))


def _picture(images: Tensor, test: Dataset, config: TrainRunConfig, path: Path) -> None:
    grid, rows = config.preprocess.canonical(), range(min(_SHOWN, len(test)))
    pairs = [(Volume(images[row].numpy(), grid), Volume(test.images[row].numpy(), grid)) for row in rows]
    figure = sample_pairs(
        pairs,
        names=[(f"painted on the labels of {test.ids[row]}", test.ids[row]) for row in rows],
        headings=("painted", "the scan that the labels are of"),
        title="Held-out label maps, painted by a flow",
    )
    write_bytes(path, png(figure))
