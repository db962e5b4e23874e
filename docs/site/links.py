"""Whether all that the built site points to is there: pages, anchors, pictures; and whether it needs the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; a link that a reader may follow is none.
_FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}
# Words for machines about a page, which are not fetched.
_NOT_FETCHED = {"canonical", "alternate", "next", "prev", "edit"}


@dataclass
class _Page(HTMLParser):
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        named = {key for key in ("href", "src") if key in given and given.get("rel") not in _NOT_FETCHED}
        self.links += [given[key] for key in named]
        self.fetched += [given[key] for key in named if (tag, key) in _FETCHED]
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] == ["p"]:
            self.text.append(data)


def problems(site: Path) -> list[str]:
    """What is wrong with a built site, a line each.

    Links into the site that lead nowhere, anchors that are on no page, files that a browser would fetch from the
    network, and lists that were taken for text.
    """
    pages = {path: _read(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    return [problem for path, page in pages.items() for problem in _of(path, page, pages, site)]


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _of(path: Path, page: _Page, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    name = path.relative_to(site).as_posix()
    yield from (f"{name}: is fetched from the network: {url}" for url in page.fetched if urlsplit(url).netloc)
    yield from (f"{name}: a list was taken for text: {line}" for line in _list_lines(page.text))
    for url in dict.fromkeys(page.links):
        parts = urlsplit(url)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_file():
            yield f"{name}: leads nowhere: {url}"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"{name}: no such place on the page: {url}"


def _list_lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (line[:60] for line in text.split("\n")[1:] if line.startswith(("* ", "- ")))
