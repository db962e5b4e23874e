"""Accepted synthetic scans, shown beside the real scans that they resemble most."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medgen.report.figures.mosaic import sample_pairs
from medgen.report.html import Report, png
from medgen.runs.folder import RunFolder
from medgen.seeds import numpy_rng
from medgen.synthesis.backend import Backend
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.sources import Sources
from medgen.system.files import write_bytes
from medgen.volume import Grid, Volume

_SHOWN = 4


def samples_section(
    report: Report,
    pool: CandidatePool,
    backends: Sequence[Backend],
    filters: Filter,
    prepared: PreparedCohort,
    folder: RunFolder,
    seed: int,
) -> None:
    """Some accepted scans of every backend beside their nearest real ones; pictures are also written to ``figures/``.

    Args:
        report: The report.
        pool: All samples with their verdicts.
        backends: The trained generators.
        filters: The filter, which knows the training scans.
        prepared: The cohort on the model grid.
        folder: Folder of the run.
        seed: Seed of the run: which scans are shown is drawn.
    """
    sources, grid = filters.sources, prepared.preprocess.canonical()
    report.section(
        "Samples",
        "Accepted scans (refused ones of a generator that has none), drawn at random, with their labels, beside the "
        "training scan that each resembles most.",
        layer="cases",
    )
    for backend in backends:
        accepted = pool.accepted(backend.name)
        # Where nothing was accepted, what was refused is what there is to learn from.
        able = accepted or tuple(item for item in pool.rejected(backend.name) if item.filtered.nearest)
        if not accepted:
            report.text(f"**{backend.name}**: no scan was accepted." + (" These were refused:" if able else ""))
        if not able:
            continue
        rows = numpy_rng(seed, "report", backend.name).permutation(len(able))[:_SHOWN]
        chosen = [able[int(row)] for row in rows]
        pairs = [beside(sources, grid, candidate, candidate.filtered.nearest) for candidate in chosen]
        figure = sample_pairs(
            [(a, b) for a, b, _, _ in pairs],
            labels=[(c, d) for _, _, c, d in pairs],
            names=[_names(filters, candidate) for candidate in chosen],
            label_names=prepared.label_names,
            title=f"{backend.name}: {'synthetic' if accepted else 'refused'} scans and their nearest real ones",
        )
        write_bytes(folder.figures / f"samples-{backend.name}.png", png(figure))
        bare = sum(truth is None for _, _, _, truth in pairs)
        caption = f"{backend.name}. r is the likeness of the copy check, 1 for a copy. {_bare(bare, len(pairs))}"
        if not accepted:
            caption += "".join(f" {item.id}: {'; '.join(item.filtered.reasons.values())}." for item in chosen)
        report.figure(figure, caption, f"Samples of {backend.name} beside real scans")


def _bare(bare: int, shown: int) -> str:
    """Which of the real scans beside the samples are shown with labels.

    >>> _bare(0, 4), _bare(4, 4)
    ('The real scans are shown with their labels.', 'The real scans are unlabelled ones.')
    """
    if not bare:
        return "The real scans are shown with their labels."
    return "The real scans are unlabelled ones." if bare == shown else f"{bare} of {shown} real scans have no labels."


def beside(
    sources: Sources, grid: Grid, candidate: Candidate, name: str
) -> tuple[Volume, Volume, Volume, Volume | None]:
    """Image of a candidate and of a training case, and the labels of both where known."""
    synthetic = candidate.synthetic
    if synthetic is None:
        raise ValueError("a candidate that was judged has a scan")
    image, labels = Volume(synthetic.image, grid), Volume(synthetic.labels[None], grid)
    if name in sources.labelled.ids or sources.unlabelled is None:
        row = sources.labelled.ids.index(name)
        truth = None if sources.labelled.labels is None else Volume(sources.labelled.labels[row].numpy(), grid)
        return image, Volume(sources.labelled.images[row].numpy(), grid), labels, truth
    row = sources.unlabelled.ids.index(name)
    return image, Volume(sources.unlabelled.images[row].numpy(), grid), labels, None


def _names(filters: Filter, candidate: Candidate) -> tuple[str, str]:
    parents = () if candidate.synthetic is None else candidate.synthetic.parents
    nearest = candidate.filtered.nearest
    image = torch.zeros(0) if candidate.synthetic is None else torch.from_numpy(candidate.synthetic.image)
    likeness = float(filters.gallery.correlations(image)[filters.sources.ids.index(nearest)])
    left = f"{candidate.id}" + (f", from {parents[0]}" if parents else "")
    return left, f"{nearest}, r = {likeness:.3f}"
