"""The journals of shards become one: that of the run, whose chain goes on as if it had said everything itself."""

from __future__ import annotations

import hashlib

from medgen.runs.cases.manifest import Finished
from medgen.runs.journal import NAME, entries
from medgen.runs.run import Run


class Merger:
    """Adds what shards have said to a run, shard by shard.

    A shard's numbers come with their steps, which are the shard's; its own start and end are its life and not the
    run's. What was said is kept in the run's chain, and the tag ``medgen.shards.sha256`` is the digest of the heads of
    all shards' chains, so that it can be told which journals were merged.
    """

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._digest = hashlib.sha256()
        self._shards = 0

    def add(self, shard: int, finished: Finished, begun: int) -> None:
        """Merge the journal of a shard.

        Args:
            shard: Its number.
            finished: The shard, whose journal was compared with its record.
            begun: How often it was begun in this run; 0 if it was taken over from an earlier one.
        """
        self._shards += 1
        self._digest.update(f"{shard}:{finished.record['journal']['chain']}\n".encode("ascii"))
        if self._run is None:
            return
        for entry, _ in entries(finished.place / NAME):
            if entry["kind"] == "metrics":
                self._run.log_metrics(entry["values"], step=entry["step"])
        self._run.log_metrics({"shard.begun": begun}, step=shard)

    def close(self) -> None:
        """Say how many shards there were, and the digest of their journals."""
        if self._run is not None:
            self._run.set_tags({"medgen.shards": self._shards, "medgen.shards.sha256": self._digest.hexdigest()})
