"""Reports: one file, nothing from outside, everything escaped, numbers readable."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from matplotlib.figure import Figure

from medgen.errors import DataError
from medgen.report.html import BANNER, Link, Report, Thumbnail, fmt, png

EVIL = "<script>alert('x')</script>&\"'"


def interval(estimate: float, low: float, high: float) -> SimpleNamespace:
    return SimpleNamespace(estimate=estimate, low=low, high=high)


@pytest.fixture
def document(tmp_path):
    report = Report(f"Run {EVIL}", EVIL, run_id=EVIL)
    report.verdict(f"**{EVIL}**", "good")
    report.facts({EVIL: EVIL, "interval": interval(0.134, 0.101, 0.17)})
    report.section(f"First {EVIL}", f"{EVIL}\n\n- {EVIL}\n- `{EVIL}`")
    columns = ["name", "n", "AP"]
    rows = [["a", 3, interval(0.5, 0.4, 0.6)], [EVIL, None, interval(0.1, 0.05, 0.2)]]
    report.table(columns, rows, EVIL, highlight=[0])
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    report.section("Second")
    report.figure(figure, EVIL, EVIL)
    report.write(tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_links_thumbnails_and_included_sections_are_escaped_and_numbered_anew():
    figure = Figure(figsize=(0.5, 0.5), dpi=40)
    part = Report("left out")
    part.section("Scan", "of the part")
    whole = Report("Index", back=Link(EVIL, f"../{EVIL}.html"))
    whole.section("First")
    whole.table(["", "scan"], [[Thumbnail(png(figure), EVIL), Link(EVIL, f"cases/{EVIL}.html")]])
    whole.include(part)
    tags, page = Tags(), whole.html()
    tags.feed(page)
    assert EVIL not in page
    assert "left out" not in page
    assert "of the part" in page
    assert [attrs["id"] for tag, attrs in tags.found if tag == "section"] == ["s1", "s2"]
    links = [str(attrs["href"]) for tag, attrs in tags.found if tag == "a"]
    assert [unquote(link) for link in links if "/" in link] == [f"../{EVIL}.html", f"cases/{EVIL}.html"]
    (picture,) = [attrs for tag, attrs in tags.found if tag == "img"]
    assert picture["alt"] == EVIL
    assert picture["loading"] == "lazy"
    with pytest.raises(DataError, match="PNG"):
        whole.table(["picture"], [[Thumbnail(b"GIF89a", "")]])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_no_script_and_nothing_from_outside(document):
    tags = Tags()
    tags.feed(document)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    assert not [value for _, attrs in tags.found for name, value in attrs.items() if name.startswith("on")]
    for _, attrs in tags.found:
        assert attrs.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attrs
        assert attrs.get("href", "#").startswith("#")
    assert not re.search(r"https?://|url\(|@import", document)
    # Every evil text is shown as it was given.
    assert "".join(tags.text).count("<script>alert('x')</script>&\"'") >= 10
    assert [attrs["alt"] for tag, attrs in tags.found if tag == "img"] == [EVIL]


def test_contents_banner_and_alignment(document):
    assert document.count(BANNER) == 2
    assert 'href="#s1"' in document
    assert 'id="s2"' in document
    assert '<td class="number">0.500 [0.400, 0.600]</td>' in document
    assert re.search(r'<tr class="strong">\s*<td>a</td>', document)
    assert "<strong>&lt;script&gt;" in document


def test_equal_reports_are_equal_files():
    def make() -> str:
        report = Report("a")
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        report.figure(figure)
        return report.html()

    assert make() == make()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (interval(0.134, 0.101, 0.17), "0.134 [0.101, 0.170]"),
        (interval(0.0074, 0.006, 0.009), "0.0074 [0.0060, 0.0090]"),
        (interval(-0.02, -0.05, 0.01), "-0.020 [-0.050, 0.010]"),
        (interval(-0.0001, -0.05, -0.0002), "0.000 [-0.050, 0.000]"),
        (interval(0.3, float("nan"), float("nan")), "0.300"),
        (float("nan"), "–"),  # noqa: RUF001
        (float("inf"), "∞"),
        (0.0, "0.000"),
        (12345.678, "12345.7"),
        (True, "yes"),
        ((1.0, 2), "1.000, 2"),
        ({"a": 1}, "a: 1"),
    ],
)
def test_fmt(value, expected):
    assert fmt(value) == expected


def test_wrong_input_is_refused(tmp_path):
    report = Report("a")
    with pytest.raises(ValueError, match="expected 2 values"):
        report.table(["a", "b"], [[1]])
    with pytest.raises(ValueError, match="good, neutral or bad"):
        report.verdict("x", "great")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="PNG"):
        png(b"GIF89a")
    with pytest.raises(DataError, match="cannot be read"):
        png(tmp_path / "absent.png")


def test_wrapped_list_items_stay_whole(tmp_path):
    report = Report("title")
    report.section("Limits", "Before:\n- first line\n  goes on\n- second")
    assert "<p>Before:</p>\n<ul><li>first line goes on</li><li>second</li></ul>" in report.html()


def test_captions_are_marked_up_like_text_and_escaped():
    report = Report("marks")
    report.table(["a"], [[1]], "By hand: `calibration.csv` of **this** run & <others>.")
    report.figure(Figure(), "See `scans.csv`.")
    page = report.html()
    assert "<code>calibration.csv</code> of <strong>this</strong> run &amp; &lt;others&gt;." in page
    assert "<figcaption>See <code>scans.csv</code>.</figcaption>" in page


def test_files_are_linked_beside_the_report_and_escaped():
    report = Report("R")
    report.links([("maps/a b<i>.csv", "what `medgen score` takes, 1 < 2"), ("model/", "the model")])
    page = report.html()
    assert '<a href="maps/a%20b%3Ci%3E.csv"><code>maps/a b&lt;i&gt;.csv</code></a>' in page
    assert "what <code>medgen score</code> takes, 1 &lt; 2" in page
    assert '<a href="model/">' in page


def test_an_animation_is_embedded_and_has_to_be_a_gif():
    report = Report("x")
    report.animation(b"GIF89a...", "a **walk**", "words")
    page = report.html()
    assert '<img src="data:image/gif;base64,R0lGODlhLi4u" alt="words">' in page
    assert "a <strong>walk</strong>" in page
    with pytest.raises(DataError, match="GIF"):
        report.animation(b"\x89PNG")
