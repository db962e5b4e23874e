"""One HTML file per run: self-contained, opens offline, runs one known script at most, and escapes every text."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import medgen
from medgen.errors import DataError
from medgen.report.glossary import GLOSSARY, explained, terms_in
from medgen.system import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANNER = "Research use only — not for clinical use"
_DASH = "\N{EN DASH}"
Kind = Literal["good", "neutral", "bad"]
Layer = Literal["cases", "main", "appendix"]
_LAYERS: tuple[Layer, ...] = ("cases", "main", "appendix")


@dataclass(frozen=True)
class Link:
    """A value of a table that leads to another file.

    Attributes:
        text: What is read.
        target: Path of the file relative to the report, with slashes.
    """

    text: str
    target: str


@dataclass(frozen=True)
class Thumbnail:
    """A small picture in a table.

    Attributes:
        data: The bytes of a PNG.
        alt: What is seen, for readers who cannot see it.
    """

    data: bytes
    alt: str


@dataclass
class _Section:
    title: str
    layer: Layer
    blocks: list[dict[str, Any]] = field(default_factory=list)


class Report:
    """Collects sections and writes them as one file, in layers: what was found, cases, what is said of them, appendix.

    Blocks go to the section opened last; blocks before the first section stand below the title. Sections of a layer
    keep their order; those of the appendix are folded, and words that need a sentence are listed at its end.

    Args:
        title: What was run, on what.
        subtitle: One line below it.
        run_id: The tracked run that made it, shown at the end.
        back: The page that lists this one among others, shown above the title.
    """

    def __init__(self, title: str, subtitle: str = "", run_id: str | None = None, *, back: Link | None = None) -> None:
        self._title, self._subtitle, self._run = title, subtitle, run_id
        self._back = back
        self._front = _Section("", "main")
        self._sections: list[_Section] = []

    def section(self, title: str, text: str = "", *, layer: Layer = "main") -> None:
        """Open a section; it appears in the table of contents.

        Args:
            title: A few words.
            text: As for :meth:`text`.
            layer: ``cases`` comes first, then ``main``; ``appendix`` is folded, for numbers that few readers need.
        """
        self._sections.append(_Section(title, layer))
        if text:
            self.text(text)

    def include(self, other: Report) -> None:
        """Add what another report holds, as it is now, below one's own first blocks and sections; not its title."""
        self._front.blocks += other._front.blocks
        for section in other._sections:
            self._sections.append(_Section(section.title, section.layer, section.blocks))

    def text(self, text: str) -> None:
        """Paragraphs parted by empty lines; lines with ``- `` make a list; ``**bold**`` and code in backquotes."""
        self._add("text", html=_paragraphs(text), words=text)

    def facts(self, values: Mapping[str, Any]) -> None:
        """Name and value pairs, such as cohort, model, seed."""
        self._add("facts", rows=[(name, explained(name), fmt(value)) for name, value in values.items()])

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        caption: str = "",
        highlight: Collection[int] = (),
        *,
        sortable: bool = False,
    ) -> None:
        """A table; columns of numbers or intervals are set right-aligned.

        Args:
            columns: Headings.
            rows: One value per heading: text, number, None (shown as a dash) or interval, see :func:`fmt`; or a
                :class:`Link` or :class:`Thumbnail`.
            caption: What the numbers are, with unit and number of subjects; marks as in :meth:`text`.
            highlight: Rows to set bold, from 0.
            sortable: Whether a click on a heading sorts it and a field filters its rows.

        Raises:
            ValueError: If a row has more or fewer values than there are columns.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"table {caption!r}: expected {len(columns)} values in a row, found {len(row)}")
        numeric = [
            any(_is_number(row[k]) for row in rows) and all(row[k] is None or _is_number(row[k]) for row in rows)
            for k in range(len(columns))
        ]
        body = [([_cell(value) for value in row], index in highlight) for index, row in enumerate(rows)]
        heads = [(name, number, explained(name)) for name, number in zip(columns, numeric, strict=True)]
        self._add("table", columns=heads, rows=body, numeric=numeric, caption=_inline(caption), sortable=sortable)

    def links(self, files: Sequence[tuple[str, str]]) -> None:
        """A table of files below the report's folder, as links, with what each holds; code in backquotes."""
        rows = [
            ([Markup('<a href="{}"><code>{}</code></a>').format(quote(name), name), _inline(holds)], False)
            for name, holds in files
        ]
        heads = [("file", False, ""), ("what it holds", False, "")]
        self._add("table", columns=heads, rows=rows, numeric=[False, False], caption="", sortable=False)

    def link(self, text: str, target: str, holds: str) -> None:
        """A line that leads to another page.

        Args:
            text: What is clicked.
            target: Path relative to this page, with slashes.
            holds: What is there, behind the link.
        """
        leads = Markup('<p class="lead"><a href="{}">{}</a>: {}</p>').format(quote(target), text, holds)
        self._add("text", html=leads, words=f"{text}: {holds}")

    def figure(self, picture: Figure | bytes | str | Path, caption: str = "", alt: str = "") -> None:
        """A picture, embedded.

        Args:
            picture: A matplotlib figure, the bytes of a PNG, or the path of a PNG file.
            caption: What is seen, and how to read it; marks as in :meth:`text`.
            alt: The same for readers who cannot see it; default: the caption.

        Raises:
            DataError: If it is not a PNG.
        """
        data = png(picture)
        source = "data:image/png;base64," + base64.b64encode(data).decode()
        self._add("figure", source=source, caption=_inline(caption), alt=alt or caption)

    def animation(self, picture: bytes, caption: str = "", alt: str = "") -> None:
        """A moving picture, embedded: the bytes of a GIF; otherwise as :meth:`figure`.

        Raises:
            DataError: If it is not a GIF.
        """
        if not picture.startswith((b"GIF89a", b"GIF87a")):
            raise DataError("expected the bytes of a GIF picture")
        source = "data:image/gif;base64," + base64.b64encode(picture).decode()
        self._add("figure", source=source, caption=_inline(caption), alt=alt or caption)

    def verdict(self, text: str, kind: Kind = "neutral") -> None:
        """The conclusion in words, in a box; ``kind`` sets its colour and its symbol."""
        if kind not in ("good", "neutral", "bad"):
            raise ValueError(f"verdict: expected good, neutral or bad, found {kind!r}")
        self._add("verdict", html=_paragraphs(text), words=text, level=kind)

    def front(self) -> list[dict[str, Any]]:
        """The blocks before the first section, the first screen: ``kind`` and what belongs to it."""
        return list(self._front.blocks)

    def sections(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Title and blocks of every section, in the order in which they are read."""
        for own in sorted(self._sections, key=lambda own: _LAYERS.index(own.layer)):
            yield own.title, list(own.blocks)

    def html(self) -> str:
        """The whole document."""
        ordered = [own for layer in _LAYERS for own in self._sections if own.layer == layer]
        terms = terms_in(self._headings())
        # The script is only there where a table or a folded part needs it, and nothing else may run.
        script = (Path(__file__).parent / "report.js").read_text(encoding="utf-8") if self._moves() else ""
        allowed = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
        return (
            templates(Path(__file__).parent)
            .get_template("report.html.j2")
            .render(
                script=Markup(script),
                allowed=f"; script-src 'sha256-{allowed}'" if script else "",
                glossary=[(term, GLOSSARY[term]) for term in terms],
                title=self._title,
                subtitle=self._subtitle,
                banner=BANNER,
                front=self._front,
                sections=ordered,
                run=self._run,
                back=None if self._back is None else _cell(self._back),
                version=medgen.__version__,
            )
        )

    def _moves(self) -> bool:
        blocks = [block for own in (self._front, *self._sections) for block in own.blocks]
        folded = any(own.layer == "appendix" for own in self._sections)
        return folded or any(block.get("sortable") for block in blocks)

    def _headings(self) -> list[str]:
        """Names of columns and facts."""
        found: list[str] = []
        for block in [block for own in (self._front, *self._sections) for block in own.blocks]:
            if block["kind"] == "table":
                found += [name for name, *_ in block["columns"]]
            elif block["kind"] == "facts":
                found += [name for name, *_ in block["rows"]]
        return found

    def write(self, path: str | Path) -> None:
        """Write the file atomically."""
        files.write_text(path, self.html())

    def _add(self, kind: str, **content: Any) -> None:
        section = self._sections[-1] if self._sections else self._front
        section.blocks.append({"kind": kind, **content})


def templates(folder: Path) -> Environment:
    """The templates of a folder: texts are escaped, and a name that is missing is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fmt(value: Any, digits: int = 3) -> str:
    """A value as it is printed in reports.

    Floats get ``digits`` decimals, one from 100 on, and two significant digits below 0.01; anything with ``estimate``,
    ``low`` and ``high`` is an interval; None and NaN are a dash.

    >>> fmt(0.13449), fmt(1234.5678), fmt(None), fmt(True), fmt(0.00012345), fmt(7)
    ('0.134', '1234.6', '–', 'yes', '0.00012', '7')
    >>> from types import SimpleNamespace
    >>> fmt(SimpleNamespace(estimate=0.134, low=0.1012, high=0.17))
    '0.134 [0.101, 0.170]'
    """
    if value is None:
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if all(hasattr(value, name) for name in ("estimate", "low", "high")):
        if not all(math.isfinite(number) for number in (value.estimate, value.low, value.high)):
            return fmt(float(value.estimate), digits)
        # One number of decimals for all three, chosen by the estimate, so that they can be compared at a glance.
        decimals = _decimals(max(abs(value.estimate), abs(value.low), abs(value.high)), digits)
        return f"{_fixed(value.estimate, decimals)} [{_fixed(value.low, decimals)}, {_fixed(value.high, decimals)}]"
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return _DASH if math.isnan(value) else ("∞" if value > 0 else "-∞")
        return _fixed(value, _decimals(abs(value), digits))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {fmt(item, digits)}" for key, item in value.items()) or _DASH
    if isinstance(value, list | tuple):
        return ", ".join(fmt(item, digits) for item in value) or _DASH
    return str(value)


def without_marks(text: str) -> str:
    """A docstring's sentences as plain text: no backquotes, no roles, no line breaks.

    >>> without_marks("Residual of ``pca``, see :func:`medgen.anomaly.scores.residuals.residual` and :math:`x^2`.")
    'Residual of pca, see residual and x^2.'
    """
    plain = re.sub(r":(?:func|class|mod|meth|attr|data):`~?(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split()))
    return re.sub(r"(?::\w+:)?`+([^`]*)`+", r"\1", plain)


def png(picture: Figure | bytes | str | Path) -> bytes:
    """The bytes of a picture as PNG, without time stamps or program names, so that equal pictures are equal files.

    Raises:
        DataError: If it is not a PNG.
    """
    if isinstance(picture, str | Path):
        path = Path(picture)
        try:
            picture = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a PNG") from None
    if isinstance(picture, bytes):
        if not picture.startswith(b"\x89PNG\r\n\x1a\n"):
            raise DataError("expected the bytes of a PNG picture")
        return picture
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", facecolor=picture.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()


def _cell(value: Any) -> str:
    """A value of a table as it is written: escaped later, where it is not markup already."""
    if isinstance(value, Link):
        return Markup('<a href="{}">{}</a>').format(quote(value.target), value.text)
    if isinstance(value, Thumbnail):
        # Drawn when it is scrolled to: a list of hundreds opens at once.
        source = "data:image/png;base64," + base64.b64encode(png(value.data)).decode()
        return Markup('<img class="small" loading="lazy" src="{}" alt="{}">').format(source, value.alt)
    return fmt(value)


def _decimals(size: float, digits: int) -> int:
    if size == 0 or size >= 0.01:
        return digits if size < 100 else 1 if size < 1e5 else 0
    return min(1 - math.floor(math.log10(size)), 9)


def _fixed(value: float, decimals: int) -> str:
    """With so many decimals; what is rounded to 0 has no sign."""
    text = f"{value:.{decimals}f}"
    return text if float(text) else text.lstrip("-")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str):
        return False
    return isinstance(value, int | float) or hasattr(value, "estimate") or hasattr(value, "item")


def _paragraphs(text: str) -> Markup:
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        plain: list[str] = []
        items: list[str] = []
        for line in lines:
            if line.startswith("- "):
                items.append(line[2:])
            elif items:
                # A wrapped item goes on in the next line.
                items[-1] += f" {line}"
            else:
                plain.append(line)
        if plain:
            parts.append(Markup("<p>{}</p>").format(_inline(" ".join(plain))))
        if items:
            parts.append(
                Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(_inline(i)) for i in items))
            )
    return Markup("\n").join(parts)


def _inline(text: str) -> Markup:
    safe = str(escape(text))
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", safe))
