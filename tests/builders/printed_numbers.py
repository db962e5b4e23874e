"""Every number that a report prints, and whether a file of the run holds it: where it came from can be looked up."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
YEAR = re.compile(r"\b(19|20)\d\d\b")
# Of formulas in the descriptions of scores: median absolute deviation to standard deviation.
CONSTANTS = (1.4826,)
JSON = ("metrics.json", "training.json", "plan.json", "findings.json", "outputs.json")


def unknown(folder: Path) -> list[str]:
    """One line per printed number that is no value of the run's files as they are, rounded, or as a percentage.

    Args:
        folder: Of a run. Values are those of its configuration, JSON files and tables, lengths of lists, and what a
            text of them says in digits. Years (of sources) are left out.
    """
    known = np.array(sorted({value for value in (*_values(folder), *CONSTANTS) if math.isfinite(value)}))
    known = np.unique(np.concatenate([known, -known, 1 - known, 100 * known, 100 * (1 - known)]))
    lines = []
    for said in texts((folder / "report.html").read_text(encoding="utf-8")):
        for token in NUMBER.findall(YEAR.sub("", said)):
            value = float(token)
            decimals = len(token.partition(".")[2].partition("e")[0])
            slack = abs(value) * 0.06 if "e" in token else 0.5001 * 10.0**-decimals
            place = int(np.searchsorted(known, value - slack))
            if place == len(known) or known[place] > value + slack:
                lines.append(f"{token}: {said[:200]}")
    return lines


def texts(page: str) -> list[str]:
    """Paragraphs, captions and table cells of a page, without marks; styles, scripts and pictures are left out."""
    page = re.sub(r"(?s)<(style|script|svg)\b.*?</\1>", "", page)
    found = re.findall(r"(?s)<(p|figcaption|caption|td|th|li|h1|h2|h3|summary|dd)\b[^>]*>(.*?)</\1>", page)
    plain = (html.unescape(re.sub(r"<[^>]+>", " ", body)) for _, body in found)
    return [" ".join(text.replace("−", "-").split()) for text in plain]  # noqa: RUF001 (the minus sign of a report)


def _values(folder: Path) -> Iterator[float]:
    for name in JSON:
        if (folder / name).is_file():
            yield from _numbers(json.loads((folder / name).read_text(encoding="utf-8")))
    yield from _numbers(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        yield float(len(rows))
        yield from _numbers(rows)


def _numbers(data: Any) -> Iterator[float]:
    if isinstance(data, bool):
        return
    if isinstance(data, int | float):
        yield float(data)
    elif isinstance(data, str):
        yield from (float(token) for token in NUMBER.findall(data))
    elif isinstance(data, Mapping):
        yield float(len(data))
        yield from _numbers([*data, *data.values()])
    elif isinstance(data, list | tuple):
        yield float(len(data))
        for item in data:
            yield from _numbers(item)
