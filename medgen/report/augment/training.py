"""Which generators were chosen and why, and how their trainings went."""

from __future__ import annotations

from collections.abc import Sequence

from medgen.report.figures.curves import training_curves
from medgen.report.html import Report
from medgen.report.start import start_section
from medgen.synthesis.backend import Backend


def training_section(report: Report, reasons: Sequence[str], backends: Sequence[Backend]) -> None:
    """The choice with its reasons, the losses, and the alarms.

    Args:
        report: The report.
        reasons: Why these backends were chosen, in sentences.
        backends: The trained generators.
    """
    report.section("Choice of generators", "\n".join(f"- {reason}" for reason in reasons), layer="appendix")
    report.section("Training", layer="appendix")
    histories = {item.name: item.history for item in backends if item.history}
    if histories:
        report.figure(
            training_curves(histories), "Losses over the optimiser steps.", "Training curves of the generators"
        )
    for backend in backends:
        if not backend.history:
            report.text(f"**{backend.name}** trains nothing step by step.")
        for name, record in backend.starts.items():
            start_section(report, record, name)
        for alarm in backend.alarms:
            report.text(f"**ALARM in {backend.name}**, step {alarm.step}: {alarm.message}.")
