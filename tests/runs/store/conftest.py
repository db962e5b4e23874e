"""A store with two runs that made a model each, one that used the first, and one that was refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medgen.errors import DataError
from medgen.metrics.interval import Interval
from medgen.runs import tracking
from medgen.runs.keys import spread
from medgen.runs.store.mlflow_store import connect

CANARY = "canary-user"
SCANS = "ab" * 32


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def make_model(out: Path, sha256: str, low: float, *, scans: str = SCANS, called: str = "brains") -> str:
    """A run that makes a model; its average precision is from ``low`` to ``low + 0.1``."""
    (out / "model").mkdir(parents=True)
    (out / "model" / "artifact.json").write_text("{}")
    table = out / "scans.csv"
    table.write_text("case,score,p\na,1.5,0.25\nb,,0.5\n")
    page = out / "report.html"
    shown = [base64.b64encode(png(80 * step)).decode() for step in range(3)]
    page.write_text("".join(f'<img src="data:image/png;base64,{own}">' for own in shown))
    config = {"evaluation": {"per_scan": "8"}, "out": out}
    with tracking.start("anomaly", out, config=config, seed=0, tags={"medgen.cohort": "brains"}) as run:
        run.log_dataset("brains", "training", "cd" * 32, {"scans": 10, "subjects": 9})
        run.log_dataset("brains", "test", scans, {"scans": 4, "subjects": 4})
        with run.stage("train") as stage:
            stage.past("elsewhere", 1_700_000_000_000, 1_700_000_060_000, {"dice": 0.5})
        numbers = {"test.voxel_ap": Interval(low + 0.05, low, low + 0.1, 12), "test.implants": 8}
        run.log_metrics(spread(numbers))
        run.describe("> **Found** 3 of 4.\n\n| | |\n|---|---|\n| scans | 12 |")
        run.log_file(out / "model")
        run.log_table(table, "tables/scans.json")
        for step in range(3):
            run.log_image(page, "Heatmaps, of tests", step, png(80 * step))
        run.set_tags({"medgen.model.sha256": sha256})
        facts = {"medgen.kind": "anomaly", "medgen.run": run.id}
        run.log_model(f"medgen-anomaly-{called}", "model", sha256, facts, f"Detector of {out}/{CANARY}/x")
        return run.id


def refuse(out: Path, ids: dict[str, str]) -> None:
    with tracking.start("anomaly", out, config={}, seed=0) as run, run.stage("prepare"):
        ids["refused"] = run.id
        raise DataError(f"{out}/patient.nii: broken")


@dataclass(frozen=True)
class Stored:
    """The store and the runs in it."""

    root: Path
    client: Any
    ids: dict[str, str]

    def run(self, name: str) -> Any:
        (found,) = self.client.search_runs(["1"], f"tags.`medgen.run` = '{self.ids[name]}'")
        return self.client.get_run(found.info.run_id)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    root = tmp_path_factory.mktemp("stored") / CANARY
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        # Used before it is known to the store, as after an outage.
        with tracking.start("anomaly-score", root / "scored", config={}, seed=0) as run:
            run.set_tags({"medgen.model.sha256": "1" * 64})
            run.describe("Ordinary.")
            run.log_model_used("1" * 64)
        ids = {"scored": run.id}
        ids["first"] = make_model(root / "first", "1" * 64, 0.2)
        ids["second"] = make_model(root / "second", "2" * 64, 0.5)
        with tracking.start("anomaly-score", root / "later", config={}, seed=0) as run:
            run.log_model_used("2" * 64)
        ids["later"] = run.id
        with pytest.raises(DataError):
            refuse(root / "refused", ids)
        yield Stored(root, connect(f"sqlite:///{root.as_posix()}/mlflow.db"), ids)
