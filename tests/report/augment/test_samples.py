"""What the report shows of the samples: accepted ones, and refused ones where there are no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from medgen.preprocessing.recipe import Preprocess
from medgen.report.augment.samples import samples_section
from medgen.report.html import Report
from medgen.synthesis.backend import Synthetic
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
    report, folder = Report("run"), SimpleNamespace(figures=tmp_path / "figures")
    backends = cast(Any, [SimpleNamespace(name="own"), SimpleNamespace(name="silent")])
    pool = CandidatePool((candidate,))
    samples_section(report, pool, backends, filters, cast(Any, prepared), cast(Any, folder), seed=0)
    text = report.html()
    assert (found.reasons.get("volume_4", "nothing of the kind") in text) is refused
    assert ("no scan was accepted. These were refused" in text) is refused
    assert "silent</strong>: no scan was accepted.<" in text
    assert (folder.figures / "samples-own.png").is_file()
    assert not (folder.figures / "samples-silent.png").exists()
