"""What a model found in the test of the run that made it: read beside the model, for those who use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgen.errors import AuditError, DataError
from medgen.runs.outputs import check_unaltered
from medgen.system import files

_METRICS = "metrics.json"


def found_in_its_run(model: Path, level: float) -> str:
    """A sentence on the implants that got a finding in the run of a model.

    Args:
        model: ``model/`` of an anomaly run. A folder that was taken out of its run has no test beside it.
        level: Expected false findings per healthy scan at which findings are listed now.

    Returns:
        Empty where the run is not there, was changed, or did not measure that level.
    """
    run = model.resolve().parent
    try:
        if not (run / _METRICS).is_file():
            return ""
        check_unaltered(run, _METRICS)
        metrics = files.read_json(run / _METRICS)
    except (AuditError, DataError):
        return ""
    found = metrics.get("findings") if isinstance(metrics, dict) else None
    for group in found.get("groups", ()) if isinstance(found, dict) else ():
        if group.get("by") == "all":
            return _sentence(group, level)
    return ""


def _sentence(group: Mapping[str, Any], level: float) -> str:
    for share in group["shares"]:
        if math.isclose(share["level"], level):
            scans, missed = int(group["scans"]), int(group["scans"]) - int(share["found"])
            return (
                f"What it may miss: in the test of its own run {missed} of {scans} implanted anomalies got no finding "
                "at this level."
            )
    return ""
