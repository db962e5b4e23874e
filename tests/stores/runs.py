"""A small tracked run, and whether a database holds what its journal holds, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from postgres import Postgres

from medgen.runs import journal, tracking

STEPS = 10


def track(out: Path, events: dict[int, Callable[[], None]] | None = None) -> None:
    """A run with a stage, metrics, settings, facts, a file and a text; ``events`` happen before a step."""
    out.mkdir(parents=True, exist_ok=True)
    config = {"training": {"steps": STEPS, "rate": 1e-3}}
    with tracking.start("stores", out, config=config, seed=3, manifest_digest="ab" * 32) as run:
        with run.stage("train") as stage:
            for step in range(STEPS):
                (events or {}).get(step, lambda: None)()
                stage.log_metrics({"loss": (step + 1) / 3, "kl": 0.5}, step)
            (out / "table.csv").write_text("case,score\na,0.25\n")
            stage.log_file(out / "table.csv", "tables")
        run.set_tags({"medgen.note": "whole"})
        run.log_text("hello", "note.txt")


def arrive(out: Path) -> None:
    """Send what is left, as a user would; sending again sends nothing."""
    tracking.sync(out)
    assert tracking.sync(out) == 0


def check(postgres: Postgres, database: str, outs: Sequence[Path]) -> dict[str, int]:
    """Everything in the journals is in the database, once, and nothing else of these runs is; how much it was."""
    runs: dict[str, str] = {}
    metrics: Counter[tuple] = Counter()
    params: Counter[tuple] = Counter()
    tags: dict[tuple[str, str], str] = {}
    for out in outs:
        for entry, _ in journal.entries(out / journal.NAME):
            run, values = entry["run"], entry.get("values", {})
            if entry["kind"] == "start":
                tags |= {(run, key): value for key, value in entry["tags"].items()}
            elif entry["kind"] == "end":
                runs[run] = entry["status"]
            elif entry["kind"] == "metrics":
                metrics.update((run, key, float(value), entry["step"], entry["time"]) for key, value in values.items())
            elif entry["kind"] == "params":
                params.update((run, key, value) for key, value in values.items())
            elif entry["kind"] == "tags":
                tags |= {(run, key): value for key, value in values.items()}
    ours = "join tags o on o.run_uuid = t.run_uuid and o.key = 'medgen.run' where o.value = any(array[{}])".format(
        ", ".join(f"'{run}'" for run in runs)
    )

    def found(columns: str, table: str) -> Counter[tuple]:
        rows = postgres.do(f"select o.value, {columns} from {table} t {ours}", database=database)
        return Counter(tuple(row) for row in rows)

    assert found("t.status", "runs") == Counter(runs.items())
    assert found("t.key, t.value, t.step, t.timestamp", "metrics") == metrics
    assert found("t.key, t.value", "params") == params
    stored = Counter({row: n for row, n in found("t.key, t.value", "tags").items() if not row[1].startswith("mlflow.")})
    assert stored == Counter((*key, value) for key, value in tags.items())
    return {"runs": len(runs), "metrics": metrics.total(), "params": params.total(), "tags": len(tags)}
