"""Benchmark of the gate's names for artefacts: faulty copies of scans of subjects that set no limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from medgen.anomaly.artefacts.signs import MEASURES, ArtefactLimits
from medgen.anomaly.gate import Gate
from medgen.config import load_config
from medgen.data.cases import Case
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError, OutOfDistribution
from medgen.implants.artefact import STRENGTHS
from medgen.implants.artefact_scan import spoil
from medgen.implants.catalogue import artefacts
from medgen.implants.implanted_scans import HEALTHY, scans_to_test
from medgen.metrics.bootstrap import binomial_interval
from medgen.metrics.interval import Interval
from medgen.preprocessing.parts import PreparedParts, prepare_parts
from medgen.preprocessing.recipe import Preprocess
from medgen.progress import Tick, bars
from medgen.report.html import fmt
from medgen.runs.folder import RunSummary
from medgen.seeds import numpy_rng
from medgen.system.files import plain, write_json, write_text
from medgen.transforms.affine_registration import register_affine
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Volume

from ..anomaly.cohort import divide, split
from ..anomaly.config import AnomalyRunConfig
from .cohorts import COHORTS


@dataclass(frozen=True)
class Cell:
    """What became of the copies with one artefact of one strength.

    Attributes:
        artefact, strength: Which.
        named: Copies that look like it before any other, exact interval.
        otherwise: Other artefacts that copies look like first, and how many.
        refused: Copies that the gate refuses, named or not.
    """

    artefact: str
    strength: str
    named: Interval
    otherwise: Mapping[str, int]
    refused: int


def run(
    out: Path, *, data: Path, cohort: str, acquired_mm: float, overrides: Sequence[str], progress: bool
) -> RunSummary:
    """Fit limits on the development subjects, spoil the scans of the others, and write ``artefacts.md`` and ``.json``.

    Args:
        out: Folder of the two files.
        data: The cohort.
        cohort: Name of a shipped configuration of anomaly runs.
        acquired_mm: Voxel size of the faulty acquisitions: scans are brought to it before they are spoilt.
        overrides: KEY=VALUE of the configuration.
        progress: Show progress bars.

    Raises:
        MedgenError: If configuration or cohort are at fault.
    """
    if cohort not in COHORTS:
        raise ConfigError(f"cohort: expected one of {', '.join(COHORTS)}, found {cohort!r}")
    shipped = Path(str(files("medgen.configs"))) / "anomaly" / f"{cohort}.yaml"
    config = load_config(AnomalyRunConfig, shipped, [*overrides, f"data={data}", f"out={out}"])
    manifest = load_cohort(config.data, config.cohort)
    parts = split(config, manifest)
    recipe = divide(config, parts).recipe
    with bars(progress) as tick:
        prepared = prepare_parts(
            parts, parts["development"], recipe, workers=config.workers, register=register_affine, tick=tick
        )
        development, test = prepared.data["development"], prepared.data["test"]
        gate = Gate.fit(development, config.anomaly.gate)
        limits = ArtefactLimits.fit(development, gate.reference, config.anomaly.gate)
        known = {*test.ids}
        cases = [case for case in parts["test"] if case.id in known]
        cells = _cells(cases, recipe, prepared, gate, limits, acquired_mm, config.seed, tick)
        healthy = [bool(limits.signs(own)) for own in test.prepared]
        lesions = [
            bool(limits.signs(replace(scan.prepared, image=scan.image.numpy())))
            for scan in scans_to_test(test, development, recipe.spacing, config.evaluation, config.seed)
            if scan.kind != HEALTHY
        ]
    rates = {
        "healthy development scans, by the limits of other subjects": binomial_interval(*limits.flagged),
        "healthy scans of other subjects": binomial_interval(sum(healthy), len(healthy)),
        "the same with an implanted lesion": binomial_interval(sum(lesions), len(lesions)),
    }
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "subjects": {name: len(part.subjects) for name, part in parts.items()},
        "acquired_mm": acquired_mm,
        "preprocess": recipe.model_dump(mode="json"),
    }
    write_json(out / "artefacts.json", plain({**facts, "cells": cells, "rates": rates, "limits": limits.to_plain()}))
    command = f"medgen bench artefacts OUT --data {data.name} --cohort {cohort} --acquired-mm {acquired_mm:g}"
    command += "".join(f" --set {item}" for item in overrides)
    write_text(out / "artefacts.md", table(command, facts["subjects"], cells, rates, limits))
    named, scans = (sum(round(cell.named.estimate * cell.named.n) for cell in cells), sum(c.named.n for c in cells))
    return RunSummary(out, 0, (f"{named} of {scans} faulty copies are named", f"{out / 'artefacts.md'}"))


def _cells(
    cases: Sequence[Case],
    recipe: Preprocess,
    prepared: PreparedParts,
    gate: Gate,
    limits: ArtefactLimits,
    acquired_mm: float,
    seed: int,
    tick: Tick,
) -> list[Cell]:
    kinds = [name for name, kind in artefacts().items() if kind.tomogram or recipe.modality != "CT"]
    said: dict[tuple[str, str], list[tuple[str, bool]]] = {(kind, own): [] for own in STRENGTHS for kind in kinds}
    done, total = 0, len(cases) * len(said)
    for case in cases:
        scan, inside = _acquired(case.read_image(), acquired_mm)
        # Whether a faulty scan registers is not the question: it lies where the scan without the fault does.
        template = prepared.template
        pose = None if template is None else register_affine(scan, template.image, template.foreground)
        for (kind, strength), found in said.items():
            rng = numpy_rng(seed, "artefact", case.id, kind, strength)
            faulty = spoil(scan, inside, kind, rng, strength=STRENGTHS[strength]).image
            if pose is None:
                shown = recipe.apply(faulty)
            else:
                shown = recipe.apply(faulty, template, register=lambda *_, own=pose, **__: own)
            try:
                gate.check(shown)
                refused = False
            except OutOfDistribution:
                refused = True
            signs = limits.signs(shown)
            found.append((signs[0].artefact if signs else "", refused))
            done += 1
            tick("artefacts", done, total)
    return [_cell(kind, strength, own) for (kind, strength), own in said.items()]


def _acquired(scan: Volume, acquired_mm: float) -> tuple[Volume, Any]:
    """A scan as an acquisition of that voxel size gives it, and its foreground; what was constant outside stays so."""
    inside = scan.with_data(foreground_mask(scan.data)[None].astype(np.float32))
    outside = scan.data[:, inside.data[0] == 0]
    extent = np.array(scan.grid.shape) * np.array(scan.grid.spacing)
    shape = np.ceil(extent / acquired_mm).astype(int).tolist()
    grid = scan.grid.centred(tuple(shape), (acquired_mm,) * 3)
    coarse = scan.with_data(scan.data.astype(np.float32)).resample(grid, fill=float(scan.data.min()))
    mask = inside.resample(grid, fill=0.0).data[0] > 0.5
    if outside.size and (outside == outside[:, :1]).all():
        return coarse.with_data(np.where(mask, coarse.data, outside[:, :1, None, None]).astype(np.float32)), mask
    return coarse, mask


def _cell(artefact: str, strength: str, said: Sequence[tuple[str, bool]]) -> Cell:
    named = sum(first == artefact for first, _ in said)
    otherwise = Counter(first for first, _ in said if first not in ("", artefact))
    share = binomial_interval(named, len(said))
    return Cell(artefact, strength, share, dict(otherwise), sum(refused for _, refused in said))


def table(
    command: str,
    subjects: Mapping[str, int],
    cells: Sequence[Cell],
    rates: Mapping[str, Interval],
    limits: ArtefactLimits,
) -> str:
    """The page in Markdown.

    Args:
        command: What made it.
        subjects: How many in each part.
        cells: By artefact and strength.
        rates: Shares of scans without an artefact that look like one.
        limits: The limits.
    """
    kinds, strengths = list(dict.fromkeys(c.artefact for c in cells)), list(dict.fromkeys(c.strength for c in cells))
    by_key = {(cell.artefact, cell.strength): cell for cell in cells}
    lines = [
        "# Artefacts named",
        "",
        f"`{command}`: limits from {subjects['development']} development subjects, faulty copies of scans of "
        f"{subjects['test']} others, spoilt on the grid of their acquisition, then prepared. named: looks like that "
        "artefact before any other, exact 95 % intervals over scans; else what it looks like first. refused: by the "
        "gate, named or not.",
        "",
        f"| artefact | {' | '.join(strengths)} | named otherwise | refused |",
        f"|---|{'---|' * (len(strengths) + 2)}",
    ]
    for kind in kinds:
        own = [by_key[kind, strength] for strength in strengths]
        other: Counter[str] = sum((Counter(cell.otherwise) for cell in own), Counter())
        lines.append(
            f"| {kind} | {' | '.join(fmt(cell.named) for cell in own)} | "
            f"{', '.join(f'{name} {count}' for name, count in other.most_common()) or '-'} | "
            f"{sum(cell.refused for cell in own)} of {sum(cell.named.n for cell in own)} |"
        )
    lines += ["", "| looks like an artefact and has none | share | scans |", "|---|---|---|"]
    lines += [f"| {name} | {fmt(rate)} | {rate.n} |" for name, rate in rates.items()]
    lines += ["", "| artefact | what tells it | limit | healthy development scans |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {MEASURES[name].what} | {own.high:.3g} | {own.values.min():.3g} to {own.values.max():.3g} |"
        for name, own in limits.limits.items()
    ]
    return "\n".join(lines) + "\n"
