"""Benchmarks of speed for a reader: a line for each figure, a page in Markdown, a picture of growth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

QUICK = "tried out with small work (--quick): these figures mean nothing"
_HEAD = """# Speed beside peers

Every contest does the same work by medgen and by what a user would take instead, in one process, in turns, with one
thread. Seconds are of processor time (on a GPU: between two events), medians over the rounds, quartiles in brackets.
A ratio is the median over rounds of peer over medgen: above 1 medgen is faster. The floor is what the work cannot be
done in less: counted operations over the best product of matrices, or bytes over the best copy, both measured on the
same machine in the same call. Ratios carry over to other machines better than seconds do.
"""


def lines(name: str, found: Mapping[str, Any]) -> list[str]:
    """A benchmark for the console, one line for each figure.

    >>> entry = {"kind": "figure", "name": "start-up", "value": 1.25, "unit": "s", "goal": 3.0, "better": "less"}
    >>> lines("end-to-end", {"entries": [{**entry, "reached": True}]})
    ['end-to-end: start-up: 1.25 s (goal ≤ 3 s: reached)']
    """
    return [f"{name}: {line}" for entry in found["entries"] for line in _said(entry)]


def _said(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["kind"] == "contest":
        own = next(iter(entry["seconds"].values()))
        yield (
            f"{entry['name']}: medgen {_seconds(own['median'])} [{_seconds(own['low'])} to {_seconds(own['high'])}]"
            + ("" if entry["floor"] is None else f", {entry['floor']['times']:.3g} times the floor")
        )
        for peer, against in entry["against"].items():
            goal = _verdict(against["goal"], against["reached"], "≥ {:g}x")
            yield f"{entry['name']}: {_ratio(against)} against {peer}{goal}"
        yield from (f"{entry['name']}: {sentence}" for sentence in entry["without"])
    elif entry["kind"] == "growth":
        goal = _verdict(entry["goal"], entry["reached"], "≤ {:g}")
        yield f"{entry['name']}: exponent {entry['exponent']:.2f} in {entry['of']}{goal}"
    elif entry["kind"] == "figure":
        unit = f" {entry['unit']}" if entry["unit"] else ""
        sign = "≤" if entry["better"] == "less" else "≥"
        yield f"{entry['name']}: {entry['value']:.4g}{unit}" + _verdict(
            entry["goal"], entry["reached"], sign + " {:g}" + unit
        )


def _verdict(goal: float | None, reached: bool | None, words: str) -> str:
    if goal is None:
        return ""
    return f" (goal {words.format(goal)}: {'reached' if reached else 'missed'})"


def _ratio(against: Mapping[str, Any]) -> str:
    return f"{against['ratio']:.3g}x [{against['low']:.3g} to {against['high']:.3g}]"


def _seconds(value: float) -> str:
    """Seconds with three digits, in the unit that suits them.

    >>> _seconds(0.01234), _seconds(12.34)
    ('12.3 ms', '12.3 s')
    """
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.4g} s" if value >= 1000 else f"{value:.3g} s"


def text(kept: Mapping[str, Any], picture: str | None) -> str:
    """The page: what was reached first, then every benchmark with what shows that the work was equal."""
    parts = [_HEAD, "## At a glance\n", *_table(("benchmark", "measured", "goal", "reached"), _glance(kept))]
    if picture is not None:
        parts += ["", "## How cost grows\n", f"![Seconds over the amount of work, both axes logarithmic]({picture})"]
    for name, found in kept.items():
        parts += ["", f"## {name}\n", f"`{found['command']}`, on the {_kind(found)}.", *_conditions(found)]
        for entry in found["entries"]:
            parts += ["", *_section(entry)]
    return "\n".join(parts) + "\n"


def _kind(found: Mapping[str, Any]) -> str:
    return "GPU" if found["device"] == "cuda" else "CPU"


def _conditions(found: Mapping[str, Any]) -> list[str]:
    roof = found["roofline"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    said = [
        f"Peaks: {roof['fp32'] / 1e9:.0f} GFLOP/s in float32, {roof['bf16'] / 1e9:.0f} in bfloat16, "
        f"{roof['bytes'] / 1e9:.1f} GB/s. {versions}."
    ]
    if found["quick"]:
        said += ["", "**Tried out with small work (`--quick`): these figures mean nothing.**"]
    return said


def _glance(kept: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, found in kept.items():
        for entry in found["entries"]:
            title = f"{name}: {entry['name']}" + (", tried out with `--quick`" if found["quick"] else "")
            if entry["kind"] == "contest":
                for peer, against in entry["against"].items():
                    goal = "" if against["goal"] is None else f"≥ {against['goal']:g}x"
                    yield (f"{title}, against {peer}", _ratio(against), goal, _mark(against["reached"]))
            elif entry["kind"] == "growth":
                goal = "" if entry["goal"] is None else f"≤ {entry['goal']:g}"
                yield (f"{title}", f"{entry['of']}^{entry['exponent']:.2f}", goal, _mark(entry["reached"]))
            elif entry["kind"] == "figure":
                sign = "≤" if entry["better"] == "less" else "≥"
                goal = "" if entry["goal"] is None else f"{sign} {entry['goal']:g} {entry['unit']}".strip()
                yield (title, f"{entry['value']:.4g} {entry['unit']}".strip(), goal, _mark(entry["reached"]))


def _mark(reached: bool | None) -> str:
    return "" if reached is None else "yes" if reached else "**no**"


def _section(entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {entry['name']}\n"
    if entry["kind"] == "contest":
        yield from _contest(entry)
    elif entry["kind"] == "growth":
        yield from _table(
            (entry["of"], "seconds"),
            [(f"{amount:g}", _seconds(took)) for amount, took in zip(entry["amounts"], entry["seconds"], strict=True)],
        )
        yield f"\nExponent {entry['exponent']:.2f} over all, {entry['last']:.2f} between the last two."
    elif entry["kind"] == "figure":
        yield from _said(entry)
    else:
        yield from _rows(entry["rows"], "")
    for sentence in entry["notes"]:
        yield f"\n{sentence}"


def _contest(entry: Mapping[str, Any]) -> Iterator[str]:
    names = list(entry["seconds"])
    rows = []
    for name in names:
        took, against = entry["seconds"][name], entry["against"].get(name)
        spread = f"{_seconds(took['median'])} [{_seconds(took['low'])} to {_seconds(took['high'])}]"
        rows.append((name, spread, "" if against is None else _ratio(against)))
    yield from _table(("", "seconds of processor time", "ratio"), rows)
    if entry["floor"] is not None:
        floor = entry["floor"]
        yield f"\nFloor: {_seconds(floor['seconds'])} ({floor['of']}); medgen takes {floor['times']:.3g} times that."
    if entry["equal"]:
        yield ""
        yield from _rows(entry["equal"], "equal work")
    for sentence in entry["without"]:
        yield f"\nNot compared: {sentence}"


def _rows(rows: Mapping[str, Mapping[str, Any]], title: str) -> Iterator[str]:
    columns = list(dict.fromkeys(column for values in rows.values() for column in values))
    yield from _table(
        (title, *columns), [(row, *(_cell(values.get(column)) for column in columns)) for row, values in rows.items()]
    )


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{int(value)}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def growth_picture(path: Path, kept: Mapping[str, Any]) -> bool:
    """Seconds over the amount of work, both axes logarithmic; False, and no file, where nothing was measured."""
    grown = [entry for found in kept.values() for entry in found["entries"] if entry["kind"] == "growth"]
    if not grown:
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    kinds = list(dict.fromkeys(entry["of"] for entry in grown))
    figure = Figure(figsize=(5.2 * len(kinds), 4.2), layout="constrained")
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), place + 1)
        for entry in grown:
            if entry["of"] == kind:
                label = f"{entry['name']}: {entry['exponent']:.2f}"
                axes.plot(entry["amounts"], entry["seconds"], marker="o", label=label)
        axes.set(xscale="log", yscale="log", xlabel=kind, ylabel="seconds")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(plain)
            # Within two powers of ten these alone would be one tick or none.
            low, high = axis.get_view_interval()
            if high < 100 * low:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_formatter("")
        axes.legend(fontsize=8, title="exponent", title_fontsize=8)
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, dpi=110)
    return True
