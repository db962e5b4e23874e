"""The Markdown of the repository, as the site needs it: what code hosts render otherwise is put the same for both."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^ *(```|~~~)")
_ITEM = re.compile(r"^ *([*+-]|\d+\.) ")
_NOTEBOOK = re.compile(r"\]\(([^)\s:]+)\.ipynb")
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def for_site(text: str) -> str:
    r"""A page as it is built: front matter shown, diagrams drawn in words, lists apart from the lines above them.

    Diagrams would need a library from the network; what they say, an order of things, is said in words.

    >>> for_site("Two things:\n* one\n* two")
    'Two things:\n\n* one\n* two'
    """
    text = _MERMAID.sub(lambda found: chains(found[1]), _front_matter(text))
    # On the site a notebook is a page.
    return _lists(_NOTEBOOK.sub(r"](\1.md", text))


def chains(diagram: str) -> str:
    r"""A flow chart as lines of words: each line is a way from its first box to its last.

    >>> chains('a["read"] --> b["score"]\nb --> c["report"]\nb --> d["files"]')
    '* read → score → report\n* score → files'
    """
    names = dict(re.findall(r'(\w+)\["([^"]+)"\]', diagram))
    ways: list[list[str]] = []
    for start, end in re.findall(r'(\w+)(?:\["[^"]+"\])? --> (\w+)', diagram):
        way = next((way for way in ways if way[-1] == start), None)
        if way is None:
            ways.append([start, end])
        else:
            way.append(end)
    return "\n".join("* " + " → ".join(names[box] for box in way) for way in ways)


def _front_matter(text: str) -> str:
    head, mark, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not mark:
        return text
    title, _, rest = body.lstrip("\n").partition("\n")
    return f"{title}\n\n```yaml\n{head}\n```\n{rest}"


def _lists(text: str) -> str:
    # Markdown as code hosts read it needs no empty line before a list; the site's does.
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        fenced ^= bool(_FENCE.match(line))
        before = lines[-1] if lines else ""
        starts = not line.startswith(" ") and _ITEM.match(line) and before.strip() and not fenced
        if starts and not _ITEM.match(before) and not before.startswith(" "):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
