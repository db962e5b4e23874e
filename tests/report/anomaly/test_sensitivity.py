"""The section on findings: intervals where a group is large enough for one, else numbers."""

from __future__ import annotations

import pytest

from medgen.anomaly.evaluation.measure import HEALTHY
from medgen.anomaly.evaluation.sensitivity import sensitivity_of
from medgen.report.anomaly.sensitivity import sensitivity_section
from medgen.report.html import Report
from tests.anomaly.evaluation.test_sensitivity import scan


@pytest.mark.parametrize(("implants", "interval"), [(4, False), (8, True)])
def test_shares_of_few_implants_are_numbers(implants: int, interval: bool) -> None:
    healthy = [scan(number, HEALTHY, [0.2]) for number in range(4)]
    found = [scan(number, "blob", [0.1], [number % 2 == 0]) for number in range(implants)]
    report = Report("x")
    sensitivity_section(report, sensitivity_of([*healthy, *found], 0.5, 100, 0))
    text = report.html()
    by_kind = text[text.index("Implants found by implant") :]
    assert (f"{implants // 2} of {implants}</td>" in by_kind) is not interval
    assert ("Share of implants found by kind" in text) is interval
