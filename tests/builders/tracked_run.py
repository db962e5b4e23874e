"""What a run has said of itself in its journal, as the store will get it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.pipelines.stages import Pipeline
from medgen.runs import journal
from medgen.runs.keys import EVERY_RUN, HIGH, LOW


@dataclass(frozen=True)
class Tracked:
    """One pipeline run.

    Attributes:
        entries: All entries of the journal.
        top: Id of the run itself.
    """

    entries: list[dict[str, Any]]
    top: str

    @classmethod
    def of(cls, out: Path) -> Tracked:
        entries = [entry for entry, _ in journal.entries(out / journal.NAME)]
        (top,) = (entry["run"] for entry in entries if entry["kind"] == "start" and entry["parent"] is None)
        return cls(entries, top)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["kind"] == kind and entry["run"] == self.top]

    @property
    def numbers(self) -> dict[str, float]:
        """The run's own numbers, without the load of the machine."""
        found = {key: value for entry in self.of_kind("metrics") for key, value in entry["values"].items()}
        return {key: value for key, value in found.items() if not key.startswith("system/")}

    @property
    def tags(self) -> dict[str, str]:
        start = next(entry["tags"] for entry in self.of_kind("start"))
        return start | {key: value for entry in self.of_kind("tags") for key, value in entry["values"].items()}

    def undeclared(self, pipeline: Pipeline[Any]) -> list[str]:
        """Names of numbers that no key of the pipeline declares, of the run as of its stages and their parts."""
        stages = {stage.name: stage for stage in pipeline.stages}
        parents = {entry["run"]: entry["parent"] for entry in self.entries if entry["kind"] == "start"}
        names = {entry["run"]: entry["name"] for entry in self.entries if entry["kind"] == "start"}
        strange = []
        for entry in self.entries:
            if entry["kind"] != "metrics":
                continue
            run = entry["run"]
            while parents[run] not in (None, self.top):
                run = parents[run]
            own = run != self.top
            keys = stages[names[run]].own_keys if own else (*pipeline.summary_keys(), *EVERY_RUN)
            for name in entry["values"]:
                bare = name.removesuffix(LOW).removesuffix(HIGH)
                if not name.startswith("system/") and not any(key.fits(bare) for key in keys):
                    strange.append(f"{names[run]}: {name}")
        return strange
