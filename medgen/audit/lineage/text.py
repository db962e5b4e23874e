"""A lineage as lines that people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medgen.audit.lineage.trace import Lineage, Node

# What stands before the nodes of each kind, in the order in which a reader asks.
_KINDS = (
    ("scan", "from the scan"),
    ("parent scan", "changed from"),
    ("record", "as recorded in"),
    ("model", "by the model"),
    ("weights", "weights"),
    ("training scan", "learnt from"),
    ("calibration", "calibrated by"),
    ("run", "in the run"),
    ("settings", "settings"),
    ("code", "code"),
    ("environment", "environment"),
)
_WIDTH = max(len(words) for _, words in _KINDS)


def lines(lineage: Lineage) -> list[str]:
    """The file that is traced, then a line for each thing that it was made from, with its hash."""
    found = [*_output(lineage)]
    several = len(lineage.of_kind("run")) > 1
    for kind, words in _KINDS:
        nodes = _learnt(lineage) if kind == "training scan" else lineage.of_kind(kind)
        width = max((len(_label(node)) for node in nodes), default=0)
        for node in nodes:
            hashed = node.sha256 or ("hash not recorded" if kind.endswith("scan") else "")
            run = _run_of(lineage, node) if several and kind in ("settings", "code", "environment") else []
            more = "; ".join([*run, *_facts(node)])
            parts = [f"{words:<{_WIDTH}}", f"{_label(node):<{width}}", hashed, f"({more})" if more else ""]
            found.append("  ".join(part for part in parts if part).rstrip())
    return found


def _output(lineage: Lineage) -> Iterator[str]:
    for node in lineage.of_kind("output"):
        state = node.facts.get("state")
        yield f"{node.label}: {state}" if state else f"{node.label}/: {node.facts['files']} file(s)"
        if node.sha256:
            yield f"{'sha256':<{_WIDTH}}  {node.sha256}"
        if (row := node.facts.get("row")) is not None:
            told = ", ".join(f"{key} {value}" for key, value in row.items() if value)
            yield f"{'row ' + str(node.facts['row_number']):<{_WIDTH}}  {told}"
        elif case := node.facts.get("case"):
            yield f"{'case':<{_WIDTH}}  {case}"


def _learnt(lineage: Lineage) -> list[Node]:
    """The scans that a model learnt from, also the one that the file is about."""
    models = {node.id for node in lineage.of_kind("model")}
    known = {source for source, made in lineage.edges if made in models}
    scans = lineage.of_kind("training scan", "scan", "parent scan")
    return [node for node in scans if node.kind == "training scan" or node.id in known]


def _run_of(lineage: Lineage, node: Node) -> list[str]:
    """To which run settings, code or environment belong."""
    made = {made for source, made in lineage.edges if source == node.id}
    return [f"of {run.label}" for run in lineage.of_kind("run") if run.id in made]


def _label(node: Node) -> str:
    return node.label


def _facts(node: Node) -> Iterator[str]:
    """The facts of a node that a reader wants beside its name."""
    facts: Mapping[str, Any] = node.facts
    if node.kind == "model" and facts.get("cases"):
        yield f"learnt from {facts['cases']} scan(s)"
    elif node.kind == "run":
        yield from (f"{key} {facts[key]}" for key in ("started", "ended", "seed") if facts.get(key) is not None)
        if facts.get("found") is False:
            yield "its folder was not found: name the folder of its runs with --runs"
    elif node.kind == "settings" and facts.get("config_sha256"):
        yield f"digest {facts['config_sha256']}"
    elif node.kind == "code":
        dirty = facts.get("dirty")
        yield f"commit {facts.get('commit')}"
        if dirty:
            yield f"changed since: {facts['diff']}" if facts.get("diff") else "changed since, how was not kept"
    elif node.kind == "environment":
        yield ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items() if name != "medgen")
    elif node.kind == "record":
        yield from (f"{key} {facts[key]}" for key in ("backend", "seed", "stamp") if facts.get(key) is not None)
