"""How like real scans the synthetic ones are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.metrics.msssim import pairwise_ms_ssim
from medgen.report.augment.fidelity import fidelity_lines, section_fidelity
from medgen.report.html import Report
from medgen.report.methods.augment import compared
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.folder import RunFolder
from medgen.runs.keys import Key
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.estimates import Outline
from medgen.synthesis.fidelity.comparison import (
    Described,
    Features,
    Fidelity,
    Scans,
    auditor_features,
    compare,
    describe,
)
from medgen.synthesis.fidelity.feature_file import FeatureTable
from medgen.synthesis.fidelity.results import ALL, HELD_OUT, TRAINING, FidelityResults
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.sources import Sources
from medgen.system.files import write_csv
from medgen.training.cost import Estimate, minutes

from ...stages import Stage
from ..config import AugmentRunConfig
from .train import Generators

# A held-out part that cannot be split into two halves of two subjects has no floor.
_FEWEST_SUBJECTS = 4


class MeasureFidelity(Stage[AugmentRunConfig]):
    """Compares accepted scans with the training scans and with the held-out ones."""

    name = "fidelity"
    needs = (PreparedCohort, Sources, Generators, Filter, CandidatePool)
    own_keys = (
        Key("<generator>.<part>.<measure>", "a measure of likeness to the real scans of a part"),
        Key("<generator>.<part>.<measure>.ratio", "the same over its value between halves of real scans"),
    )
    makes = (FidelityResults,)

    def wanted(self, config: AugmentRunConfig) -> bool:
        """Unless it is switched off."""
        return config.fidelity.enabled

    def estimate(
        self, config: AugmentRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """Structural similarity, most of the comparison: training, held-out and synthetic scans, pair by pair."""
        outline = known[Outline]
        generator = torch.Generator().manual_seed(0)
        image = torch.rand((2, outline.channels, *outline.shape), generator=generator)
        seconds = []
        for _ in range(2):  # the first one imports
            start = time.perf_counter()
            pairwise_ms_ssim(image, 1.0)
            seconds.append(time.perf_counter() - start)
        backends = len(config.generators.names)
        total = seconds[1] * math.comb(config.fidelity.similar, 2) * (2 + backends + (backends > 1))
        return {self.name: Estimate(total, 0.0, (f"comparison with real scans: about {minutes(total)}",))}

    def run(self, config: AugmentRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        settings, sources, pool = config.fidelity, results[Sources], results[CandidatePool]
        prepared, table = results[PreparedCohort], results.get(FeatureTable)
        accepted = {backend.name: pool.accepted(backend.name) for backend in results[Generators]}
        short = {name: len(scans) for name, scans in accepted.items() if len(scans) < settings.fewest}
        sets = [Scans.synthetic(name, scans) for name, scans in accepted.items() if name not in short]
        if sum(len(scans) > 0 for scans in accepted.values()) > 1 and len(pool.accepted()) >= settings.fewest:
            sets.append(Scans.synthetic(ALL, pool.accepted()))
        real = [Scans.real(TRAINING, sources.labelled, sources.unlabelled)]
        held_out = prepared.data.get("test")
        if held_out is not None and len(set(held_out.subjects)) >= _FEWEST_SUBJECTS:
            real.append(Scans.real(HELD_OUT, held_out))
        features = auditor_features([segmenter for segmenter, _ in results[Filter].auditors])
        source = "channel statistics of the filter's auditors, trained on real labelled scans"
        if table is not None:
            features = _from_file(table)
            source = f"{table.path.name}, SHA-256 {table.sha256[:12]}"
        images = real[0].images
        seed = run.derive("fidelity")
        described: dict[str, Described] = {}
        with run.bars() as tick:
            for scans in (*real, *sets) if sets else ():
                described[scans.name] = describe(
                    scans,
                    features,
                    settings,
                    labels=sources.labels,
                    spacing=prepared.preprocess.spacing,
                    data_range=float(images.max() - images.min()),
                    seed=seed,
                    tick=tick,
                )
        comparisons = [
            compare(described[reference.name], described[scans.name], settings, seed)
            for scans in sets
            for reference in real
        ]
        run.stage.log_metrics(_numbers(comparisons))
        _write(comparisons, run.folder)
        return [FidelityResults(tuple(comparisons), described, short, settings.fewest, source)]

    def outputs(self) -> tuple[Output, ...]:
        """The statistics of every label."""
        return (Output("fidelity.csv", "volumes and intensities of every label, synthetic beside real", tracked=True),)

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Every comparison."""
        found = results.get(FidelityResults)
        return {"fidelity": None if found is None else found.to_plain()}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Every comparison."""
        section_fidelity(report, results[FidelityResults], results[PreparedCohort].label_names)

    def methods(self, text: MethodsText, config: AugmentRunConfig, results: Results) -> None:
        """What likeness was measured by."""
        compared(text, config.fidelity)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """How far every generator is from real scans."""
        return fidelity_lines(results[FidelityResults])


def _from_file(table: FeatureTable) -> Features:
    def features(ids: Sequence[str], images: Tensor) -> NDArray[np.float64]:
        return table.of(ids)

    return features


def _numbers(comparisons: Sequence[Fidelity]) -> dict[str, float]:
    """What MLflow shows: every measure and its ratio to the floor, where they are finite."""
    values = {
        f"{item.synthetic}.{item.real}.{measure.name}{suffix}": number
        for item in comparisons
        for measure in item.measures
        for suffix, number in (("", measure.synthetic.estimate), (".ratio", measure.ratio.estimate))
    }
    return {name: number for name, number in values.items() if np.isfinite(number)}


def _write(comparisons: Sequence[Fidelity], folder: RunFolder) -> None:
    """``fidelity.csv``: one row per set, label and statistic."""
    columns = ["synthetic", "real", "label", "statistic", "real_mean", "real_sd", "synthetic_mean", "synthetic_sd"]
    columns += ["difference", "ks", "ks_real", "unlike"]
    rows = [
        {
            "synthetic": item.synthetic,
            "real": item.real,
            "label": row.label,
            "statistic": row.statistic,
            "real_mean": row.real[0],
            "real_sd": row.real[1],
            "synthetic_mean": row.synthetic[0],
            "synthetic_sd": row.synthetic[1],
            "difference": row.difference,
            "ks": row.ks,
            "ks_real": row.ks_real,
            "unlike": row.unlike,
        }
        for item in comparisons
        for row in item.statistics
    ]
    write_csv(folder.out / "fidelity.csv", rows, columns)
