"""The validator of the BIDS community, which needs no network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

# Beside the Python that runs the tests, or wherever the shell finds it.
_BESIDE = Path(sys.executable).with_name("bids-validator-deno")
VALIDATOR = str(_BESIDE) if _BESIDE.is_file() else shutil.which("bids-validator-deno")


def bids_errors(folder: Path) -> list[str]:
    """What is wrong with a data set: code and file of every error."""
    assert VALIDATOR is not None
    done = subprocess.run(
        [VALIDATOR, "--format", "json", str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [
        f"{issue['code']} {issue.get('subCode', '')} {issue.get('location', '')}"
        for issue in issues
        if issue.get("severity") == "error"
    ]
