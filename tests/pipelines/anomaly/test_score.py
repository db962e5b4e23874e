"""Scoring many scans: one in memory at a time, a page for each, and an index that stays light."""

from __future__ import annotations

import csv
import hashlib
import pickle
import re
import resource
import weakref
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medgen import io
from medgen.errors import ConfigError
from medgen.pipelines.anomaly import score as scoring
from medgen.report.figures.thumbnail import SIDE, thumbnail
from medgen.volume import Grid, Volume
from tests.builders.run_outputs import undeclared

CUBE = (12, 12, 12)


@pytest.fixture(scope="module")
def scans(write_cubes: Callable[[int, float], list[Path]]) -> list[Path]:
    """Scans of noise; the later ones have a brighter cube."""
    return write_cubes(12, 0.2)


@pytest.mark.usefixtures("quick")
def test_no_scan_is_held_while_the_next_is_scored_and_its_page_is_there(
    model: Path, scans: list[Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, count = runs / "many", len(scans)
    alive: list[weakref.ref[Any]] = []
    held: list[int] = []
    pages: list[int] = []
    real = scoring._score

    def watched(*given: Any) -> Any:
        held.append(sum(own() is not None for own in alive))
        pages.append(len(list((out / "cases").glob("*.html"))) if alive else 0)
        entry = real(*given)
        alive.extend(map(weakref.ref, (entry, entry.scan, entry.result, entry.result.heatmap, entry.result.measured)))
        return entry

    monkeypatch.setattr(scoring, "_score", watched)
    summary = scoring.score(scans, model=model, out=out, device="cpu")
    assert summary.exit_code == 0
    assert held == [0] * count
    assert pages == list(range(count))
    assert len([line for line in summary.lines if line.startswith("scan-")]) == count


@pytest.mark.usefixtures("quick")
def test_further_scans_take_no_further_memory(
    model: Path, scans: list[Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident: list[float] = []
    real = scoring._score

    def watched(*given: Any) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * resource.getpagesize() / 1e6)
        return real(*given)

    monkeypatch.setattr(scoring, "_score", watched)
    many = [path for turn in range(2) for path in scans]
    copies = [runs / f"copy-{number:02d}.nii.gz" for number in range(len(many))]
    for source, copy in zip(many, copies, strict=True):
        copy.write_bytes(source.read_bytes())
    scoring.score(copies, model=model, out=runs / "further", device="cpu")
    # The first scans fill caches. Without giving back it is 110 MB.
    assert resident[-1] - resident[6] < 6


class Reader(HTMLParser):
    """Links and pictures of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(str(given["href"]))
        elif tag == "img":
            self.pictures.append(str(given["src"]))


@pytest.mark.usefixtures("quick")
def test_the_index_is_light_and_leads_to_every_page_the_hottest_first(
    model: Path, scans: list[Path], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = runs / "index"
    known = {hashlib.sha256(scans[3].read_bytes()).hexdigest(): "anna of the scans that the model was made from"}
    monkeypatch.setattr(scoring, "known_scans", lambda _: known)
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(scans[0].read_bytes()[:100])
    summary = scoring.score([*scans[::3], bad], model=model, out=out, device="cpu")
    assert summary.exit_code == 1
    assert undeclared(out, scoring.PIPELINE) == []
    index = Reader(out / "report.html")
    pages = [link for link in index.links if link.startswith("cases/") and link != "cases/"]
    assert {*pages} == {f"cases/{path.name}" for path in (out / "cases").iterdir()}
    heat = {row.split(",")[0]: row for row in (out / "scans.csv").read_text().splitlines()}
    columns = heat["case"].split(",")
    hottest = [float(heat[Path(page).stem].split(",")[columns.index("max")]) for page in pages]
    assert hottest == sorted(hottest, reverse=True)
    assert len(hottest) == 4
    assert "bad" in index.text
    # A picture of some kilobytes for each scan, and none of the large ones.
    assert len(index.pictures) == 4
    assert max(map(len, index.pictures)) < 12_000
    # The page of a scan that the model knows says so by itself: it can be read without the index.
    warned = [page for page in pages if "anna of the scans that the model was made from" in Reader(out / page).text]
    assert warned == ["cases/scan-03.html"]
    page = Reader(out / pages[0])
    assert "../report.html" in page.links
    assert (out / "cases" / "../report.html").is_file()
    for words in ("not for clinical use", "exchangeable with the healthy scans", "p (max) ="):
        assert words in page.text
    # One more with the findings, where there are any.
    listed = [row.split(",")[0] for row in (out / "findings.csv").read_text().splitlines()[1:]]
    assert len(page.pictures) == 3 + (Path(pages[0]).stem in listed)
    # The page can be sent alone, so it says itself what makes its heatmap and what each score says of the place.
    assert "The heatmap is made by " in page.text
    assert "of a new scan no others are measured" in page.text
    assert (out / pages[0]).stat().st_size < 1_300_000


@pytest.mark.usefixtures("quick")
def test_one_scan_alone_is_read_in_the_report(model: Path, scans: list[Path], runs: Path) -> None:
    scoring.score(scans[-1:], model=model, out=runs / "one", device="cpu")
    assert not (runs / "one" / "cases").exists()
    assert "1 scan was scored by a model" in (runs / "one" / "methods.md").read_text(encoding="utf-8")
    report = Reader(runs / "one" / "report.html")
    assert len(report.pictures) == 4 + (len((runs / "one" / "findings.csv").read_text().splitlines()) > 1)
    pattern = r'<section id="(s\d)">\s*<h2><span class="index">\d</span>([^<]*)</h2>'
    headings = re.findall(pattern, report.text)
    assert headings == [
        ("s1", "Where it is unusual"),
        ("s2", "Limits"),
        ("s3", "Files"),
        ("s4", "Model and calibration"),
    ]


def test_what_is_kept_of_a_scan_are_kilobytes(model: Path, scans: list[Path]) -> None:
    from medgen.anomaly.artifact import from_artifact
    from medgen.models.artifact import TrainedModel
    from medgen.report.anomaly.pictures import Scored
    from medgen.report.anomaly.scored.scoring import ScoredCase

    scan = io.read(scans[-1])
    result = from_artifact(TrainedModel.load(model, "cpu")).score_scan(scan)
    kept = ScoredCase.of(Scored("scan", scan, result), "")
    assert len(pickle.dumps(kept)) < 20_000
    assert kept.findings == len(result.findings) > 0


def test_a_thumbnail_is_the_scan_in_grey_with_its_heat_in_colour() -> None:
    grid = Grid((60, 80, 40), np.eye(4))
    data = np.zeros((1, *grid.shape), np.float32)
    data[:, 5:55, 5:75, 5:35] = 100
    data[:, 5:30, 5:75, 5:35] = 50
    heat = np.full((1, *grid.shape), np.nan, np.float32)
    heat[:, 40:50, 20:30, 15:25] = 8
    small = Image.open(BytesIO(thumbnail(Volume(data, grid), Volume(heat, grid), (45, 25, 20))))
    assert max(small.size) == SIDE
    pixels = np.asarray(small.convert("RGB")).astype(int)
    coloured = pixels.max(-1) - pixels.min(-1) > 60
    rows, columns = np.nonzero(coloured)
    # A cube of 10 mm in a slice of some 62 x 82 mm: 1.4 % of it, below and on the left, where the patient's right is.
    assert 0.008 < coloured.mean() < 0.03
    assert rows.mean() > 0.55 * pixels.shape[0]
    assert columns.mean() < 0.45 * pixels.shape[1]
    grey = pixels[~coloured]
    assert (grey.max(-1) - grey.min(-1)).max() < 12


@pytest.mark.usefixtures("quick")
def test_an_interrupted_scoring_goes_on_where_it_stopped(
    model: Path, scans: list[Path], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [tmp_path / path.name for path in scans[:4]]
    for path, own in zip(scans, given, strict=False):
        own.write_bytes(path.read_bytes())
    real, asked = scoring._score, []

    def noted(detector: Any, name: str, *rest: Any) -> Any:
        asked.append(name)
        if name == "scan-02" and len(asked) == 3:
            raise KeyboardInterrupt
        return real(detector, name, *rest)

    monkeypatch.setattr(scoring, "_score", noted)
    out = runs / "stopped"
    with pytest.raises(KeyboardInterrupt):
        scoring.score(given, model=model, out=out, device="cpu")
    assert {path.stem for path in (out / "cases").iterdir()} == {"scan-00", "scan-01"}
    # A scan that has changed since is scored again, and so is one whose page is gone.
    asked.clear()
    given[0].write_bytes(scans[5].read_bytes())
    with pytest.raises(ConfigError, match="exclude each other"):
        scoring.score(given, model=model, out=out, device="cpu", resume=True, overwrite=True)
    summary = scoring.score(given, model=model, out=out, device="cpu", resume=True)
    assert asked == ["scan-00", "scan-02", "scan-03"]
    assert not (out / "checkpoints").exists()
    assert undeclared(out, scoring.PIPELINE) == []
    # All tables, and the index, are those of a scoring in one go.
    whole = scoring.score(given, model=model, out=runs / "whole", device="cpu")
    for name in ("scans.csv", "findings.csv", "findings.json", "failures.csv", "metrics.json"):
        assert (out / name).read_bytes() == (runs / "whole" / name).read_bytes()
    assert [line for line in summary.lines if line.startswith("scan")] == [
        line for line in whole.lines if line.startswith("scan")
    ]
    index, other = Reader(out / "report.html"), Reader(runs / "whole" / "report.html")
    assert (index.links, index.pictures) == (other.links, other.pictures)


@pytest.mark.usefixtures("quick")
def test_viewers_lead_to_pages_and_back_and_only_wanted_ones_are_written(
    model: Path, scans: list[Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is in the library is not asked for here, and need not be installed.
    for place in ("medgen.pipelines.anomaly.scored.viewers.missing", "medgen.report.viewer.library.missing"):
        monkeypatch.setattr(place, lambda: "")
    monkeypatch.setattr("medgen.report.viewer.page.library", lambda: b"")
    chosen = [scans[0], scans[-1]]
    for which in ("auto", "findings", "none"):
        out = runs / f"viewers-{which}"
        scoring.score(chosen, model=model, out=out, device="cpu", viewers=which)
        assert undeclared(out, scoring.PIPELINE) == []
        written = {path.stem for path in (out / "viewers").glob("*.html")}
        with (out / "scans.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = {row["case"] for row in rows if row["findings"] != "0"}
        assert written == {"auto": {"scan-00", "scan-11"}, "findings": found, "none": set()}[which]
        for stem in ("scan-00", "scan-11"):
            links = Reader(out / "cases" / f"{stem}.html").links
            assert (f"../viewers/{stem}.html" in links) == (stem in written)
        for stem in written:
            page = Reader(out / "viewers" / f"{stem}.html")
            assert page.links == [f"../cases/{stem}.html"]


@pytest.mark.usefixtures("quick")
def test_where_niivue_is_missing_the_console_says_so_and_all_else_is_written(
    model: Path, scans: list[Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medgen.pipelines.anomaly.scored.viewers.missing", lambda: "install the moon")
    out = runs / "no-viewer"
    summary = scoring.score(scans[:1], model=model, out=out, device="cpu")
    assert "no viewers: install the moon" in summary.lines
    assert not (out / "dicom").exists()
    assert (out / "report.html").is_file()
    assert not (out / "viewers").exists()
    quiet = scoring.score(scans[:1], model=model, out=runs / "blind", device="cpu", viewers="none")
    assert not any("no viewers" in line for line in quiet.lines)
