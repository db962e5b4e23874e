"""What the report shows of the samples: accepted ones, and refused ones where there are no others."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from medgen.preprocessing.recipe import Preprocess
from medgen.report.augment.samples import samples_section
from medgen.report.html import Report
from medgen.report.viewer.library import missing
from medgen.runs.folder import RunFolder
from medgen.synthesis.backend import Synthetic
from medgen.synthesis.filtering.filter import FilterResult
from medgen.synthesis.filtering.pool import Candidate, CandidatePool
from medgen.synthesis.sources import Sources
from tests.builders.labelled_scans import SHAPE, blobs, quick_filter


@pytest.mark.parametrize("refused", [True, False])
def test_what_was_refused_is_shown_where_nothing_was_accepted(sources: Sources, tmp_path: Path, refused: bool) -> None:
    data = blobs(1, 7, "new")
    assert data.labels is not None
    labels = np.full(SHAPE, 4, np.uint8) if refused else data.labels[0, 0].numpy()
    synthetic = Synthetic(image=data.images[0].numpy(), labels=labels, backend="own", seed=0)
    filters = quick_filter(sources)
    found = filters.check(synthetic, derived=False)
    if not refused:
        found = replace(found, accepted=True, reasons={})
    candidate = Candidate("rejected-own-0001" if refused else "syn-0001", synthetic, found, "own", 0)
    prepared = SimpleNamespace(preprocess=Preprocess(shape=SHAPE, spacing=(2, 2, 2)), label_names={1: "a", 4: "b"})
    report, folder = Report("run"), RunFolder(tmp_path)
    backends = cast(Any, [SimpleNamespace(name="own"), SimpleNamespace(name="silent")])
    pool = CandidatePool((candidate,))
    samples_section(report, pool, backends, filters, cast(Any, prepared), folder, seed=0)
    text = report.html()
    assert (found.reasons.get("volume_4", "nothing of the kind") in text) is refused
    assert ("no scan was accepted. These were refused" in text) is refused
    assert "silent</strong>: no scan was accepted.<" in text
    assert (folder.figures / "samples-own.png").is_file()
    assert not (folder.figures / "samples-silent.png").exists()
    # The table has the scan with its outcome, and leads to the page that flips it and its nearest real scan.
    row = next(row for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL) if candidate.id in row and "<img" in row)
    assert ("refused: " in row) is refused
    page = tmp_path / "viewers" / f"{candidate.id}.html"
    assert page.is_file() is not bool(missing())
    if page.is_file():
        assert f'href="viewers/{candidate.id}.html"' in row
        flipped = page.read_text()
        assert f"real {found.nearest}" in flipped
        assert "back" in flipped
        assert "SYNTHETIC: the first of these scans was made by a generator" in flipped
        about = re.search(r'id="about">(.*?)</script>', flipped, re.DOTALL)
        assert about is not None
        assert [entry["scans"] for entry in json.loads(about.group(1))["overlays"]] == [[0], [1]]


def test_many_refused_scans_are_counted_and_not_listed(sources: Sources, tmp_path: Path) -> None:
    found = FilterResult.unusable("label 9 does not exist")
    pool = CandidatePool(tuple(Candidate(f"rejected-own-{n:04d}", None, found, "own", n) for n in range(23)))
    prepared = SimpleNamespace(preprocess=Preprocess(shape=SHAPE, spacing=(2, 2, 2)), label_names={1: "a", 4: "b"})
    report, backends = Report("run"), cast(Any, [SimpleNamespace(name="own")])
    filters = cast(Any, SimpleNamespace(sources=sources))
    samples_section(report, pool, backends, filters, cast(Any, prepared), RunFolder(tmp_path), seed=0)
    text = report.html()
    assert "3 more refused scans are in <code>rejections.csv</code>" in text
    assert text.count("refused: label 9 does not exist") == 20
