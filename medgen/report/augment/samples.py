"""Synthetic scans one by one: a table of all, pictures beside the real scans they resemble most, pages to flip both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.report.augment.pair_viewer import pair_viewer
from medgen.report.figures.mosaic import sample_pairs
from medgen.report.figures.planes import middle_point
from medgen.report.figures.thumbnail import labelled_thumbnail
from medgen.report.html import Link, Report, Thumbnail, png
from medgen.report.viewer.library import missing
from medgen.runs.folder import RunFolder
from medgen.seeds import numpy_rng
from medgen.synthesis.backend import Backend
from medgen.synthesis.cohort.prepared import PreparedCohort
from medgen.synthesis.filtering.filter import Filter
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.sources import Sources
from medgen.system.files import write_bytes
from medgen.volume import Grid, Volume

VIEWERS = "viewers/"
_SHOWN = 4
# Refused scans of a generator in the table; rejections.csv has all.
_REFUSED = 20


@dataclass(frozen=True, eq=False)
class _Shown:
    """The scans of a generator that pictures and viewers are made of."""

    backend: str
    scans: tuple[Candidate, ...]
    accepted: bool


def samples_section(
    report: Report,
    pool: CandidatePool,
    backends: Sequence[Backend],
    filters: Filter,
    prepared: PreparedCohort,
    folder: RunFolder,
    seed: int,
) -> None:
    """A table of the scans, and some of every backend beside their nearest real ones, also in ``figures/``.

    Args:
        report: The report.
        pool: All samples with their verdicts.
        backends: The trained generators.
        filters: The filter, which knows the training scans.
        prepared: The cohort on the model grid.
        folder: Folder of the run, which gets pictures and viewers.
        seed: Seed of the run: which scans are shown is drawn.
    """
    names = [backend.name for backend in backends]
    shown = [_drawn(pool, name, seed) for name in names]
    pages = _viewers([item for item in shown if item.scans], filters, prepared, folder)
    _table(report, pool, names, prepared.preprocess.canonical(), pages)
    report.section(
        "Samples",
        "Accepted scans (refused ones of a generator that has none), drawn at random, with their labels, beside the "
        "training scan that each resembles most.",
        layer="cases",
    )
    if not pages and any(item.scans for item in shown) and (reason := missing()):
        report.text(f"There are no pages to flip them: {reason}.")
    for item in shown:
        _pictures(report, item, filters, prepared, folder)


def _drawn(pool: CandidatePool, backend: str, seed: int) -> _Shown:
    accepted = pool.accepted(backend)
    # Where nothing was accepted, what was refused is what there is to learn from.
    able = accepted or tuple(item for item in pool.rejected(backend) if item.filtered.nearest)
    rows = numpy_rng(seed, "report", backend).permutation(len(able))[:_SHOWN]
    return _Shown(backend, tuple(able[int(row)] for row in rows), bool(accepted))


def _pictures(report: Report, item: _Shown, filters: Filter, prepared: PreparedCohort, folder: RunFolder) -> None:
    if not item.accepted:
        report.text(f"**{item.backend}**: no scan was accepted." + (" These were refused:" if item.scans else ""))
    if not item.scans:
        return
    grid = prepared.preprocess.canonical()
    pairs = [beside(filters.sources, grid, scan, scan.filtered.nearest) for scan in item.scans]
    figure = sample_pairs(
        [(a, b) for a, b, _, _ in pairs],
        labels=[(c, d) for _, _, c, d in pairs],
        names=[_names(filters, scan) for scan in item.scans],
        label_names=prepared.label_names,
        title=f"{item.backend}: {'synthetic' if item.accepted else 'refused'} scans and their nearest real ones",
    )
    write_bytes(folder.figures / f"samples-{item.backend}.png", png(figure))
    bare = sum(truth is None for _, _, _, truth in pairs)
    caption = f"{item.backend}. r is the likeness of the copy check, 1 for a copy. {_bare(bare, len(pairs))}"
    if not item.accepted:
        caption += "".join(f" {scan.id}: {'; '.join(scan.filtered.reasons.values())}." for scan in item.scans)
    report.figure(figure, caption, f"Samples of {item.backend} beside real scans")


def _viewers(shown: Sequence[_Shown], filters: Filter, prepared: PreparedCohort, folder: RunFolder) -> dict[str, str]:
    """Pages of the scans that are shown, by their ids; none where NiiVue is not installed."""
    pages: dict[str, str] = {}
    if missing():
        return pages
    for scan in (scan for item in shown for scan in item.scans):
        real = scan.filtered.nearest
        a, b, labels, truth = beside(filters.sources, prepared.preprocess.canonical(), scan, real)
        left, right = _names(filters, scan)
        pages[scan.id] = f"{VIEWERS}{scan.id}.html"
        page = pair_viewer(
            scan.id,
            f"Synthetic scan of {scan.backend}, {outcome(scan)}. The training scan that it resembles most is {right}.",
            {f"synthetic {left}": (a, labels), f"real {real}": (b, truth)},
            prepared.label_names,
            back="../report.html",
        )
        page.write(folder.out / pages[scan.id])
    return pages


def _table(report: Report, pool: CandidatePool, backends: Sequence[str], grid: Grid, pages: dict[str, str]) -> None:
    """Every accepted scan in a line, and refused ones."""
    report.section(
        "Synthetic scans",
        "Every accepted scan, and refused ones. Click a heading to sort, or type a word such as accepted or copy."
        + (" Linked scans open in a page that flips between them and the nearest real scan." if pages else ""),
        layer="cases",
    )
    rows, left_out = [], 0
    for backend in backends:
        refused = pool.rejected(backend)
        left_out += max(len(refused) - _REFUSED, 0)
        rows += [_row(scan, grid, pages) for scan in (*pool.accepted(backend), *refused[:_REFUSED])]
    if not rows:
        report.text("There are none.")
        return
    more = f" {left_out} more refused scans are in `rejections.csv`." if left_out else ""
    report.table(
        ["slice", "scan", "generator", "made from", "label agreement", "most like", "r to strangers", "outcome"],
        rows,
        "label agreement: Dice between its labels and what segmenters see that were trained on real scans. most like: "
        "the training scan that it resembles most. r to strangers: likeness to the scan that it resembles most of "
        f"people it was not made from, 1 for a copy.{more}",
        sortable=True,
    )


def _row(scan: Candidate, grid: Grid, pages: dict[str, str]) -> tuple[object, ...]:
    scores, parents = scan.filtered.scores, () if scan.synthetic is None else scan.synthetic.parents
    small = None
    if scan.synthetic is not None:
        image, labels = _volumes(scan, grid)
        small = Thumbnail(labelled_thumbnail(image, labels, _middle(labels)), f"Slice of {scan.id} with its labels")
    return (
        small,
        Link(scan.id, pages[scan.id]) if scan.id in pages else scan.id,
        scan.backend,
        ", ".join(parents) or "nobody",
        scores.get("agreement"),
        scan.filtered.nearest or None,
        scores.get("copy"),
        outcome(scan),
    )


def outcome(scan: Candidate) -> str:
    """What became of a scan: accepted, or the checks that it failed, the first with its numbers."""
    if scan.filtered.accepted:
        return "accepted"
    first, *others = scan.filtered.reasons.values()
    return f"refused: {first}" + (f" (and {len(others)} more)" if others else "")


def _middle(labels: Volume) -> NDArray[np.float64]:
    """The middle of what is labelled, of the rarest label; of the scan where nothing is."""
    values, counts = np.unique(labels.data[labels.data > 0], return_counts=True)
    if not len(values):
        return labels.grid.center
    return middle_point(labels.data[0] == values[counts.argmin()], labels.grid)


def _bare(bare: int, shown: int) -> str:
    """Which of the real scans beside the samples are shown with labels.

    >>> _bare(0, 4), _bare(4, 4)
    ('The real scans are shown with their labels.', 'The real scans are unlabelled ones.')
    """
    if not bare:
        return "The real scans are shown with their labels."
    return "The real scans are unlabelled ones." if bare == shown else f"{bare} of {shown} real scans have no labels."


def _volumes(candidate: Candidate, grid: Grid) -> tuple[Volume, Volume]:
    """Image and labels of a candidate."""
    synthetic = candidate.synthetic
    if synthetic is None:
        raise ValueError("a candidate that was judged has a scan")
    return Volume(synthetic.image, grid), Volume(synthetic.labels[None], grid)


def beside(
    sources: Sources, grid: Grid, candidate: Candidate, name: str
) -> tuple[Volume, Volume, Volume, Volume | None]:
    """Image of a candidate and of a training case, and the labels of both where known."""
    image, labels = _volumes(candidate, grid)
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
