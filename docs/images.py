"""Make the pictures of README.md from what ``medgen demo`` has left: ``python docs/images.py demo``.

A test compares the configurations that the pictures were made with, which ``docs/images/demo.json`` names by their
hashes, with those that are shipped, and the pictures themselves where a demo is at hand (``MEDGEN_DEMO=folder``).
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from medgen import io
from medgen.report.figures.mosaic import comparison
from medgen.report.figures.small_png import small_png
from medgen.runs.tracking import last_run
from medgen.volume import Volume

HERE = Path(__file__).parent / "images"
RECORD = HERE / "demo.json"


def best_hit(anomaly: Path) -> dict[str, str]:
    """The implanted test scan whose finding on the implant is the surest, as a line of ``scans.csv``."""
    with (anomaly / "scans.csv").open(encoding="utf-8", newline="") as file:
        hits = [row for row in csv.DictReader(file) if row["expected_false_on_implant"]]
    # Runs keep the pseudo-healthy versions of some scans.
    rows = [row for row in hits if (anomaly / "pseudo-healthy" / f"{row['case']}.nii.gz").is_file()]
    return min(rows, key=lambda row: (float(row["expected_false_on_implant"]), -float(row["max"]), row["case"]))


def heatmap(anomaly: Path) -> tuple[bytes, dict[str, Any]]:
    """The scan, its pseudo-healthy version, the difference and the heat with the implant's outline."""
    row = best_hit(anomaly)
    parts = {
        name: io.read(anomaly / name / f"{row['case']}.nii.gz", allow_nan=True)
        for name in ("pseudo-healthy", "difference", "heatmaps", "truth")
    }
    healthy, difference, truth = parts["pseudo-healthy"], parts["difference"], parts["truth"]
    scan = Volume(np.nan_to_num(healthy.data + difference.data), healthy.grid)
    inside = np.argwhere(truth.data[0] > 0)
    title = (
        f"{row['case']}: {row['kind']}, radius {float(row['radius_mm']):.1f} mm, contrast {float(row['contrast']):g}; "
        f"findings: {row['findings']}"
    )
    figure = comparison(
        scan,
        heatmap=parts["heatmaps"],
        expected=healthy,
        difference=difference,
        contour=truth,
        point=truth.grid.to_world(inside.mean(axis=0)),
        title=title,
        contour_label="implanted anomaly",
    )
    return small_png(figure), {"case": row["case"], "title": title}


def synthetic(augment: Path) -> tuple[bytes, dict[str, Any]]:
    """Samples of the last generator beside the scans that they resemble most, as the run has drawn them."""
    generators = json.loads((augment / "metrics.json").read_text(encoding="utf-8"))["generators"]
    backend = [*generators][-1]
    return (augment / "figures" / f"samples-{backend}.png").read_bytes(), {"backend": backend}


def pictures(demo: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The pictures by file name, and what they show, from which configurations."""
    made: dict[str, bytes] = {}
    record: dict[str, Any] = {}
    for name, run, draw in (("heatmap.png", "anomaly", heatmap), ("synthetic.png", "augment", synthetic)):
        made[name], shown = draw(demo / run)
        facts = last_run(demo / run) or {}
        record[name] = {"run": run, "config_sha256": facts["medgen.config.sha256"], **shown}
    return made, record


def main(demo: Path) -> None:
    """Write the pictures and their record."""
    made, record = pictures(demo)
    for name, content in made.items():
        (HERE / name).write_bytes(content)
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
