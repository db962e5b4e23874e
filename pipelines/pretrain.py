"""Train a model on painted scans: label maps of a cohort, simulated or not, under random contrasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch

from medgen.data.cases import Manifest
from medgen.errors import ConfigError, DataError
from medgen.preprocessing.dataset import Dataset
from medgen.report.html import Report
from medgen.runs.context import Results, RunContext
from medgen.runs.folder import RunSummary
from medgen.seeds import torch_rng
from medgen.training.batches import Scans
from medgen.transforms.painting import paint

from . import train
from .pretrain_settings import PretrainRunConfig
from .stages import Pipeline, Stage
from .train import Train
from .train_scans import Parts, Prepare, PreparedScans, TrainingScans

# Scans that are painted at a time.
_CHUNK = 8


class Paint(Stage[PretrainRunConfig]):
    """Paints the label maps; of the scans themselves only their field of view is used."""

    name = "paint"
    needs = (Parts, PreparedScans)
    makes = (TrainingScans,)

    def run(self, config: PretrainRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            DataError: If a case has no label map.
            ConfigError: If scans have several channels, between which painting knows no relation.
        """
        return [painted(config, results[PreparedScans].dataset, results[Parts])]

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """How many scans were painted, of how many label maps."""
        scans = results[TrainingScans]
        return {"painted": len(scans.train), "label_maps": len(scans.cases)}

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """What the model has seen of the cohort."""
        report.section("Painted scans", said(results[TrainingScans]))

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """The same."""
        return [said(results[TrainingScans])]


PIPELINE = Pipeline[PretrainRunConfig]([Prepare(), Paint(), Train()], given=(Manifest,))


def said(scans: TrainingScans) -> str:
    """How many scans the model learns from, and what of whom is in them."""
    return (
        f"The model has learnt from {len(scans.train)} scans that were painted with random contrasts on the label maps "
        f"of {len(scans.cases)} cases: it has seen their anatomy, and no intensity of theirs."
    )


def painted(config: PretrainRunConfig, dataset: Scans, parts: Parts) -> TrainingScans:
    """So many painted scans, the label maps in turn; the same for the same seed and cohort."""
    if not isinstance(dataset, Dataset) or dataset.labels is None:
        raise DataError(
            f"{config.data}: painting needs label maps, and not every case has a mask; leave out those without, or "
            "simulate a cohort with `medgen data simulate`"
        )
    if dataset.channels > 1:
        raise ConfigError(f"{config.data}: scans have {dataset.channels} channels; painting makes one")
    settings = config.painting
    rows = torch.arange(settings.scans) % len(dataset)
    made = []
    for first in range(0, len(rows), _CHUNK):
        own = rows[first : first + _CHUNK]
        generator = torch_rng(config.seed, "painting", first)
        made.append(paint(dataset.labels[own], dataset.foregrounds[own], settings, generator))
    images, labels, foregrounds = (torch.cat(items) for items in zip(*made, strict=True))
    ids = tuple(f"painted-{number:05d}" for number in range(settings.scans))
    subjects = tuple(dataset.subjects[row] for row in rows.tolist())
    facts = {"kind": "pretrained", "painting": settings.model_dump(mode="json")}
    used = {dataset.ids[row] for row in rows.tolist()}
    cases = tuple(case.id for case in parts["train"] if case.id in used)
    return TrainingScans(Dataset(ids, subjects, images, foregrounds, labels), None, cases, facts)


def run(
    config: PretrainRunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False
) -> RunSummary:
    """Read and prepare the cohort, paint its label maps, train, save ``model/``, report.

    Raises:
        MedgenError: If configuration, data or training are at fault; see the message.
    """
    scans = partial(painted, config)
    return train.carry_out(config, PIPELINE, "pretrain", scans, resume=resume, overwrite=overwrite, progress=progress)


def plan(config: PretrainRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do and cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data or output folder.
    """
    lines = train.plan(config, resume=resume, overwrite=overwrite)
    count = config.painting.scans
    return [f"painting: {count} scans with random contrasts, on the label maps of the cohort in turn", *lines]
