"""The cohort's table: who is in which part, and who is in none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from medgen.data.cases import Case, Manifest
from medgen.preprocessing.recipe import Preprocess
from medgen.report.augment.cohort import cohort_section
from medgen.report.html import Report
from medgen.synthesis.cohort.split import divide


@pytest.mark.parametrize(("labelled", "expected"), [(3, True), (5, False)])
def test_scans_that_no_part_uses_are_counted(labelled: int, expected: bool) -> None:
    cases = tuple(Case(f"c{n}", f"s{n}", (Path("c.nii"),), mask=Path("m.nii")) for n in range(10))
    manifest = Manifest("mine", Path(), cases, labels={1: "organ"})
    parts = divide(manifest, test=0.5, labelled_subjects=labelled, unlabelled_cases=0, seed=0)
    prepared = SimpleNamespace(
        data={}, preprocess=Preprocess(shape=(8, 8, 8), spacing=(1, 1, 1)), label_names={1: "organ"}, failures=()
    )
    report = Report("run")
    cohort_section(report, manifest, parts, cast(Any, prepared))
    assert ("not used" in report.html()) is expected
