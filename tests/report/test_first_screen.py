"""The first screen in Markdown is what the report itself shows, and its pictures are the report's."""

from __future__ import annotations

import io

from PIL import Image

from medgen.report.first_screen import markdown, pictures
from medgen.report.html import Report


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def test_verdict_facts_and_texts_in_their_order_and_nothing_of_sections() -> None:
    report = Report("Title")
    report.verdict("**USE**: it helps.\n\nOver all: yes.", "good")
    report.facts({"how sure": "p = 0.01 | 5 trainings", "scans": 3})
    report.text("**Next**\n\n- one\n- two")
    report.section("Limits", "Not here.")
    assert markdown(report) == (
        "> **USE**: it helps.\n>\n> Over all: yes.\n\n"
        "| | |\n|---|---|\n| how sure | p = 0.01 \\| 5 trainings |\n| scans | 3 |\n\n"
        "**Next**\n\n- one\n- two"
    )


def test_an_included_report_counts() -> None:
    report, other = Report("All"), Report("One")
    other.verdict("Ordinary: no finding.")
    report.include(other)
    assert markdown(report) == "> Ordinary: no finding."


def test_pictures_are_numbered_in_each_section_as_they_are_read() -> None:
    report = Report("Title")
    report.figure(png(1))
    report.section("Appendix", layer="appendix")
    report.figure(png(2))
    report.section("Scans", layer="cases")
    report.figure(png(3))
    report.figure(png(4))
    report.animation(b"GIF89a rest")
    found = [(title, number, data) for title, number, data in pictures(report)]
    assert found == [
        ("First screen", 0, png(1)),
        ("Scans", 0, png(3)),
        ("Scans", 1, png(4)),
        ("Appendix", 0, png(2)),
    ]
