"""The verdict of a run goes with its scans, and harm is not taken without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.errors import DataError
from medgen.synthesis.usefulness import Usefulness, accepted_scans, read_usefulness
from medgen.system.files import write_json


def test_the_verdict_is_that_of_the_run(tmp_path: Path) -> None:
    assert read_usefulness(tmp_path) is None
    assert accepted_scans(tmp_path) == {}
    for word in ("USE", "HARMFUL", "NO EVIDENCE", "NOT MEASURED"):
        generators = {"deform": {"accepted": 3}, "joint": {"accepted": 0}}
        write_json(tmp_path / "metrics.json", {"verdict": word, "sentence": f"{word}: x.", "generators": generators})
        found = read_usefulness(tmp_path)
        assert found == Usefulness(word, f"{word}: x.")
        found.require(True, tmp_path)
        if word == "HARMFUL":
            with pytest.raises(DataError, match=r"HARMFUL: x\..*--harmful"):
                found.require(False, tmp_path)
        else:
            found.require(False, tmp_path)
    assert accepted_scans(tmp_path) == {"deform": 3, "joint": 0}
    write_json(tmp_path / "metrics.json", ["of another kind"])
    assert read_usefulness(tmp_path) is None
    assert accepted_scans(tmp_path) == {}
