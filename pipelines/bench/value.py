"""Benchmark of the value of synthetic scans: generators and segmenters repeated, and a segmenter that is not ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import medgen
from medgen.config import load_config
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError, DataError
from medgen.metrics.bootstrap import hierarchical_draws, tail_p
from medgen.metrics.interval import Interval, percentile_interval
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.parts import prepare_parts
from medgen.progress import bars
from medgen.runs.folder import RunSummary
from medgen.seeds import derive
from medgen.segmentation.ordinary import available, needs_unlabelled
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.filtering.pool import SyntheticSet
from medgen.synthesis.value.cells import Material, TestSet, evaluate
from medgen.synthesis.value.scans_made_elsewhere import guard_labels, read_run
from medgen.synthesis.value.study import run_study
from medgen.synthesis.value.tables import TEST, VALIDATION, Row, of_part, table
from medgen.system.files import plain, write_json, write_text
from medgen.transforms.affine_registration import register_affine

from ..augment import run as augment
from ..augment.config import AugmentRunConfig
from ..augment.intake import admit, split
from ..augment.study import held_out, spaced
from . import peer_segmenter
from .cells import kept
from .peer_segmenter import PeerSegmenter, pseudo_labelled, train_peer

OWN, PEER = "own", "peer"
_BASE = "standard"


@dataclass(frozen=True)
class Gain:
    """A backend against the best ordinary arm, with one segmenter and number of subjects.

    Attributes:
        segmenter: ``own``, or ``peer``: MONAI's.
        subjects: Real labelled subjects.
        backend: What made the synthetic scans.
        ordinary: The ordinary arm with the highest mean Dice on the same test subjects, which favours it.
        chosen: Whether this backend has the highest mean Dice on the validation subjects.
        difference: Mean Dice difference; repetitions of the generator, seeds of the segmenter and test subjects are
            resampled.
        p: Two-sided, from the same resamples.
        repetitions: The difference with the scans of each repetition of the generator.
    """

    segmenter: str
    subjects: int
    backend: str
    ordinary: str
    chosen: bool
    difference: Interval
    p: float
    repetitions: tuple[float, ...]


def run(
    out: Path,
    *,
    data: Path,
    subjects: Sequence[int],
    repetitions: int,
    seeds: int,
    ordinary: Sequence[str],
    overrides: Sequence[str] = (),
    device: str | None = None,
    workers: int = 1,
    progress: bool = False,
) -> RunSummary:
    """Train generators and segmenters several times each, and write ``value.md`` and ``value.json``.

    Finished runs of generators (``n<subjects>-r<repetition>/``) and finished trainings of segmenters (``cells/``) are
    kept, and not computed again with the same settings.

    Args:
        out: Folder of the results.
        data: A cohort with masks.
        subjects: Numbers of real labelled subjects.
        repetitions: Trainings of the generators for each; the parts of the cohort are the same.
        seeds: Trainings of each segmenter.
        ordinary: Ordinary arms to compare with; the segmenter that is not ours knows ``standard`` and
            ``self_training``.
        overrides: ``key=value`` of the shipped configuration ``augment/hippocampus_study.yaml``.
        device: Where to train.
        workers: Processes of the study.
        progress: Show progress bars.

    Raises:
        ConfigError: If an arm is not known.
        MedgenError: If cohort or training are at fault.
    """
    if unknown := [name for name in ordinary if name not in available()]:
        raise ConfigError(f"--ordinary: expected some of {', '.join(available())}, found {unknown[0]!r}")
    path = Path(str(files("medgen.configs"))) / "augment" / "hippocampus_study.yaml"
    rows: list[Row] = []
    for number in dict.fromkeys(subjects):
        configs = [
            load_config(
                AugmentRunConfig,
                path,
                [
                    *overrides,
                    f"data={data}",
                    f"out={out / f'n{number}-r{repetition}'}",
                    f"labelled_subjects={number}",
                    f"repetition={repetition}",
                    "value.enabled=false",
                    f"workers={workers}",
                    *([f"device={device}"] if device else []),
                ],
            )
            for repetition in range(repetitions)
        ]
        for config in configs:
            generate(config, progress)
        rows += _study(configs, number, seeds, ordinary, out, progress)
    gains = [gain for name in (OWN, PEER) for gain in gains_of([row for row in rows if row["segmenter"] == name], name)]
    command = (
        f"medgen bench value OUT --data DATA --subjects {','.join(map(str, dict.fromkeys(subjects)))} "
        f"--repetitions {repetitions} --seeds {seeds} --ordinary {','.join(ordinary)}"
        + "".join(f" --set '{item}'" for item in overrides)
    )
    text = report(rows, gains, command)
    write_json(out / "value.json", {"command": command, "gains": [plain(gain) for gain in gains]})
    write_text(out / "value.md", text)
    return RunSummary(out, 0, (text, f"written: {out / 'value.md'}"))


def generate(config: AugmentRunConfig, progress: bool) -> None:
    """An augment run, unless it is finished; one that was interrupted goes on."""
    if not (config.out / "report.html").is_file():
        augment.run(config, resume=(config.out / "config.yaml").is_file(), progress=progress)


def gains_of(rows: Sequence[Row], segmenter: str) -> list[Gain]:
    """Every backend against the best ordinary arm, for every number of subjects.

    Args:
        rows: Of one segmenter, with ``backend`` and ``repetition``; both are empty in rows of ordinary arms.
        segmenter: Its name.
    """
    found = []
    for number in sorted({row["subjects"] for row in rows}):
        own = [row for row in rows if row["subjects"] == number]
        test, validation = of_part(own, TEST), of_part(own, VALIDATION)
        plain_arms = {arm: _tables(test, arm=arm)[0] for arm in _distinct(test, "arm") if _is_ordinary(test, arm)}
        best = max(plain_arms, key=lambda arm: float(plain_arms[arm].mean()))
        backends = [name for name in _distinct(test, "backend") if name]
        on_validation = {name: float(_tables(validation, backend=name).mean()) for name in backends if validation}
        for name in backends:
            differences = _tables(test, backend=name) - plain_arms[best]
            (draws,) = hierarchical_draws([differences], 5000, 0)
            found.append(
                Gain(
                    segmenter,
                    number,
                    name,
                    best,
                    name == max(on_validation, key=on_validation.__getitem__, default=backends[0]),
                    percentile_interval(float(differences.mean()), draws, differences.shape[-1], 0.95),
                    tail_p(draws),
                    tuple(float(value) for value in differences.mean(axis=(1, 2))),
                )
            )
    return found


def report(rows: Sequence[Row], gains: Sequence[Gain], command: str) -> str:
    """The results as a page in Markdown."""
    lines = [
        "# Value of synthetic scans, generators repeated",
        "",
        f"`{command}`: every arm gets the same number of steps of the same segmenter; `peer` is MONAI's residual U-Net "
        f"with MONAI's loss and transforms, {peer_segmenter.STEPS} steps. Mean Dice on the same test subjects.",
        "",
        "| segmenter | real subjects | arm | Dice |",
        "|---|---|---|---|",
    ]
    for name in (OWN, PEER):
        for number in sorted({row["subjects"] for row in rows}):
            own = [row for row in of_part(rows, TEST) if (row["segmenter"], row["subjects"]) == (name, number)]
            for arm in _distinct(own, "arm"):
                mean = np.mean([row["dice"] for row in own if row["arm"] == arm])
                lines.append(f"| {name} | {number} | {arm} | {mean:.4f} |")
    lines += [
        "",
        "Against the best ordinary arm; repetitions of the generator, seeds of the segmenter and test subjects are all "
        "resampled (95 % intervals). The backend in bold is the best one on the validation subjects.",
        "",
        "| segmenter | real subjects | backend | against | difference | p | with each repetition |",
        "|---|---|---|---|---|---|---|",
    ]
    for gain in gains:
        d, name = gain.difference, f"**{gain.backend}**" if gain.chosen else gain.backend
        each = ", ".join(f"{value:+.4f}" for value in gain.repetitions)
        lines.append(
            f"| {gain.segmenter} | {gain.subjects} | {name} | {gain.ordinary} | "
            f"{d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}] | {gain.p:.3g} | {each} |"
        )
    return "\n".join(lines) + "\n"


def _study(
    configs: Sequence[AugmentRunConfig], number: int, seeds: int, ordinary: Sequence[str], out: Path, progress: bool
) -> list[Row]:
    """Rows of all arms and both segmenters with so many subjects."""
    config = configs[0]
    manifest = load_cohort(config.data, config.cohort)
    manifest = admit(config, manifest).apply(manifest).with_hashes(config.workers)
    parts = split(config, manifest)
    recipe = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    with bars(progress) as tick:
        made = prepare_parts(
            parts.named(), parts.labelled, recipe, workers=config.workers, register=register_affine, tick=tick
        )
    labels = tuple(sorted(manifest.labels))
    prepared = PreparedCohort(recipe, made.template, made.data, labels, manifest, made.failures)
    if made.data["labelled"].labels is None or not labels:
        raise DataError(f"{config.data}: expected a cohort with masks and names of labels")
    pools: dict[str, tuple[str, int, SyntheticSet]] = {}
    for repetition, own in enumerate(configs):
        found = read_run(own.out, preprocess=recipe, labels=labels, parts=parts)
        guard_labels(found, parts.labelled.subjects)
        pools |= {f"{pool.name}-r{repetition}": (pool.name, repetition, pool.scans) for pool in found}
    sources = prepared.sources(parts)
    if sources.unlabelled is None and (wrong := [name for name in ordinary if needs_unlabelled(name)]):
        raise DataError(f"--ordinary: {wrong[0]} learns from unlabelled scans, and there are none")
    material = Material(
        number, sources.labelled, {key: pool for key, (_, _, pool) in pools.items()}, sources.unlabelled
    )
    test = held_out(prepared, parts, TEST)
    validation = held_out(prepared, parts, VALIDATION) if VALIDATION in prepared.data else None
    arms = (*ordinary, *(f"{_BASE}+{name}" for name in pools))
    value = spaced(config.value.model_copy(update={"seeds": seeds, "arms": arms}), recipe)
    rows = run_study(
        value,
        [material],
        test,
        labels,
        validation=validation,
        seed=derive(config.seed, "bench value"),
        device=config.device,
        workers=config.workers,
        store=out / "cells",
    )
    rows = [{**row, "segmenter": OWN} for row in rows]
    peer = _Peer(material, test, validation, labels, config, ordinary, out)
    for seed in range(seeds):
        rows += peer.rows(seed)
    named = {f"{_BASE}+{key}": (name, repetition) for key, (name, repetition, _) in pools.items()}
    return [_with_origin(row, named) for row in rows]


@dataclass(frozen=True, eq=False)
class _Peer:
    """The cells of the segmenter that is not ours."""

    material: Material
    test: TestSet
    validation: TestSet | None
    labels: tuple[int, ...]
    config: AugmentRunConfig
    ordinary: Sequence[str]
    out: Path

    def rows(self, seed: int) -> list[Row]:
        """All its arms under one seed."""
        arms: dict[str, Callable[[], SyntheticSet | None]] = {_BASE: lambda: None}
        if "self_training" in self.ordinary:
            arms["self_training"] = partial(self._pseudo, seed)
        for name, pool in self.material.pools.items():
            if pool is not None:
                arms[f"{_BASE}+{name}"] = partial(self.material.pools.get, name)
        return [row for name, further in arms.items() for row in self._cell(name, seed, further)]

    def _cell(self, arm: str, seed: int, further: Callable[[], SyntheticSet | None]) -> list[Row]:
        digests = self.material.sha256
        said: dict[str, Any] = {
            "method": f"{PEER}-{arm}-n{self.material.subjects}",
            "seed": seed,
            "steps": peer_segmenter.STEPS,
            "run": self.config.seed,
            # The versions stand for the code, the settings of the training included.
            "versions": [medgen.__version__, str(torch.__version__)],
            "content": [digests["real"], digests["unlabelled"], digests.get(arm.removeprefix(_BASE))],
            "held out": [part.sha256 for part in (self.test, self.validation) if part is not None],
        }

        def compute() -> dict[str, Any]:
            segmenter = self._train(further(), seed)
            common = {"arm": arm, "subjects": self.material.subjects, "seed": seed, "segmenter": PEER}
            found = []
            for part, scans in ((VALIDATION, self.validation), (TEST, self.test)):
                if scans is not None:
                    measured = evaluate(segmenter, scans, self.labels, self.config.value.tolerance_mm)
                    found += [{**common, "part": part, **row} for row in measured]
            return {"rows": plain(found)}

        rows: list[Row] = kept(self.out, said, compute)["rows"]
        return rows

    def _train(self, further: SyntheticSet | None, seed: int) -> PeerSegmenter:
        own = derive(self.config.seed, "bench value", PEER, seed)
        steps, device = peer_segmenter.STEPS, self.config.device
        return train_peer(self.material.real, further, self.labels, own, steps=steps, device=device)

    def _pseudo(self, seed: int) -> SyntheticSet | None:
        """Unlabelled scans, labelled by a teacher that learnt from the labelled ones."""
        if self.material.unlabelled is None:
            return None
        return pseudo_labelled(self._train(None, derive(seed, "teacher")), self.material.unlabelled.images)


def _with_origin(row: Row, named: Mapping[str, tuple[str, int]]) -> Row:
    backend, repetition = named.get(row["arm"], ("", 0))
    return {**row, "backend": backend, "repetition": repetition}


def _distinct(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _is_ordinary(rows: Sequence[Row], arm: str) -> bool:
    return any(row["arm"] == arm and not row["backend"] for row in rows)


def _tables(rows: Sequence[Row], **having: str) -> NDArray[np.float64]:
    """Dice (repetitions, seeds, subjects) of the rows that have these values."""
    own = [row for row in rows if all(row[key] == value for key, value in having.items())]
    return np.stack(
        [
            table([row for row in own if row["repetition"] == number], "dice")
            for number in sorted({row["repetition"] for row in own})
        ]
    )
