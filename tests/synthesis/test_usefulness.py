"""The verdict of a run goes with its scans, and harm is not taken without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgen.errors import AuditError, DataError
from medgen.runs.outputs import write_outputs_record
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


def test_a_verdict_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"verdict": "HARMFUL", "sentence": "HARMFUL: x."})
    write_outputs_record(tmp_path)
    assert read_usefulness(tmp_path) == Usefulness("HARMFUL", "HARMFUL: x.")
    write_json(tmp_path / "metrics.json", {"verdict": "USE", "sentence": "USE: x."})
    with pytest.raises(AuditError, match=r"metrics\.json: is not as the run wrote it; expected .*; restore the file"):
        read_usefulness(tmp_path)
