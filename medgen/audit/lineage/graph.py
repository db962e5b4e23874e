"""A lineage as a small picture: SVG, from what things were made on the left to the file on the right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from medgen.audit.lineage.trace import Lineage, Node

# Nodes of one kind that lead to the same are one box if there are more of them than this.
_APART = 4
_BOX = (230, 46)
_GAP = (70, 14)
_MARGIN = 16
_COLOURS: Mapping[str, str] = {
    "output": "#fde68a",
    "scan": "#bfdbfe",
    "parent scan": "#bfdbfe",
    "training scan": "#dbeafe",
    "model": "#ddd6fe",
    "weights": "#ede9fe",
    "calibration": "#bbf7d0",
    "record": "#e5e7eb",
    "run": "#fecaca",
}
_OTHER = "#f3f4f6"


@dataclass(frozen=True)
class _Box:
    kind: str
    title: str
    below: str
    made: frozenset[str]
    """Ids of the boxes that it leads to."""


def svg(lineage: Lineage) -> str:
    """The graph as SVG text; arrows lead from what something was made from to what was made."""
    boxes, names = _boxes(lineage)
    columns = _columns(boxes)
    deepest = max(columns.values(), default=0)
    places: dict[str, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for name in boxes:
        column = deepest - columns[name]
        row = rows.get(column, 0)
        rows[column] = row + 1
        places[name] = (_MARGIN + column * (_BOX[0] + _GAP[0]), _MARGIN + row * (_BOX[1] + _GAP[1]))
    width = 2 * _MARGIN + (deepest + 1) * _BOX[0] + deepest * _GAP[0]
    height = 2 * _MARGIN + max(rows.values(), default=1) * (_BOX[1] + _GAP[1]) - _GAP[1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(f'What {names} was made from')}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for name, box in boxes.items():
        parts += [_arrow(places[name], places[to]) for to in sorted(box.made)]
    parts += [_drawn(box, places[name]) for name, box in boxes.items()]
    return "\n".join([*parts, "</svg>", ""])


def _boxes(lineage: Lineage) -> tuple[dict[str, _Box], str]:
    """The boxes by id, many alike being one, and the name of the target."""
    leads: dict[str, set[str]] = {node.id: set() for node in lineage.nodes}
    for source, made in lineage.edges:
        leads[source].add(made)
    groups: dict[tuple[str, frozenset[str]], list[Node]] = {}
    for node in lineage.nodes:
        groups.setdefault((node.kind, frozenset(leads[node.id])), []).append(node)
    own: dict[str, str] = {}
    for (kind, _), nodes in groups.items():
        for node in nodes:
            own[node.id] = nodes[0].id if len(nodes) > _APART and kind != "output" else node.id
    boxes: dict[str, _Box] = {}
    for (kind, ends), nodes in groups.items():
        to = frozenset(own[item] for item in ends)
        if len(nodes) > _APART and kind != "output":
            boxes[nodes[0].id] = _Box(kind, f"{len(nodes)} x {kind}", f"{nodes[0].label} to {nodes[-1].label}", to)
        else:
            for node in nodes:
                boxes[node.id] = _Box(kind, node.label, node.sha256[:16] or kind, to)
    target = next((node.label for node in lineage.nodes if node.id == lineage.target), lineage.target)
    return boxes, target


def _columns(boxes: Mapping[str, _Box]) -> dict[str, int]:
    """How many arrows each box is away from the end, by the longest way."""
    found: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in found:
            found[name] = 0
            found[name] = max((1 + depth(made) for made in boxes[name].made), default=0)
        return found[name]

    for name in boxes:
        depth(name)
    return found


def _arrow(source: tuple[int, int], made: tuple[int, int]) -> str:
    x, y = source[0] + _BOX[0], source[1] + _BOX[1] // 2
    to_x, to_y = made[0], made[1] + _BOX[1] // 2
    bend = max(30, (to_x - x) // 2)
    return (
        f'<path d="M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}" fill="none" stroke="#9ca3af" '
        'marker-end="url(#tip)"/>'
    )


def _drawn(box: _Box, place: tuple[int, int]) -> str:
    x, y = place
    fill = _COLOURS.get(box.kind, _OTHER)
    title, below = _short(box.title, 34), _short(f"{box.kind}: {box.below}" if box.below != box.kind else box.kind, 38)
    return (
        f"<g><title>{escape(f'{box.kind}: {box.title} {box.below}')}</title>"
        f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="6" fill="{fill}" stroke="#9ca3af"/>'
        f'<text x="{x + 8}" y="{y + 19}" font-weight="bold">{escape(title)}</text>'
        f'<text x="{x + 8}" y="{y + 36}" fill="#374151" font-size="10">{escape(below)}</text></g>'
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length // 2) :]}"
